"""The training sets that a benchmark compares, in one table: the command line and the tests read nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from text2ct.augment import ml_ros
from text2ct.augment._scans import NAMES, label_matrix
from text2ct.augment.selection import select, usable
from text2ct.console import warn
from text2ct.errors import UserError
from text2ct.evaluation.benchmark.settings import BenchmarkSettings
from text2ct.manifests import Workspace

NON_GENERATIVE = ("real", "real+class-weights", "real+oversampled", "real+classical")
"""What costs no generator: synthetic volumes have to beat the best of them."""
GENERATIVE = "real+synthetic@"
# The upper end of what Charte et al. 2015 use; above it, as many clones as synthetic volumes.
MIN_OVERSAMPLE_SHARE = 0.25
_SHUFFLE = 4  # the stream of random numbers of shuffled labels
# One draw of volumes for every training: seeds are the luck of training, not of choosing.
_DRAW = 0

Need = Literal["synthetic", "gate", "pack", "simulated"]


@dataclass(frozen=True)
class Arm:
    """One training set and how it is trained where that differs from the others.

    Args:
        name: As in the result, for example ``real+synthetic@0.5``.
        frame: Manifest rows with split train and validation.
        real: Real training volumes.
        synthetic: Synthetic training volumes.
        clones: Real volumes that oversampling adds.
        sampling_weights: ``(len(frame),)`` relative frequencies, or None for all equal.
        options: Arguments of ``train`` that replace those of all arms.
        made_with: What decides volumes or first weights that are made for this arm, beside ``frame``.
        make: Where volumes must be made first: from a folder to the rows that are trained on; ``frame`` then
            holds the rows that they are made from.
        init: Where training starts from another run's weights: from a folder and a seed to that run.
    """

    name: str
    frame: pd.DataFrame
    real: int
    synthetic: int = 0
    clones: int = 0
    sampling_weights: np.ndarray | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    made_with: Mapping[str, Any] = field(default_factory=dict)
    make: Callable[[Path], pd.DataFrame] | None = None
    init: Callable[[Path, int], Path] | None = None


@dataclass(frozen=True)
class Material:
    """What arms are built from.

    Args:
        real: The whole real manifest.
        train: Real training rows of the regime.
        validation: Real validation rows.
        synthetic: The synthetic rows that may be used with these training rows, or None.
        workspace: Resolves roots.
        settings: The same for every arm.
        oversample_share: Clones per row of ``real+oversampled`` at most.
        pack: The pack of ``real+reconstructed`` and ``real+classifier-pretrained``, or None.
        device: Where volumes are made.
    """

    real: pd.DataFrame
    train: pd.DataFrame
    validation: pd.DataFrame
    synthetic: pd.DataFrame | None
    workspace: Workspace
    settings: BenchmarkSettings
    oversample_share: float = MIN_OVERSAMPLE_SHARE
    pack: Any | None = None
    device: str = "auto"

    @property
    def pool(self) -> pd.DataFrame:
        """The synthetic rows, of which there must be some."""
        assert self.synthetic is not None
        return self.synthetic

    def joined(self, *training: pd.DataFrame) -> pd.DataFrame:
        """Training rows, then the validation rows."""
        return pd.concat([frame for frame in (*training, self.validation) if len(frame)], ignore_index=True)


@dataclass(frozen=True)
class ArmSpec:
    """One entry of :data:`ARMS`.

    Args:
        name: What users type; ``@R`` stands for a ratio.
        summary: What its difference from ``real`` says.
        build: From the arm's full name, the material and the ratio (0 without ``@R``) to the arm.
        needs: What must be there.
        usual: Whether it runs unless told otherwise.
        option: An argument of ``train`` that it sets and that no other arm may have.
    """

    name: str
    summary: str
    build: Callable[[str, Material, float], Arm]
    needs: tuple[Need, ...] = ()
    usual: bool = False
    option: str | None = None


def _real(name: str, material: Material, ratio: float) -> Arm:
    return Arm(name, material.joined(material.train), len(material.train))


def _with_option(option: str) -> Callable[[str, Material, float], Arm]:
    def build(name: str, material: Material, ratio: float) -> Arm:
        return replace(_real(name, material, ratio), options={option: True})

    return build


def _oversampled(name: str, material: Material, ratio: float) -> Arm:
    clones = ml_ros(label_matrix(material.train), material.oversample_share, _DRAW)
    weights = np.ones(len(material.train) + len(material.validation))
    np.add.at(weights, clones, 1.0)
    return replace(_real(name, material, ratio), sampling_weights=weights, clones=len(clones))


def _reconstructed(name: str, material: Material, ratio: float) -> Arm:
    def make(folder: Path) -> pd.DataFrame:
        from text2ct.evaluation.arm_volumes import reconstructed

        made = reconstructed(material.train, material.workspace, material.pack, folder, device=material.device)
        return material.joined(material.train, made)

    return replace(_real(name, material, ratio), make=make, made_with=_pack(material))


def _synthetic(name: str, material: Material, ratio: float) -> Arm:
    rows, _ = usable(material.pool, material.workspace)
    return _mixed(name, material, material.train.iloc[:0], rows)


def _real_and_synthetic(name: str, material: Material, ratio: float) -> Arm:
    return _mixed(name, material, material.train, _chosen(name, material, material.pool, ratio))


def _ungated(name: str, material: Material, ratio: float) -> Arm:
    rows = _chosen(name, material, material.pool.assign(gate=""), ratio)
    return _mixed(name, material, material.train, rows)


def _shuffled(name: str, material: Material, ratio: float) -> Arm:
    rows = shuffle_labels(_chosen(name, material, material.pool, ratio), _DRAW)
    return _mixed(name, material, material.train, rows)


def _oracle(name: str, material: Material, ratio: float) -> Arm:
    rows = _chosen(name, material, material.pool, ratio)

    def make(folder: Path) -> pd.DataFrame:
        from text2ct.evaluation.arm_volumes import oracle

        made = oracle(rows, material.workspace, material.real, folder, seed=_DRAW, workers=None)
        return material.joined(material.train, made)

    return replace(_mixed(name, material, material.train, rows), make=make, made_with={"oracle": _DRAW})


def _pretrained(name: str, material: Material, ratio: float) -> Arm:
    settings = material.settings

    def init(folder: Path, seed: int) -> Path:
        from text2ct.evaluation.arm_volumes import pretrained_classifier

        return pretrained_classifier(
            material.pack,
            material.workspace,
            folder,
            classifier=settings.classifier,
            steps=settings.steps,
            seed=seed,
            patients=settings.pretrain_patients,
            device=material.device,
            batch_size=settings.batch_size,
            **settings.train_options,
        )

    made_with = _pack(material) | {"patients": settings.pretrain_patients}
    return replace(_real(name, material, ratio), init=init, made_with=made_with)


def _own_generator(name: str, material: Material, ratio: float) -> Arm:
    """The prompts of ``real+synthetic``, given to a generator that knows the arm's training patients alone."""
    rows = _chosen(name, material, material.pool, ratio)

    def make(folder: Path) -> pd.DataFrame:
        from text2ct.augment import synthesize
        from text2ct.augment.mix import gather
        from text2ct.evaluation.arm_volumes import own_generator
        from text2ct.manifests import read_manifest

        pack = own_generator(material.train, material.workspace, folder, device=material.device, budget=None)
        origin = {"dataset": rows["prompt_dataset"], "volume": rows["prompt_volume"]}
        requests = rows[["prompt", *NAMES]].assign(**origin)
        done = synthesize(
            requests,
            pack=pack,
            workspace=material.workspace,
            run="-".join(folder.relative_to(material.workspace.run_dir("classifiers")).parts),
            seed=_DRAW,
            device=material.device,
        )
        made = gather(material.real, read_manifest(Path(done["manifest"])), material.workspace)
        return material.joined(material.train, made)

    return replace(_mixed(name, material, material.train, rows), make=make, made_with={"generator": "own"})


