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
        f"- Conditioning: {info.conditioning}; defaults: {info.defaults.steps} Euler steps, "
        f"guidance {info.defaults.guidance_scale:g}",
        f"- Size: {sum(sizes.values()):.1f} MiB",
        "",
        "## Training",
        "",
        "| component | steps | minutes |",
        "|---|---|---|",
        *(f"| {name} | {run['steps']} | {run['minutes']} |" for name, run in runs.items()),
        "",
        "## Measured",
        "",
        f"On {figures['n']} simulated patients that were not trained on:",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {json.dumps(value)} |" for name, value in figures.items()),
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
