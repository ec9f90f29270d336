"""How long a training or an encoding will take, and how much disk: measured on a few cases."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from text2ct.diffusion.pack import Pack
from text2ct.diffusion.training.config import parse_config
from text2ct.diffusion.training.data import usable_rows
from text2ct.diffusion.training.on_manifest import (
    CONFIGS,
    Component,
    Machines,
    encode_manifest,
    train_component,
)
from text2ct.diffusion.training.processes import check_processes
from text2ct.steplog import METRICS

if TYPE_CHECKING:
    import pandas as pd

    from text2ct.manifests import Workspace


# Settings that make a training's first steps cheaper than its others.
FIRST_STEPS = ("short_steps", "text_only_steps", "adversarial_start")


def estimate_training(
    component: Component,
    frame: pd.DataFrame,
    workspace: Workspace,
    base: Pack,
    *,
    settings: Mapping[str, Any] | None = None,
    scratch: bool = False,
    architecture: Pack | None = None,
    machines: Machines | None = None,
) -> dict[str, Any]:
    """How long :func:`train_component` will take and how much disk, from three steps on a few cases.

    They are steps as they are at the end of the training, with volumes and all players; where some take whole volumes
    and others patches, one of each is measured. With several devices, one of them measures its share of a batch;
    their exchange is not counted.

    Args:
        component: As for :func:`train_component`, and so the rest.
        frame: A manifest.
        workspace: Resolves roots to folders.
        base: The pack to start from.
        settings: Fields of the training's configuration.
        scratch: Start from random weights.
        architecture: The pack whose UNet configuration is used when ``base`` has no UNet.
        machines: Where to train; one device if None.

    Returns:
        ``cases``, ``steps``, ``seconds`` and ``bytes`` (upper bounds).

    Raises:
        UserError: As :func:`train_component`.
    """
    rows = usable_rows(frame)
    few = rows.head(3)
    config = parse_config(CONFIGS[component], dict(settings or {}))
    machines = machines or Machines()
    check_processes(**asdict(machines), config=config)
    share = config.batch_size // (machines.devices * machines.nodes)
    trial = dict(settings or {}) | {"steps": 3, "log_every": 1, "minutes": None, "batch_size": share}
    trial |= {name: 0 for name in FIRST_STEPS if name in CONFIGS[component].model_fields}
    whole_every = getattr(config, "whole_every", 0)
    if whole_every:
        trial["whole_every"] = min(whole_every, 2)  # the second step takes whole volumes
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        begun = time.perf_counter()
        train_component(
            component,
            few,
            workspace,
            base,
            Path(folder) / "pack",
            work=work,
            settings=trial,
            scratch=scratch,
            architecture=architecture,
            machines=Machines(machines.device),
        )
        elapsed = time.perf_counter() - begun
        log = work / {"unet": "diffusion"}.get(component, component) / METRICS
        times = (
            [float(line.split(",")[1]) for line in log.read_text(encoding="utf-8").splitlines()[1:]]
            if log.is_file()
            else [0.0] * 3
        )
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    second, third = np.diff(times)  # the first one warms up
    share = 1 / (whole_every or 2)
    seconds = float(share * second + (1 - share) * third) * config.steps
    if config.minutes is not None:
        seconds = min(seconds, 60 * config.minutes)
    reading = max(elapsed - times[-1], 0.0) * len(rows) / len(few)
    return {
        "cases": len(rows),
        "steps": config.steps,
        "seconds": round(seconds + reading, 1),
        "bytes": int(size + (len(rows) - len(few)) * 4 * np.prod(base.info.grid)),
    }


def estimate_encoding(frame: pd.DataFrame, workspace: Workspace, pack: Pack, *, device: str = "auto") -> dict[str, Any]:
    """``cases``, ``seconds`` and ``bytes`` of :func:`encode_manifest`, from two cases."""
    rows = usable_rows(frame)
    few = rows.head(2)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        encode_manifest(few, workspace, pack, Path(folder), device=device)
        share = len(rows) / len(few)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        seconds = (time.perf_counter() - begun) * share
    return {"cases": len(rows), "seconds": round(seconds, 1), "bytes": int(size * share)}
