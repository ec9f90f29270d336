"""Every figure of a pack's card, measured on patients that neither the pack nor a judge has seen.

Each section is measured once and kept in the work folder, under the pack's digest and its way of sampling, so an
interrupted call goes on and another pack begins anew.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from text2ct import __version__, console
from text2ct.compute import keep_freed_memory, pick_device
from text2ct.diffusion.build import is_trained_on
from text2ct.diffusion.pack import Pack
from text2ct.diffusion.training.cases import Cases, render_patients
from text2ct.errors import UserError
from text2ct.evaluation._kept import Kept
from text2ct.evaluation.judges import Judge, trained_judges
from text2ct.evaluation.judges.cnn import SMALLEST
from text2ct.evaluation.pack_sections import (
    autoencoder_figures,
    clip_figures,
    diversity_figures,
    factual_figures,
    fidelity_figures,
    memorisation_figures,
)
from text2ct.evaluation.real_data import RealData
from text2ct.evaluation.similarity import SsimSettings
from text2ct.evaluation.slice_network import SliceNetwork, train_slice_network
from text2ct.findings import FINDINGS
from text2ct.simulation.patients import FIRST_JUDGED, FIRST_MEASURED

# Raised by hand when a figure is measured in another way: what was kept before is measured again.
MEASURE_VERSION = 2


class MeasureConfig(BaseModel):
    """What a pack is measured with; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patients: int = Field(default=1000, ge=4, description="new patients: the gallery of retrieval")
    generated: int = Field(default=500, ge=2, description="of them, those whose reports become volumes")
    judge_patients: int = Field(
        default=4000, ge=1, le=FIRST_MEASURED - FIRST_JUDGED, description="patients that the judges learn from"
    )
    judge_minutes: float = Field(default=10.0, gt=0, description="training time of the CNN")
    slice_steps: int = Field(default=800, ge=1, description="training steps of the slice network behind the FID")
    one_prompt: int = Field(default=12, ge=2, description="volumes of one prompt, for their diversity")
    alone: tuple[str, ...] = Field(
        default=("Cardiomegaly", "Pleural effusion", "Emphysema", "Consolidation", "Hiatal hernia", "Lung nodule"),
        description="findings of the prompts of one finding",
    )

    @model_validator(mode="after")
    def _possible(self) -> MeasureConfig:
        unknown = [name for name in self.alone if name not in FINDINGS]
        if unknown:
            raise ValueError(f"alone: {', '.join(unknown)} is none of the 18 findings")
        if self.patients - self.generated < 2:
            raise ValueError(
                f"{self.generated} of {self.patients} patients' reports become volumes; at least 2 others are needed "
                "to compare with"
            )
        return self

    @property
    def rendered(self) -> int:
        """Patients that are rendered for it."""
        return self.patients + self.judge_patients

    @property
    def minutes(self) -> float:
        """About how long it takes on two cores beside rendering: the CNN, its features' trees, a second a volume."""
        return self.judge_minutes + self.judge_patients / 600 + 2 * self.generated / 60


def check_measurable(grid: tuple[int, int, int]) -> None:
    """Refuse, before anything is trained, a grid that the judges or the similarity cannot read.

    Raises:
        UserError: An axis of it is no multiple of 16, or too short for MS-SSIM.
    """
    if any(n % SMALLEST or n < SsimSettings().smallest_axis for n in grid):
        raise UserError(
            f"packs of {'x'.join(map(str, grid))} voxels cannot be measured: each axis must be a multiple of "
            f"{SMALLEST} and at least {SsimSettings().smallest_axis}"
        )


