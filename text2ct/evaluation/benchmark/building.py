"""How each training set of a benchmark is put together, and what its volumes or first weights are made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from text2ct.augment import ml_ros
from text2ct.augment._scans import NAMES, label_matrix
from text2ct.augment.selection import select, usable
from text2ct.console import warn
from text2ct.errors import UserError
from text2ct.evaluation.benchmark.settings import BenchmarkSettings, json_digest, table_digest
from text2ct.manifests import Workspace
from text2ct.simulation.cohort import COHORT_VERSION

# As many clones as real volumes at most, four times what Charte et al. 2015 use: the comparator should be as strong as
# it can be, and the method ends by itself once it has balanced the findings.
OVERSAMPLE_SHARE = 1.0
_SHUFFLE = 4  # the stream of random numbers of shuffled labels
# A volume has the same oracle patient in every training, so that trainings share what is rendered.
_ORACLE = 0


@dataclass(frozen=True)
class Arm:
    """One training's set and how it is trained where that differs from the others.

    The seed of the training draws what the arm draws, too (volumes, clones, permuted labels), so that the luck of
    choosing is inside the intervals.

    Args:
        name: As in the result, for example ``real+synthetic@0.5``.
        seed: Of the training and of what is drawn for it.
        frame: Manifest rows with split train and validation.
        real: Real training volumes.
        synthetic: Synthetic training volumes.
        clones: Copies of real volumes that are added: drawn again, or through a decoder.
        sampling_weights: ``(len(frame),)`` relative frequencies, or None for all equal.
        options: Arguments of ``train`` that replace those of all arms.
        made_with: What decides volumes or first weights that are made for this arm, beside ``frame``.
        make: Where volumes must be made first: from a folder to the rows that are trained on; ``frame`` then
            holds the rows that they are made from.
        init: Where training starts from another run's weights: from a folder to that run.
    """

    name: str
    seed: int
    frame: pd.DataFrame
    real: int
    synthetic: int = 0
    clones: int = 0
    sampling_weights: np.ndarray | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    made_with: Mapping[str, Any] = field(default_factory=dict)
    make: Callable[[Path], pd.DataFrame] | None = None
    init: Callable[[Path], Path] | None = None


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
        pack: The pack of ``real+reconstructed`` and ``real+classifier-pretrained``, or None.
        device: Where volumes are made.
    """

    real: pd.DataFrame
    train: pd.DataFrame
    validation: pd.DataFrame
    synthetic: pd.DataFrame | None
    workspace: Workspace
    settings: BenchmarkSettings
    pack: Any = None
    device: str = "auto"

    @property
    def pool(self) -> pd.DataFrame:
        """The synthetic rows, of which there must be some."""
        assert self.synthetic is not None
        return self.synthetic

    def joined(self, *training: pd.DataFrame) -> pd.DataFrame:
        """Training rows, then the validation rows."""
        return pd.concat([frame for frame in (*training, self.validation) if len(frame)], ignore_index=True)


def real(name: str, material: Material, seed: int, ratio: float) -> Arm:
    """The real training rows and nothing else."""
    return Arm(name, seed, material.joined(material.train), len(material.train))


def with_option(option: str) -> Callable[[str, Material, int, float], Arm]:
    """A builder of the real rows with one argument of ``train`` switched on."""

    def build(name: str, material: Material, seed: int, ratio: float) -> Arm:
        return replace(real(name, material, seed, ratio), options={option: True})

    return build


def oversampled(name: str, material: Material, seed: int, ratio: float) -> Arm:
    """The real rows, those with rare findings drawn more often, as ML-ROS clones them."""
    clones = ml_ros(label_matrix(material.train), OVERSAMPLE_SHARE, seed)
    weights = np.ones(len(material.train) + len(material.validation))
    np.add.at(weights, clones, 1.0)
    return replace(real(name, material, seed, ratio), sampling_weights=weights, clones=len(clones))


def with_reconstructed(name: str, material: Material, seed: int, ratio: float) -> Arm:
    """Every real volume twice: as it is, and through the pack's decoder."""

    def make(folder: Path) -> pd.DataFrame:
        from text2ct.evaluation.arm_volumes import reconstructed

        made = reconstructed(material.train, material.workspace, material.pack, folder, device=material.device)
        return material.joined(material.train, made)

    made_with = _pack(material) | {"train": table_digest(material.train)}
    return replace(real(name, material, seed, ratio), clones=len(material.train), make=make, made_with=made_with)


def synthetic(name: str, material: Material, seed: int, ratio: float) -> Arm:
    """All synthetic rows that can be used, and no real one."""
    rows, _ = usable(material.pool, material.workspace)
    return _mixed(name, material, seed, material.train.iloc[:0], rows)


def real_and_synthetic(name: str, material: Material, seed: int, ratio: float) -> Arm:
    """Real rows and, at a ratio, synthetic ones that no gate rejected."""
    return _mixed(name, material, seed, material.train, _chosen(name, material, seed, material.pool, ratio))


