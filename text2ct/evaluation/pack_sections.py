"""The sections of a pack's figures: what each one measures of volumes, texts and judges that it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from text2ct.diffusion.generate import decode_latents
from text2ct.diffusion.pack import Pack
from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.training.vae import unit_tensor
from text2ct.evaluation._kept import Kept
from text2ct.evaluation.bootstrap import auc_samples, cluster_weights, interval, row_mean
from text2ct.evaluation.fidelity import fid_between
from text2ct.evaluation.judges import Judge, aucs, macro
from text2ct.evaluation.memorisation import find_memorised
from text2ct.evaluation.probe import linear_probe
from text2ct.evaluation.real_data import RealData
from text2ct.evaluation.retrieval import clip_score, report_to_volume_recall, volume_to_volume_map
from text2ct.evaluation.similarity import diversity
from text2ct.evaluation.slice_network import SliceNetwork
from text2ct.evaluation.slices import slice_statistics
from text2ct.evaluation.zero_shot import UNTAUGHT_PHRASINGS, zero_shot
from text2ct.findings import FINDINGS
from text2ct.simulation.text import compose
from text2ct.volumes import Volume, to_grid

BATCH = 8
BOOTSTRAP = 1000


def psnr(reference_hu: NDArray[Any], other_hu: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB over a range of 2000 HU."""
    error = np.mean((reference_hu.astype(np.float64) - other_hu) ** 2)
    return float(10 * np.log10(2000.0**2 / error)) if error else float("inf")


@torch.inference_mode()
def rebuild(pack: Pack, volumes_hu: Sequence[NDArray[np.generic]], device: torch.device) -> list[NDArray[np.float32]]:
    """Volumes through the autoencoder and back, HU."""
    vae = pack.vae.to(device)
    out: list[NDArray[np.float32]] = []
    for start in range(0, len(volumes_hu), BATCH):
        unit = unit_tensor(np.stack(volumes_hu[start : start + BATCH]))[:, None].to(device)
        out += list(decode_latents(pack, vae.encode(unit)[0]))
    return out


def autoencoder_figures(
    pack: Pack, volumes_hu: Sequence[NDArray[Any]], chest: Volume | None, device: torch.device
) -> dict[str, Any]:
    """PSNR (mean over volumes, dB) and the mean error of voxels above 300 HU, of new patients and of a real chest.

    Args:
        pack: Whose autoencoder.
        volumes_hu: (X, Y, Z) each, on the pack's grid, HU within its range.
        chest: A real volume, on any grid, or None.
        device: Where to compute.

    Returns:
        ``n``, ``psnr_db``, ``dense_bias_hu`` (None where nothing is dense) and, with a chest, ``real_chest_`` of both.
    """
    rebuilt = rebuild(pack, volumes_hu, device)
    found: dict[str, Any] = {"n": len(volumes_hu)}
    found["psnr_db"] = _rounded(np.mean([psnr(a, b) for a, b in zip(volumes_hu, rebuilt, strict=True)]), 2)
    found["dense_bias_hu"] = _dense_bias(volumes_hu, rebuilt)
    if chest is not None:
        grid: dict[str, Any] = {"size": pack.info.grid, "spacing_mm": pack.info.spacing_mm, "fit": "crop-pad"}
        hu = np.clip(to_grid(chest, **grid).hu, *pack.info.hu_range)
        # Air that pads a short scan is rebuilt for nothing, so it does not count.
        covered = to_grid(Volume(np.zeros_like(chest.hu), chest.affine), **grid).hu > -500
        again = rebuild(pack, [hu], device)[0]
        found["real_chest_psnr_db"] = _rounded(psnr(hu[covered], again[covered]), 2)
        found["real_chest_dense_bias_hu"] = _dense_bias([hu], [again])
    return found


def _dense_bias(volumes_hu: Sequence[NDArray[Any]], rebuilt: Sequence[NDArray[Any]]) -> float | None:
    errors = np.concatenate([(b - a)[a > 300] for a, b in zip(volumes_hu, rebuilt, strict=True)])
    return _rounded(errors.mean(), 1) if len(errors) else None


@torch.inference_mode()
def embed_volumes(pack: Pack, volumes_hu: Sequence[NDArray[np.generic]], device: torch.device) -> NDArray[np.float32]:
    """(n, d) unit vectors."""
    clip = pack.clip.to(device)
    parts = [
        clip.encode_volume(unit_tensor(np.stack(volumes_hu[start : start + 20]))[:, None].to(device)).cpu()
        for start in range(0, len(volumes_hu), 20)
    ]
    return np.asarray(torch.cat(parts).float().numpy())


@torch.inference_mode()
def embed_texts(pack: Pack, texts: Sequence[str], device: torch.device) -> NDArray[np.float32]:
    """(n, d) unit vectors."""
    clip = pack.clip.to(device)
    parts = []
    for start in range(0, len(texts), 50):
        ids = pack.tokenizer.encode(list(texts[start : start + 50]), pack.info.text_length)
        parts.append(clip.encode_text(torch.from_numpy(ids).to(device)).embedding.cpu())
    return np.asarray(torch.cat(parts).float().numpy())


