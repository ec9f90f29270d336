"""The training sets that a benchmark compares, in one table: the command line and the tests read nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from text2ct.errors import UserError
from text2ct.evaluation.benchmark import building
from text2ct.evaluation.benchmark.building import Arm, Material
from text2ct.evaluation.benchmark.settings import BenchmarkSettings

NON_GENERATIVE = ("real", "real+class-weights", "real+oversampled", "real+classical")
"""What costs no generator: synthetic volumes have to beat the best of them."""
GENERATIVE = "real+synthetic@"

Need = Literal["synthetic", "gate", "pack", "autoencoder", "pack patients", "simulated", "reports"]


@dataclass(frozen=True)
class ArmSpec:
    """One entry of :data:`ARMS`.

    Args:
        name: What users type; ``@R`` stands for a ratio.
        summary: What its difference from ``real`` says.
        build: From the arm's full name, the material, the seed and the ratio (0 without ``@R``) to the arm.
        needs: What must be there.
        usual: Whether it runs unless told otherwise.
        option: An argument of ``train`` that it sets and that no other arm may have.
    """

    name: str
    summary: str
    build: Callable[[str, Material, int, float], Arm]
    needs: tuple[Need, ...] = ()
    usual: bool = False
    option: str | None = None


ARMS: dict[str, ArmSpec] = {
    spec.name: spec
    for spec in (
        ArmSpec("real", "what everything is compared with", building.real, usual=True),
        ArmSpec(
            "real+class-weights",
            "rare positives weigh more in the loss",
            building.with_option("class_weights"),
            option="class_weights",
        ),
        ArmSpec("real+oversampled", "rare scans are drawn more often (ML-ROS)", building.oversampled, usual=True),
        ArmSpec(
            "real+classical", "classical augmentation", building.with_option("augment"), usual=True, option="augment"
        ),
        ArmSpec(
            "real+reconstructed",
            "real volumes through the pack's decoder: its look alone",
            building.with_reconstructed,
            ("pack", "autoencoder"),
        ),
        ArmSpec(
            "real+synthetic@R",
            "synthetic volumes, less what a gate rejected",
            building.real_and_synthetic,
            ("synthetic",),
            True,
        ),
        ArmSpec("real+ungated@R", "synthetic volumes, whatever the gate said", building.ungated, ("synthetic", "gate")),
        ArmSpec(
            "real+shuffled@R",
            "synthetic volumes with permuted labels: more volumes alone",
            building.shuffled,
            ("synthetic",),
        ),
        ArmSpec("synthetic", "synthetic volumes alone", building.synthetic, ("synthetic",)),
        ArmSpec(
            "real+oracle@R",
            "new simulated patients with the same label sets: a perfect generator",
            building.with_oracle,
            ("synthetic", "simulated"),
        ),
        ArmSpec(
            "real+classifier-pretrained",
            "first weights from the pack's own patients: its knowledge, without an image",
            building.pretrained,
            ("pack", "pack patients"),
        ),
        ArmSpec(
            "real+own-generator@R",
            "a generator trained on the arm's training patients alone",
            building.with_own_generator,
            ("synthetic", "reports"),
        ),
    )
}

_ABSENT: dict[Need, str] = {
    "synthetic": "there are no synthetic volumes; run `text2ct synthesize` first",
    "gate": "no gate has judged the synthetic volumes",
    "pack": "no pack is given (--model)",
    "autoencoder": "the pack has no autoencoder (--model)",
    "pack patients": "the pack was not trained on simulated patients, who can be drawn again (--model)",
    "simulated": "the cohort is not simulated",
    "reports": "training rows have no reports, from which a generator would learn",
}


def expand_arms(settings: BenchmarkSettings, present: set[Need]) -> tuple[list[str], list[str]]:
    """The arms' full names, with every ``@R`` replaced by ratios, and notes on those that cannot be built.

    Named arms take every ratio. Of ``full``'s arms beyond the usual ones each takes one, the ratio that is
    nearest to 1 by factor (the smaller of two), which asks most of volumes without repeating patients.

    Raises:
        UserError: An unknown arm, no ratio for an arm that needs one, no ``real`` arm to compare with, or an arm
            that was asked for and lacks something.
    """
    if settings.full and settings.arms:
        raise UserError("--full and --arms exclude each other; give one of them")
    asked = settings.arms or tuple(name for name, spec in ARMS.items() if spec.usual or settings.full)
    names: list[str] = []
    notes: list[str] = []
    problems = [] if "real" in asked else ["the arm 'real' is missing; everything is compared with it"]
    for arm in asked:
        key, ratio = split_name(arm)
        spec = ARMS.get(key)
        if spec is None:
            problems.append(f"unknown arm '{arm}'; there are {', '.join(ARMS)}")
            continue
        lacking = [_ABSENT[need] for need in spec.needs if need not in present]
        if spec.option and settings.train_options.get(spec.option):
            lacking.append("every arm is trained so already")
        # Synthetic volumes are what the usual arms are about; all else may be left out unless it was named.
        if lacking and (settings.arms or lacking[0] == _ABSENT["synthetic"]):
            problems.append(f"the arm '{arm}' cannot be built: {lacking[0]}")
        elif lacking:
            notes.append(f"without the arm {arm}: {lacking[0]}")
        elif not key.endswith("@R"):
            names.append(key)
        elif ratio is not None:
            names.append(_named(key, ratio))
        elif not settings.ratios:
            problems.append(f"'{arm}' needs at least one ratio")
        else:
            every = spec.usual or bool(settings.arms)
            ratios = settings.ratios if every else [min(settings.ratios, key=lambda r: (abs(np.log(r)), r))]
            names += [_named(key, ratio) for ratio in ratios]
    if problems:
        raise UserError("this benchmark cannot be run", problems)
    return list(dict.fromkeys(names)), notes


def uses(need: Need, settings: BenchmarkSettings) -> bool:
    """Whether any arm that is asked for needs something, as far as the names say."""
    asked = [split_name(arm)[0] for arm in settings.arms] or [
        n for n, spec in ARMS.items() if spec.usual or settings.full
    ]
    return any(need in ARMS[name].needs for name in asked if name in ARMS)


def split_name(arm: str) -> tuple[str, float | None]:
    """The registry's name of an arm, and its ratio: ``real+synthetic@0.5`` is ``real+synthetic@R`` at 0.5."""
    found = re.fullmatch(r"(.+)@(\d+(?:\.\d+)?(?:e-?\d+)?)", arm)
    if found is None or float(found[2]) <= 0:
        return arm, None
    return f"{found[1]}@R", float(found[2])


def _named(key: str, ratio: float) -> str:
    return f"{key.removesuffix('R')}{ratio:g}"


def build_arm(name: str, material: Material, seed: int) -> Arm:
    """Assemble one arm for the training with this seed.

    Raises:
        UserError: No synthetic volume can be used.
    """
    key, ratio = split_name(name)
    return ARMS[key].build(name, material, seed, ratio or 0.0)
