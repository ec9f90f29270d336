"""Whom a finished run knows although it must not: from volumes, from reports, or by what made its volumes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from text2ct.classifiers import runs

if TYPE_CHECKING:
    from text2ct.augment.leaks import HeldOut


def leaks(run: Path, held_out: HeldOut) -> list[str]:
    """What a run has seen of held-out patients, the runs it started from included; a line for each, none is good.

    Raises:
        UserError: The folder holds no run, or its ``patients.json`` is damaged.
    """
    from text2ct.augment._refusals import trained_on, training_data

    told = pd.DataFrame(runs.prompt_volumes(run), columns=["dataset", "volume"], dtype=str)
    makers = training_data({"trained_on": runs.known_to_makers(run)})
    return [
        *(f"{d}/{p}: it was trained on" for d, p in held_out.among(runs.training_patients(run))),
        *(
            f"{volume}: it was trained on a volume made from the report of"
            for volume in told.loc[held_out.volumes(told["dataset"], told["volume"]), "volume"]
        ),
        *(
            f"{d}/{p}: it was trained on volumes whose generator or gate had been trained on"
            for d, p in sorted(held_out.patients)
            if trained_on(makers, d, p)
        ),
    ]