def clip_figures(pack: Pack, cases: Cases, real: RealData, device: torch.device) -> dict[str, Any]:
    """Zero-shot AUC, retrieval with its chance levels, CLIP score, and a probe of real reports' features.

    Args:
        pack: Whose 3D CLIP.
        cases: Patients that the pack never met.
        real: Real reports, of which the reserved ones are read; may hold none.
        device: Where to compute.

    Returns:
        AUCs, recalls and precisions in [0, 1], those of retrieval by k; ``clip_score_text_image`` in [0, 100].
    """
    image = embed_volumes(pack, cases.volumes_hu, device)
    text = embed_texts(pack, [case.text() for case in cases.texts], device)
    zero = zero_shot(lambda prompts: embed_texts(pack, prompts, device), image, cases.labels)
    reworded = zero_shot(
        lambda prompts: embed_texts(pack, prompts, device), image, cases.labels, phrasings=UNTAUGHT_PHRASINGS
    )
    recall = report_to_volume_recall(text, image)
    similar = volume_to_volume_map(image, cases.labels)
    found: dict[str, Any] = {
        "n": len(cases),
        "zero_shot_macro_auc": _rounded(zero.macro_auc),
        "zero_shot_macro_auc_untaught": _rounded(reworded.macro_auc),
        "zero_shot_auc": {name: _rounded(value) for name, value in zero.auc.items()},
        "report_to_volume_recall": _by_k(recall.at),
        "report_to_volume_recall_chance": _by_k(recall.chance),
        "volume_to_volume_map": _by_k(similar.at),
        "volume_to_volume_map_chance": _by_k(similar.chance),
        "clip_score_text_image": round(clip_score(text, image), 2),
    }
    if real.reports is not None:
        rest, reserved = real.split()
        features = [embed_texts(pack, part["report_text"].astype(str).tolist(), device) for part in (rest, reserved)]
        truth = [part[list(FINDINGS)].to_numpy(dtype=float) for part in (rest, reserved)]
        probe = linear_probe(features[0], truth[0], features[1], truth[1])
        found["real_reports_probe"] = {
            "train": probe.n_train,
            "test": probe.n_test,
            "macro_auc": _rounded(probe.macro_auc),
            "auc": {name: _rounded(value) for name, value in probe.auc.items()},
        }
    return found


def factual_figures(
    judges: Sequence[Judge],
    labels: NDArray[np.float32],
    own: Sequence[NDArray[np.generic]] | None,
    made: Sequence[NDArray[np.generic]],
    groups: NDArray[np.integer] | None = None,
) -> dict[str, Any]:
    """What each judge reads from volumes made of reports, beside the patients' own volumes where there are any.

    Args:
        judges: Judges that the pack never met.
        labels: (n, 18) of the reports.
        own: The volumes that the reports describe; None for real reports, whose volumes are not here.
        made: Generated volumes, one a report.
        groups: (n,) codes of reports that the bootstrap draws together; each report alone if None.

    Returns:
        ``n`` and, by judge, macro AUCs with the interval of a bootstrap over reports, and the AUCs by finding.
    """
    found: dict[str, Any] = {"n": len(made), "judges": {}}
    groups = np.arange(len(labels)) if groups is None else groups
    weights = cluster_weights(groups, BOOTSTRAP, np.random.default_rng(0))
    for judge in judges:
        read_made = judge.scores(made)
        record: dict[str, Any] = {
            "macro_auc_synthetic": macro(aucs(read_made, labels)),
            "macro_auc_synthetic_ci": _interval(auc_samples(read_made, labels, weights)),
            "auc_synthetic": aucs(read_made, labels),
        }
        if own is not None:
            by_finding = aucs(judge.scores(own), labels)
            shares = {
                name: share
                for name, value in by_finding.items()
                if (share := _share(record["auc_synthetic"][name], value)) is not None
            }
            record |= {
                "macro_auc_real": macro(by_finding),
                "auc_real": by_finding,
                "share": _share(record["macro_auc_synthetic"], macro(by_finding)),
                "least_share": min(shares.items(), key=lambda item: item[1], default=None),
            }
        found["judges"][judge.name] = record
    return found


def kept_shares(factual: Mapping[str, Any]) -> dict[str, float]:
    """Of each finding, the share of its own AUC that generated volumes keep, by the judge that reads least of it.

    Args:
        factual: What :func:`factual_figures` found, with the patients' own volumes.

    Returns:
        Finding to share; without findings that some judge cannot score.
    """
    shares = [
        {name: _share(judge["auc_synthetic"][name], own) for name, own in judge["auc_real"].items()}
        for judge in factual["judges"].values()
    ]
    least = {name: [known for judge in shares if (known := judge.get(name)) is not None] for name in FINDINGS}
    return {name: min(known) for name, known in least.items() if known and len(known) == len(shares)}


