"""The model card of a built pack: how it was made and what was measured, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from text2ct.diffusion.pack import Pack
from text2ct.files import write_text


def write_model_card(
    path: Path, pack: Pack, config: dict[str, Any], runs: dict[str, dict[str, Any]], figures: dict[str, Any]
) -> None:
    """Write ``MODEL_CARD.md``.

    Args:
        path: Where to.
        pack: The pack described.
        config: The resolved configuration of the build.
        runs: Steps and minutes of each training.
        figures: What :func:`text2ct.diffusion.measure.measure_pack` found, and whatever else was measured.
    """
    info = pack.info
    data = info.trained_on[0]
    x, y, z = info.grid
    sizes = {name: round((pack.path / name).stat().st_size / 2**20, 2) for name in info.files}
    lines = [
        f"# {info.name} {info.version}",
        "",
        info.description,
        "",
        f"- Licence: {info.licence}",
        f"- Volumes: {x}×{y}×{z} voxels at {'×'.join(f'{s:g}' for s in info.spacing_mm)} mm, "
        f"{info.hu_range[0]:g} to {info.hu_range[1]:g} HU",
        f"- Trained on: {data.dataset} patients {data.first} to {data.last}, "
        "a range that no simulated cohort of any seed contains. No real patient was used.",
        f"- Conditioning: {info.conditioning}; defaults: {info.defaults.steps} steps ({info.defaults.solver}), "
        f"guidance {info.defaults.guidance_scale:g}",
        f"- Size: {sum(sizes.values()):.1f} MiB",
        "",
        "## Training",
        "",
        "Made and measured by `text2ct core pack --out DIR`, with the configuration at the end of this page. The "
        "autoencoder, and the Gaussian that the velocity network starts from, are fitted in closed form to the same "
        "patients.",
        "",
        "| component | steps | minutes |",
        "|---|---|---|",
        *(f"| {name} | {run['steps']} | {run['minutes']} |" for name, run in runs.items()),
        "",
        "## Measured",
        "",
        *_measured(figures),
        "",
        "## Limits",
        "",
        "It knows simulated chests only: its volumes are for augmentation experiments on the simulated cohort and "
        "for trying the software. It has seen labelled simulated patients that a classifier trained beside it has "
        "not, so a gain may be that knowledge, transferred. Not for clinical use.",
        "",
        "## Configuration",
        "",
        "```json",
        json.dumps(config, indent=1),
        "```",
        "",
    ]
    write_text(path, "\n".join(lines))


def _measured(figures: dict[str, Any]) -> list[str]:
    """Lines of the section: one table of figures, one of findings."""
    n = figures["n"]
    recall, chance = figures["report_to_volume_recall"]["5"], figures["report_to_volume_recall_chance"]["5"]
    rows = [
        ("autoencoder: PSNR over 2000 HU", f"{figures['psnr_db']} dB"),
        ("autoencoder: mean error of voxels above 300 HU", f"{figures['dense_bias_hu']} HU"),
        (f"3D CLIP: report-to-volume recall@5 of {n}", f"{recall:.1%} (chance {chance:.1%})"),
        ("generation", f"{figures['seconds_per_volume']} s a volume on the machine that made the pack"),
    ]
    factual = figures.get("factual")
    if factual:
        rows += [
            ("macro AUC of the judge on the patients' own volumes", factual["macro_auc_real"]),
            ("the same after the autoencoder alone", factual["macro_auc_reconstructed"]),
            ("the same on volumes generated from their reports", factual["macro_auc_synthetic"]),
        ]
    lines = [
        f"On {n} simulated patients that were not trained on, at the default steps and guidance:",
        "",
        "| | |",
        "|---|---|",
        *(f"| {what} | {value} |" for what, value in rows),
    ]
    if not factual:
        return lines
    return [
        *lines,
        "",
        "The judge, extremely randomised trees on block statistics, has learnt from the same patients as the pack. "
        "A finding that it reads in the generated volumes as well as in the patients' own is rendered; one "
        "near 0.5 is not:",
        "",
        "| finding | AUC, own volumes | AUC, generated |",
        "|---|---|---|",
        *(f"| {name} | {value} | {factual['auc_synthetic'][name]} |" for name, value in factual["auc_real"].items()),
    ]