ARMS: dict[str, ArmSpec] = {
    spec.name: spec
    for spec in (
        ArmSpec("real", "what everything is compared with", _real, usual=True),
        ArmSpec(
            "real+class-weights",
            "rare positives weigh more in the loss",
            _with_option("class_weights"),
            option="class_weights",
        ),
        ArmSpec("real+oversampled", "rare scans are drawn more often (ML-ROS)", _oversampled, usual=True),
        ArmSpec("real+classical", "classical augmentation", _with_option("augment"), usual=True, option="augment"),
        ArmSpec(
            "real+reconstructed", "real volumes through the pack's decoder: its look alone", _reconstructed, ("pack",)
        ),
        ArmSpec(
            "real+synthetic@R",
            "synthetic volumes, less what a gate rejected",
            _real_and_synthetic,
            ("synthetic",),
            True,
        ),
        ArmSpec("real+ungated@R", "synthetic volumes, whatever the gate said", _ungated, ("synthetic", "gate")),
        ArmSpec(
            "real+shuffled@R", "synthetic volumes with permuted labels: more volumes alone", _shuffled, ("synthetic",)
        ),
        ArmSpec("synthetic", "synthetic volumes alone", _synthetic, ("synthetic",)),
        ArmSpec(
            "real+oracle@R",
            "new simulated patients with the same label sets: a perfect generator",
            _oracle,
            ("synthetic", "simulated"),
        ),
        ArmSpec(
            "real+classifier-pretrained",
            "first weights from the pack's own patients: its knowledge, without an image",
            _pretrained,
            ("pack",),
        ),
        ArmSpec(
            "real+own-generator@R",
            "a generator trained on the arm's training patients alone",
            _own_generator,
            ("synthetic",),
        ),
    )
}