def ungated(name: str, material: Material, seed: int, ratio: float) -> Arm:
    """The same, drawn as if no gate had been."""
    rows = _chosen(name, material, seed, material.pool.assign(gate=""), ratio)
    return _mixed(name, material, seed, material.train, rows)


def shuffled(name: str, material: Material, seed: int, ratio: float) -> Arm:
    """The same volumes as ``real+synthetic``, with their label rows permuted."""
    rows = shuffle_labels(_chosen(name, material, seed, material.pool, ratio), seed)
    return _mixed(name, material, seed, material.train, rows)


def with_oracle(name: str, material: Material, seed: int, ratio: float) -> Arm:
    """A new simulated patient in the place of each volume of ``real+synthetic``."""
    rows = _chosen(name, material, seed, material.pool, ratio)

    asked = _asked(rows, material.pool)

    def make(folder: Path) -> pd.DataFrame:
        from text2ct.evaluation.arm_volumes import oracle

        made = oracle(asked, material.workspace, material.real, folder, seed=_ORACLE, workers=None)
        return material.joined(material.train, made)

    made_with = {"oracle": _ORACLE, "cohort_version": COHORT_VERSION}
    return replace(_mixed(name, material, seed, material.train, asked), make=make, made_with=made_with)


def pretrained(name: str, material: Material, seed: int, ratio: float) -> Arm:
    """The real rows, from first weights that know the pack's own patients."""
    settings = material.settings

    def init(folder: Path) -> Path:
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

    asked = settings.model_dump(mode="json", include={"classifier", "steps", "batch_size", "train_options"})
    made_with = _pack(material) | asked | {"patients": settings.pretrain_patients, "cohort_version": COHORT_VERSION}
    return replace(real(name, material, seed, ratio), init=init, made_with=made_with)


def with_own_generator(name: str, material: Material, seed: int, ratio: float) -> Arm:
    """The prompts of ``real+synthetic``, given to a generator that knows the arm's training patients alone."""
    rows, budget = (
        _asked(_chosen(name, material, seed, material.pool, ratio), material.pool),
        material.settings.own_generator,
    )

    def make(folder: Path) -> pd.DataFrame:
        from text2ct.augment import synthesize
        from text2ct.augment._run import requests_digest
        from text2ct.augment.mix import gather
        from text2ct.augment.requests import check_requests
        from text2ct.evaluation.arm_volumes import own_generator
        from text2ct.manifests import read_manifest

        pack = own_generator(material.train, material.workspace, folder, device=material.device, budget=budget)
        origin = {"dataset": rows["prompt_dataset"], "volume": rows["prompt_volume"]}
        requests = check_requests(rows[["prompt", *NAMES]].assign(**origin), "the prompts")
        done = synthesize(
            requests,
            pack=pack,
            workspace=material.workspace,
            run=f"benchmark/{folder.name}-seed{seed}-{requests_digest(requests)[:8]}",
            seed=seed,
            device=material.device,
        )
        made = gather(material.real, read_manifest(Path(done["manifest"])), material.workspace)
        return material.joined(material.train, made)

    texts = material.train[["findings_text", "impression_text"]].to_numpy().tolist()
    made_with = {
        "budget": budget.model_dump(mode="json"),
        "train": table_digest(material.train),
        "reports": json_digest(texts),
    }
    return replace(_mixed(name, material, seed, material.train, rows), make=make, made_with=made_with)


def shuffle_labels(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same volumes with their label rows permuted: more volumes, no knowledge."""
    order = np.random.default_rng([seed, _SHUFFLE]).permutation(len(rows))
    shuffled = rows.copy()
    shuffled[NAMES] = label_matrix(rows)[order]
    return shuffled


def _chosen(name: str, material: Material, seed: int, pool: pd.DataFrame, ratio: float) -> pd.DataFrame:
    strategy = material.settings.strategy
    found = select(material.train, pool, material.workspace, ratio=ratio, strategy=strategy, seed=seed)
    if seed == material.settings.seeds[0] and len(found.chosen) < found.wanted:
        warn(f"{name}: only {len(found.chosen)} of {found.wanted} synthetic volumes can be used")
    return found.chosen


def _asked(rows: pd.DataFrame, pool: pd.DataFrame) -> pd.DataFrame:
    """The same volumes with the labels that they were asked to have, whatever a gate said of the pictures."""
    keys = ["dataset", "volume"]
    asked = pool.set_index(keys)[NAMES].loc[list(rows[keys].itertuples(index=False, name=None))]
    return rows.assign(**{name: asked[name].to_numpy() for name in NAMES})


def _mixed(name: str, material: Material, seed: int, real: pd.DataFrame, rows: pd.DataFrame) -> Arm:
    if rows.empty:
        raise UserError(f"arm '{name}' has no synthetic volume with a known label and a file")
    until = material.settings.synthetic_until
    options = {"synthetic_until": until} if until < 1 and len(real) else {}
    return Arm(name, seed, material.joined(real, rows), len(real), len(rows), options=options)


def _pack(material: Material) -> dict[str, Any]:
    return {"pack_sha256": material.pack.sha256}
