"""Rejected volumes made again with new seeds: ordinary runs of `synthesize`, so that they can be made again too."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from text2ct.augment._run import REQUEST_FILE, TRY_FILE, RunRequest, Sidecar
from text2ct.augment.synthesize import Generate, PackLike, synthesize
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError
from text2ct.files import read_json, write_json
from text2ct.manifests import Workspace, read_manifest

_SAMPLING = {"guidance_scale", "guidance_interval", "steps", "solver", "time_location", "time_scale", "decode"}


def make_again(
    names: Collection[str],
    folder: Path,
    run: str,
    attempt: int,
    *,
    pack: PackLike,
    workspace: Workspace,
    device: str,
    engine: Engine = LOCAL,
    generate: Generate | None = None,
) -> pd.DataFrame:
    """Make the volumes of a run again: the same prompts, pack and sampling, other seeds.

    Args:
        names: File names of the volumes within the run; those made now have the same.
        folder: The run's folder.
        run: Name of the new run.
        attempt: Which attempt this is; the first is 1.
        pack: The pack that made the run.
        workspace: Where the new run lies.
        device: As in ``synthesize``.
        engine: As in ``synthesize``.
        generate: As in ``synthesize``.

    Returns:
        The new run's manifest.

    Raises:
        UserError: The folder is no run of ``synthesize``, or another run has the new one's name.
    """
    request: Any = _read(folder / REQUEST_FILE, RunRequest)
    requests = [_request(_read(folder / "sidecars" / f"{name}.json", Sidecar)) for name in sorted(names)]
    target = workspace.run_dir("synthetic", run)
    if not (target / REQUEST_FILE).exists():
        # First of all, so that no command takes volumes that nobody judged for a run of its own, whatever happens.
        write_json(target / TRY_FILE, {"of": folder.name, "attempt": attempt})
    made = synthesize(
        pd.DataFrame(requests),
        pack=pack,
        workspace=workspace,
        run=run,
        seed=attempt_seed(request.seed, attempt),
        sampling=request.model_dump(include=_SAMPLING),
        format=request.format,
        batch_size=request.batch_size,
        device=device,
        engine=engine,
        generate=generate,
    )
    return read_manifest(made["manifest"])


def attempt_seed(seed: int, attempt: int) -> int:
    """The seed of an attempt: none that counting up from the run's seed would meet, so no volume comes twice."""
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])


def _request(sidecar: Sidecar) -> dict[str, Any]:
    labels = {name: np.nan if value is None else float(value) for name, value in sidecar.labels.items()}
    return {
        "prompt": sidecar.prompt,
        **labels,
        "dataset": sidecar.prompt_dataset,
        "volume": sidecar.prompt_volume,
        "patient": sidecar.prompt_patient,
        "split": sidecar.prompt_split,
        "name": sidecar.volume.removesuffix(".nii.gz").removesuffix(".mha"),
    }


def _read(path: Path, model: type[Any]) -> Any:
    try:
        return model.model_validate(read_json(path))
    except (UserError, ValidationError) as error:
        raise UserError(
            f"{path} does not say how these volumes were made, so none can be made again; leave out --best-of"
        ) from error
