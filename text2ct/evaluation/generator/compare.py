"""Several synthetic sets of the same prompts beside one real set: differences, with the same patients drawn for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from text2ct.classifiers import predict
from text2ct.errors import UserError
from text2ct.evaluation.bootstrap import auc_samples, cluster_weights, interval, row_mean
from text2ct.evaluation.fidelity import fid_samples
from text2ct.evaluation.frechet import frechet_of_rows
from text2ct.evaluation.generator.alignment import clip_scores_by_row, embeddings
from text2ct.evaluation.generator.evaluate import Compared, Measures, Metric, Settings, evaluate
from text2ct.evaluation.generator.factual import asked_rows
from text2ct.evaluation.generator.fidelity import statistics_of_sets
from text2ct.evaluation.generator.sets import MeasuredSet, real_rows, synthetic_rows
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace

COMPARED: tuple[Metric, ...] = ("fidelity", "fid_3d", "alignment", "factual")
"""What sets are compared by; privacy and diversity are asked of each by itself."""
NAMES = {
    "fid_2p5d": "FID 2.5D, mean",
    "fid_3d": "FID 3D",
    "text_image": "CLIP score, text to image",
    "image_image": "CLIP score, image to image",
    "macro_auc": "macro AUC of the classifier",
}
BETTER_BELOW = {"fid_2p5d", "fid_3d"}
_OF_PROMPT = ("prompt_dataset", "prompt_volume")


def compare(
    real: pd.DataFrame,
    sets: Mapping[str, pd.DataFrame],
    workspace: Workspace,
    settings: Settings,
    measures: Measures,
) -> dict[str, Any]:
    """Evaluate each set on the prompts that all have, and the differences from the first.

    Intervals are of a bootstrap that draws real patients and prompts once for all sets: what makes a prompt hard, or a
    patient odd, is in both and falls out of the difference.

    Args:
        real: Real manifest.
        sets: Name to synthetic manifest, 2 or more.
        workspace: Resolves roots; holds the caches.
        settings: How they are compared.
        measures: What measures them.

    Returns:
        ``prompts`` in common, ``sets`` (name to what :func:`evaluate` found), ``differences`` (a row for each measure
        and set but the first) and ``notes``.

    Raises:
        UserError: Fewer than 2 sets, or no 2 prompts in common; or as :func:`evaluate`.
    """
    rows = {name: synthetic_rows(frame) for name, frame in sets.items()}
    common = common_prompts(rows)
    notes = [
        f"paired differences are of {'; '.join(NAMES.values())}, as far as these were measured; for all else each set "
        "has its own interval"
    ]
    counts = [pd.Series(MeasuredSet.texts_of(frame)).value_counts() for frame in rows.values()]
    fewest = {text: min(int(one[text]) for one in counts) for text in common}
    for name, frame in rows.items():
        texts = pd.Series(MeasuredSet.texts_of(frame), index=frame.index)
        # Distances fall as volumes are added: as many of each prompt from every set.
        place = texts.groupby(texts).cumcount()
        kept = frame[texts.isin(common) & (place < texts.map(fewest))].reset_index(drop=True)
        if len(kept) < len(frame):
            notes.append(
                f"{name}: {len(frame) - len(kept)} volumes of other prompts, or more of a prompt, are left out"
            )
        rows[name] = kept
    rows = _of_one_scan(rows)
    found = {name: evaluate(real, frame, workspace, settings, measures) for name, frame in rows.items()}
    samples = {}
    for name, frame in rows.items():
        samples[name] = _samples(real, frame, sorted(common), workspace, settings, measures)
    first = next(iter(samples))
    differences = [
        _difference(key, first, name, samples)
        for name in list(samples)[1:]
        for key in samples[first]
        if key in samples[name] and np.isfinite([samples[name][key][0], samples[first][key][0]]).all()
    ]
    for name, one in found.items():
        notes += [f"{name}: {note}" for note in one["notes"]]
    return {"prompts": len(common), "against": first, "sets": found, "differences": differences, "notes": notes}


def common_prompts(rows: Mapping[str, pd.DataFrame]) -> set[str]:
    """The prompts that all sets have.

    Raises:
        UserError: Fewer than 2 sets, or no 2 such prompts.
    """
    if len(rows) < 2:
        raise UserError(f"{len(rows)} set is nothing to compare; give 2 or more")
    common = set.intersection(*(set(MeasuredSet.texts_of(frame)) - {""} for frame in rows.values()))
    if len(common) < 2:
        raise UserError(f"the sets have {len(common)} prompts in common; make them from the same prompts")
    return common


def _of_one_scan(rows: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The real volume of a prompt is the same in every set: the one that the first set that names any names."""
    named: dict[str, tuple[str, str]] = {}
    for frame in rows.values():
        if set(_OF_PROMPT) <= set(frame):
            told = zip(MeasuredSet.texts_of(frame), frame[_OF_PROMPT[0]], frame[_OF_PROMPT[1]], strict=True)
            for text, dataset, volume in told:
                if volume:
                    named.setdefault(text, (dataset, volume))
    return {
        name: frame.assign(
            **{
                column: [named.get(text, ("", ""))[place] for text in MeasuredSet.texts_of(frame)]
                for place, column in enumerate(_OF_PROMPT)
            }
        )
        for name, frame in rows.items()
    }