def _share(synthetic: float | None, real: float | None) -> float | None:
    """One AUC as a share of another; None where either is unknown or there is nothing to share."""
    return round(synthetic / real, 3) if synthetic is not None and real else None


def _interval(samples: NDArray[np.float64]) -> list[float] | None:
    found = interval(row_mean(samples))
    return None if found is None else [round(value, 3) for value in found]


def fidelity_figures(
    network: SliceNetwork,
    own: Sequence[NDArray[np.generic]],
    others: Sequence[NDArray[np.generic]],
    made: Sequence[NDArray[np.generic]],
) -> dict[str, Any]:
    """2.5D FID of generated volumes, and of the volumes that their reports describe, both against other patients.

    Args:
        network: Whose features of slices are compared.
        own: (X, Y, Z) HU each, the volumes that the reports describe.
        others: Of other patients, likewise.
        made: Generated volumes, one a report.

    Returns:
        ``n`` of each, the least of the three; ``fid_2p5d`` and ``floor`` by plane, their mean and its 95 % interval,
        and the ``ratio`` of the means.
    """
    count = min(len(own), len(others), len(made))
    real = slice_statistics(others[:count], network)
    first = {"colour": real["colour"]}
    between = fid_between(real["colour"], slice_statistics(made[:count], network, origin=first)["colour"])
    floor = fid_between(real["colour"], slice_statistics(own[:count], network, origin=first)["colour"])

    def record(fid: Any) -> dict[str, Any]:
        planes = {name: round(getattr(fid, name), 4) for name in ("axial", "coronal", "sagittal", "mean")}
        return planes | {"ci": None if fid.ci is None else [round(value, 4) for value in fid.ci]}

    return {
        "n": count,
        "backbone": between.backbone,
        "fid_2p5d": record(between),
        "floor": record(floor),
        "ratio": round(between.mean / floor.mean, 2) if floor.mean > 0 else None,
    }


def diversity_figures(
    pack: Pack, kept: Kept, cases: Cases, device: torch.device, *, alone: Sequence[str], each: int
) -> dict[str, Any]:
    """Mean pairwise MS-SSIM of volumes of one prompt, and of patients with the same finding.

    The prompt is a report of that finding alone, as ``synthesize --source composed`` writes it.

    Args:
        pack: What generates.
        kept: Where its volumes are kept.
        cases: Patients that the pack never met.
        device: Where to compute.
        alone: Findings of the prompts.
        each: Volumes of each prompt, and at most as many patients.

    Returns:
        ``n_each``, by finding the similarities in [0, 1] ``synthetic`` and ``real``, and the mean of their ``ratio``.
    """
    found: dict[str, Any] = {"n_each": each, "findings": {}}
    for name in alone:
        index = FINDINGS.index(name)
        prompts = [compose(np.eye(len(FINDINGS))[index], np.random.default_rng(index)).text] * each
        made = kept.volumes(f"one-{index:02d}", pack, prompts, device)
        having = np.flatnonzero(cases.labels[:, index] == 1)[:each]
        if len(having) < 2:
            continue
        same = [cases.volume_hu(int(i)) for i in having]
        pair = [diversity(group, pairs=60).ms_ssim for group in (made, same)]
        found["findings"][name] = {"synthetic": round(pair[0], 3), "real": round(pair[1], 3), "n_real": len(same)}
    ratios = [one["synthetic"] / one["real"] for one in found["findings"].values()]
    return found | {"ratio": round(float(np.mean(ratios)), 3) if ratios else None}


def memorisation_figures(
    made: Sequence[NDArray[np.generic]], training: Cases, held_out: Sequence[NDArray[np.generic]]
) -> dict[str, Any]:
    """How many generated volumes are nearer to a training patient than a new patient could be.

    Args:
        made: (X, Y, Z) HU each.
        training: What the pack learnt from.
        held_out: Patients that it never met, HU, whose distances set the threshold.

    Returns:
        Counts, and distances in HU as :func:`text2ct.evaluation.memorisation.find_memorised` has them.
    """
    result = find_memorised(made, training.volumes_hu, held_out)
    return {
        "n": result.n,
        "training": result.n_training,
        "memorised": result.memorised,
        "threshold_hu": round(result.threshold_hu, 1),
        "nearest_hu": round(float(result.distances_hu.min()), 1),
        "held_out_nearest_hu": round(float(result.held_out_distances_hu.min()), 1),
        "false_positive_rate_at_most": round(result.false_positive_rate, 4),
    }


def _rounded(value: float | np.floating[Any] | None, digits: int = 3) -> float | None:
    """JSON has no infinity and no NaN."""
    return None if value is None or not np.isfinite(value) else round(float(value), digits)


def _by_k(values: dict[int, float]) -> dict[str, float]:
    return {str(k): round(value, 4) for k, value in values.items()}
