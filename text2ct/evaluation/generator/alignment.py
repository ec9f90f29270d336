"""Alignment: do volumes agree with their prompts, and with the volumes that these describe, as a 3D CLIP sees it?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from text2ct.classifiers.cache import CachedVolumes
from text2ct.evaluation.bootstrap import cluster_weights, interval
from text2ct.evaluation.generator.kept_features import Describe, KeptFeatures
from text2ct.evaluation.generator.scorers import Scorer
from text2ct.evaluation.generator.sets import MeasuredSet
from text2ct.evaluation.retrieval import Retrieval, clip_scores, report_to_volume_recall, volume_to_volume_map
from text2ct.evaluation.zero_shot import macro_samples, zero_shot


def embeddings(scorer: Scorer, volumes: CachedVolumes, kept: KeptFeatures, what: str) -> NDArray[np.float64]:
    """(n, d) unit vectors of volumes, kept on disk."""
    return kept.of(volumes, scorer.identity, describer(scorer), what).rows()


def describer(scorer: Scorer) -> Describe:
    """A volume to its embedding, (d,) alone in a tuple."""
    return partial(_described, scorer)


def embed_one(scorer: Scorer, volume_hu: NDArray[np.generic]) -> NDArray[np.float32]:
    """The unit vector of one volume, (d,)."""
    return scorer.volumes([volume_hu])[0]


def _described(scorer: Scorer, volume_hu: NDArray[np.int16]) -> tuple[NDArray[np.float32]]:
    return (embed_one(scorer, volume_hu),)


def alignment_section(
    real: MeasuredSet,
    synthetic: MeasuredSet,
    pairs: NDArray[np.intp],
    scorer: Scorer,
    kept: KeptFeatures,
    conditioned: bool | None,
    *,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """``clip_score``, and what the 3D CLIP itself is worth on the real volumes: zero-shot, retrieval, with chance.

    Intervals are of a bootstrap over prompts and patients; of retrieval queries are drawn, and the gallery stays.

    Args:
        real: Real volumes with reports.
        synthetic: Synthetic volumes with prompts.
        pairs: (k, 2) rows of both that belong to one report.
        scorer: The 3D CLIP.
        kept: Features.
        conditioned: Whether this 3D CLIP conditioned the generator; None where the generator's pack is not known.
        n_bootstrap: Bootstrap samples.
        seed: Of the bootstrap.
    """
    image = {
        name: embeddings(scorer, one.volumes, kept, f"{name} volumes by 3D CLIP")
        for name, one in (("real", real), ("synthetic", synthetic))
    }
    how = n_bootstrap, seed
    by_row = clip_scores_by_row(synthetic, image, pairs, scorer)
    scores: dict[str, Any] = {
        "text_image": None,
        "image_image": None,
        "prompts": len(by_row["text_image"][0]),
        "pairs": len(pairs),
        "clip": scorer.name,
        "scores_its_own": conditioned,
    }
    for name, (rows, each) in by_row.items():
        if len(rows):
            scores[name] = float(each.mean())
            scores[f"{name}_ci"] = _interval(each, synthetic.groups[rows], how)
    reported = [number for number, text in enumerate(real.texts) if text]
    found: dict[str, Any] = {"clip_score": scores}
    if not np.isnan(real.labels).all():
        zero = zero_shot(scorer.texts, image["real"], real.labels)
        found["zero_shot"] = {
            "auc": zero.macro_auc, "accuracy": zero.macro_accuracy, "precision": zero.macro_precision, "n": zero.n,
            "chance": _chance(real.labels, [value is not None for value in zero.auc.values()]),
        }  # fmt: skip
        if n_bootstrap:
            samples = macro_samples(zero.scores, real.labels, _weights(real.groups, how))
            found["zero_shot"] |= {f"{name}_ci": interval(drawn) for name, drawn in samples.items()}
    if (real.labels == 1).any(axis=1).sum() >= 2:
        found["volume_to_volume_map"] = _by_k(volume_to_volume_map(image["real"], real.labels), real.groups, how)
    if len(reported) >= 2:
        texts = scorer.texts([real.texts[i] for i in reported])
        recall = report_to_volume_recall(texts, image["real"][reported])
        found["report_to_volume_recall"] = _by_k(recall, real.groups[reported], how)
    return found


def _chance(labels: NDArray[np.float64], with_auc: list[bool]) -> dict[str, float | None]:
    """What zero-shot reaches without seeing: AUC 0.5, of precision the prevalence, of accuracy the commoner answer."""
    known = labels[:, (~np.isnan(labels)).any(axis=0)]
    told = labels[:, with_auc]
    prevalence = np.nanmean(known, axis=0)
    return {
        "auc": 0.5,
        "accuracy": float(np.maximum(prevalence, 1 - prevalence).mean()),
        "precision": float(np.nanmean(told, axis=0).mean()) if told.size else None,
    }


ByRow = tuple[NDArray[np.intp], NDArray[np.float64]]


def clip_scores_by_row(
    synthetic: MeasuredSet,
    image: Mapping[str, NDArray[np.float64]],
    pairs: NDArray[np.intp],
    scorer: Scorer,
) -> dict[str, ByRow]:
    """Scores of single volumes: rows of the synthetic set that have one, and the values in [0, 100].

    Args:
        synthetic: Synthetic volumes with prompts.
        image: Unit vectors of the ``real`` and the ``synthetic`` volumes.
        pairs: As for :func:`alignment_section`.
        scorer: The 3D CLIP.

    Returns:
        ``text_image`` and ``image_image``; without prompts or pairs there are no rows.
    """
    told = np.array([number for number, text in enumerate(synthetic.texts) if text], dtype=np.intp)
    none = np.zeros(0)
    text, between = none, none
    if len(told):
        prompts = scorer.texts([synthetic.texts[i] for i in told])
        text = clip_scores(prompts, image["synthetic"][told])
    if len(pairs):
        between = clip_scores(image["real"][pairs[:, 1]], image["synthetic"][pairs[:, 0]])
    return {"text_image": (told, text), "image_image": (pairs[:, 0], between)}


def _weights(groups: NDArray[np.intp], how: tuple[int, int]) -> NDArray[np.float64]:
    """(n, B) for rows whose groups are drawn whole; ``how`` is the number of samples and the seed."""
    codes = np.unique(groups, return_inverse=True)[1]
    return cluster_weights(codes, how[0], np.random.default_rng(how[1]))


def _interval(each: NDArray[np.float64], groups: NDArray[np.intp], how: tuple[int, int]) -> list[float] | None:
    """Of a mean over rows, whose groups are drawn whole."""
    if not how[0]:
        return None
    weights = _weights(groups, how)
    return interval(each @ weights / weights.sum(axis=0))


def _by_k(measure: Retrieval, groups: NDArray[np.intp], how: tuple[int, int]) -> dict[str, Any]:
    at: dict[str, Any] = {str(k): value for k, value in measure.at.items()}
    drawn = groups[measure.rows]
    return at | {
        "ci": {str(k): _interval(each, drawn, how) for k, each in measure.of_query.items()},
        "chance": {str(k): value for k, value in measure.chance.items()},
        "gallery": measure.gallery,
    }