Sample = tuple[float, NDArray[np.float64]]


def _difference(key: str, first: str, name: str, samples: Mapping[str, Mapping[str, Sample]]) -> dict[str, Any]:
    (value, drawn), (base, base_drawn) = samples[name][key], samples[first][key]
    apart = drawn - base_drawn
    ci = interval(apart) if len(apart) else None
    if ci is not None and key in BETTER_BELOW:
        # Resampling makes distances larger: the spread is theirs, the place the estimate's.
        shift = (value - base) - float(np.nanmedian(apart))
        ci = [ci[0] + shift, ci[1] + shift]
    return {
        "set": name,
        "against": first,
        "measure": key,
        "value": value,
        "base": base,
        "difference": value - base,
        "ci": ci,
        "better": "lower" if key in BETTER_BELOW else "higher",
    }


def _samples(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    prompts: list[str],
    workspace: Workspace,
    settings: Settings,
    measures: Measures,
) -> dict[str, Sample]:
    """Of each measure its value, and its values when patients and prompts are drawn."""
    rows = real_rows(real, settings.split)
    both = Compared(real, rows, synthetic, real.iloc[:0], workspace, settings, measures)
    rng = np.random.default_rng(settings.seed)
    number = {text: code for code, text in enumerate(prompts)}
    codes = np.array([number[text] for text in both.synthetic.texts])
    of_patients = cluster_weights(both.real.groups, settings.n_bootstrap, rng)
    of_prompts = cluster_weights(np.arange(len(prompts)), settings.n_bootstrap, rng)[codes]
    found: dict[str, Sample] = {}
    if "fidelity" in settings.metrics and measures.encoder is not None:
        value, statistics = statistics_of_sets(
            both.real, both.synthetic, measures.encoder, both.kept, every=settings.every, device=both.device
        )
        # Of a wide network the samples are of its leading components: a difference takes their spread alone.
        found["fid_2p5d"] = value, fid_samples(*statistics, of_patients, of_prompts).mean(axis=1)
    encoder_3d = measures.encoder_3d
    if "fid_3d" in settings.metrics and encoder_3d is not None:
        features = [
            both.kept.of(one.volumes, encoder_3d.name, encoder_3d, f"{name} volumes, 3D backbone").rows()
            for name, one in zip(("real", "synthetic"), both.both_on(encoder_3d.grid), strict=True)
        ]
        own, made = features
        drawn = [frechet_of_rows(own, made, a, b) for a, b in zip(of_patients.T, of_prompts.T, strict=True)]
        found["fid_3d"] = frechet_of_rows(own, made), np.array(drawn)
    if "alignment" in settings.metrics and measures.scorer is not None:
        scorer = measures.scorer
        image = {
            name: embeddings(scorer, one.volumes, both.kept, f"{name} volumes by 3D CLIP")
            for name, one in zip(("real", "synthetic"), both.both_on(scorer.grid), strict=True)
        }
        for name, (at, each) in clip_scores_by_row(both.synthetic, image, both.pairs, scorer).items():
            if len(at):
                found[name] = float(each.mean()), each @ of_prompts[at] / of_prompts[at].sum(axis=0)
    if "factual" in settings.metrics and measures.classifier is not None and len(both.pairs):
        asked = asked_rows(both.real, both.synthetic, both.pairs)
        said = predict(measures.classifier, asked, workspace, device=measures.device)[list(FINDINGS)].to_numpy()
        labels = asked[list(FINDINGS)].to_numpy(dtype=np.float64)
        value = row_mean(auc_samples(said, labels, np.ones((len(asked), 1))))[0]
        found["macro_auc"] = float(value), row_mean(auc_samples(said, labels, of_prompts[both.pairs[:, 0]]))
    return found