def measure_pack(
    pack: Pack,
    work: Path,
    config: MeasureConfig | None = None,
    *,
    real: RealData | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """All figures of a whole ``pack`` that was trained on simulated patients, at its default steps and guidance.

    Args:
        pack: The pack.
        work: Folder for patients, judges and generated volumes; those of the judges are shared by all packs.
        config: How many of what.
        real: Real reports and a chest; what needs them is left out without.
        device: As for :func:`text2ct.compute.pick_device`.

    Returns:
        ``autoencoder``, ``clip``, ``factual``, ``fidelity``, ``diversity``, ``memorisation`` and, with real
        reports, ``real_reports``.

    Raises:
        UserError: The pack learnt from the patients that are measured or from the judges', a judge from other
            patients than it should, or the grid cannot be measured.
    """
    config, real = config or MeasureConfig(), real or RealData()
    keep_freed_memory()
    where = pick_device(device)
    _check_unseen(pack)
    check_measurable(pack.info.grid)
    grid: dict[str, Any] = {"size": pack.info.grid, "spacing_mm": pack.info.spacing_mm}
    cases = render_patients(work / "new-cases", FIRST_MEASURED, config.patients, **grid)

    @cache
    def judges() -> list[Judge]:  # loading them takes minutes, and only two sections ask
        return trained_judges(work, config.judge_patients, minutes=config.judge_minutes, device=device, **grid)

    question = {
        "text2ct": __version__,
        "version": MEASURE_VERSION,
        "measure": config.model_dump(mode="json"),
        "real_sha256": real.sha256,
        "patients": cases.digest,
    }
    kept = Kept(work / "measured" / _identity(pack), question)
    prompts = [text.text() for text in cases.texts[: config.generated]]
    labels = cases.labels[: config.generated]
    volumes = cases.volumes_hu
    found = {
        "autoencoder": kept.section("autoencoder", lambda: autoencoder_figures(pack, volumes[:200], real.chest, where)),
        "clip": kept.section("clip", lambda: clip_figures(pack, cases, real, where)),
    }
    made = kept.volumes("reports", pack, prompts, where)
    found["generation"] = kept.speed("reports", len(made))
    own, held_out = volumes[: config.generated], volumes[config.generated :]
    judge_cases = render_patients(work / "judge-cases", FIRST_JUDGED, config.judge_patients, **grid)
    learnt = {"judges": judge_cases.digest}
    found["factual"] = kept.section("factual", lambda: factual_figures(judges(), labels, own, made), **learnt)
    found["fidelity"] = kept.section(
        "fidelity",
        lambda: fidelity_figures(_slice_network(work, judge_cases, config, device), own, held_out, made),
        **learnt,
    )
    found["diversity"] = kept.section(
        "diversity",
        lambda: diversity_figures(pack, kept, cases, where, alone=config.alone, each=config.one_prompt),
    )
    training = _training_cases(pack, work)
    if training is None:
        console.warn(f"{work / 'cases'} are not the patients that the pack learnt from; copies were not looked for")
    else:
        found["memorisation"] = kept.section(
            "memorisation", lambda: memorisation_figures(made, training, held_out), training=training.digest
        )
    if real.reports is not None:
        _, reserved = real.split()
        texts = reserved["report_text"].astype(str).tolist()
        from_real = kept.volumes("real-reports", pack, texts, where)
        truth = reserved[list(FINDINGS)].to_numpy(dtype=np.float32)
        _, equal_texts = np.unique(texts, return_inverse=True)
        found["real_reports"] = kept.section(
            "real-reports", lambda: factual_figures(judges(), truth, None, from_real, equal_texts), **learnt
        )
    return found


def _identity(pack: Pack) -> str:
    sampling = "-".join(str(value) for value in pack.info.defaults.model_dump().values())
    return f"{pack.sha256[:12]}-{sampling}".replace(" ", "")


def _check_unseen(pack: Pack) -> None:
    for data in pack.info.trained_on:
        if data.dataset == "simulated" and data.last is not None and data.last >= FIRST_JUDGED:
            raise UserError(
                f"'{pack.info.name}' was trained on patients that it would be measured on, or that its judges learn "
                f"from; train it on patients below {FIRST_JUDGED}"
            )


def _training_cases(pack: Pack, work: Path) -> Cases | None:
    """The cases that the pack learnt from, where they still lie beside."""
    folder = work / "cases"
    if not (folder / "cases.json").is_file():
        return None
    cases = Cases(folder)
    first = cases.info.get("first")
    here = None if first is None else (first, first + len(cases) - 1)
    same = [here] == [(data.first, data.last) for data in pack.info.trained_on] and cases.size == pack.info.grid
    return cases if same and is_trained_on(work, cases) else None


def _slice_network(work: Path, cases: Cases, config: MeasureConfig, device: str) -> SliceNetwork:
    folder = work / "slice-network"
    if (folder / "config.json").is_file():
        network = SliceNetwork.load(folder)
        if (network.config.trained_on, network.config.steps) == (cases.digest, config.slice_steps):
            return network
        console.info("the slice network learnt otherwise; training it again")
    network = train_slice_network(cases, steps=config.slice_steps, device=str(pick_device(device)))
    network.save(folder)
    return network