_ABSENT: dict[Need, str] = {
    "synthetic": "there are no synthetic volumes; run `text2ct synthesize` first",
    "gate": "no gate has judged the synthetic volumes",
    "pack": "no pack is given (--model)",
    "simulated": "the cohort is not simulated",
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


def oversample_share(names: Sequence[str]) -> float:
    """As many clones as the largest ratio has synthetic volumes, and at least the method's own share."""
    return max([MIN_OVERSAMPLE_SHARE, *(split_name(name)[1] or 0.0 for name in names)])


def build_arm(name: str, material: Material) -> Arm:
    """Assemble one arm.

    Raises:
        UserError: No synthetic volume can be used.
    """
    key, ratio = split_name(name)
    return ARMS[key].build(name, material, ratio or 0.0)


def shuffle_labels(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same volumes with their label rows permuted: more volumes, no knowledge."""
    order = np.random.default_rng([seed, _SHUFFLE]).permutation(len(rows))
    shuffled = rows.copy()
    shuffled[NAMES] = label_matrix(rows)[order]
    return shuffled


def _chosen(name: str, material: Material, pool: pd.DataFrame, ratio: float) -> pd.DataFrame:
    strategy = material.settings.strategy
    found = select(material.train, pool, material.workspace, ratio=ratio, strategy=strategy, seed=_DRAW)
    if len(found.chosen) < found.wanted:
        warn(f"{name}: only {len(found.chosen)} of {found.wanted} synthetic volumes can be used")
    return found.chosen


def _mixed(name: str, material: Material, real: pd.DataFrame, rows: pd.DataFrame) -> Arm:
    if rows.empty:
        raise UserError(f"arm '{name}' has no synthetic volume with a known label and a file")
    return Arm(name, material.joined(real, rows), len(real), len(rows))


def _pack(material: Material) -> dict[str, Any]:
    return {"pack_sha256": pack_sha256(material.pack)}


def pack_sha256(pack: Any) -> str:
    """Identity of a pack that is given by name, by folder or opened; "" for none."""
    if isinstance(pack, str | Path):
        from text2ct.diffusion import load_pack

        pack = load_pack(pack)
    return "" if pack is None else str(pack.sha256)
