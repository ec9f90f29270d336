"""Declare, build the arms, train what is left, judge: one benchmark from tables to numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from text2ct.augment._refusals import refuse_pack
from text2ct.augment.plan import MIN_FIDELITY
from text2ct.augment.selection import underrepresented
from text2ct.console import warn
from text2ct.diffusion import load_pack
from text2ct.diffusion.info import SIMULATED
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError
from text2ct.evaluation.benchmark.arms import (
    ARMS,
    Need,
    build_arm,
    expand_arms,
    split_name,
)
from text2ct.evaluation.benchmark.building import Arm, Material
from text2ct.evaluation.benchmark.data import gate_counts, known_to, nested_patients, real_splits, synthetic_pool
from text2ct.evaluation.benchmark.outcome import describe, endpoint, judge
from text2ct.evaluation.benchmark.runner import Predict, Runner, Train
from text2ct.evaluation.benchmark.settings import (
    MIN_TEST_PATIENTS,
    BenchmarkSettings,
    Endpoint,
    declare,
    keep_declaration,
    table_digest,
)
from text2ct.files import write_json
from text2ct.locks import working_in
from text2ct.manifests import Workspace

PLAN = "benchmark-plan.json"
TRAININGS = "trainings.json"
"""``trainings``: names of the folders in ``classifiers/benchmark`` that a benchmark is made of."""


@dataclass(frozen=True)
class _Regime:
    """The arms with one number of training patients, one of each seed; None stands for all patients."""

    train_patients: int | None
    arms: dict[str, list[Arm]]


def run_benchmark(
    real: pd.DataFrame,
    synthetic: pd.DataFrame | Sequence[pd.DataFrame] | None,
    workspace: Workspace,
    settings: BenchmarkSettings,
    run: str | None = None,
    *,
    pack: Any = None,
    fidelity: Mapping[str, float] | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
    train: Train | None = None,
    predict: Predict | None = None,
    engine: Engine = LOCAL,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Train every arm with every seed for the same number of steps and compare them with ``real``.

    Before the first training ``reports/<run>/benchmark-plan.json`` declares the endpoint, its findings and
    all settings; another declaration under the same name is refused. Each (arm, seed) is a run in
    ``classifiers/benchmark/``, named by everything that decides it, that is skipped when it is done: a benchmark of
    more arms or seeds trains what is new. The checkpoint, decision thresholds, temperature, ratio and
    comparator are chosen on real validation patients; the test split holds no synthetic volume.

    Args:
        real: Real (or simulated) manifest with train, validation and test rows.
        synthetic: Manifests of ``synthesize`` or ``gate``; may be None when no arm uses them.
        workspace: Resolves roots and holds the runs.
        settings: The same for every arm.
        run: Name; by default from the declaration.
        pack: Name, folder or opened pack for the arms that need one.
        fidelity: How faithfully the generator renders each finding, in [0, 1], as far as known (see
            :func:`text2ct.evaluation.benchmark.data.pack_fidelity`): the endpoint leaves out findings below
            :data:`text2ct.augment.plan.MIN_FIDELITY`.
        device: ``auto``, ``cpu``, ``cuda``, ...
        cache_dir: Cache of preprocessed volumes.
        train: Trainer; by default :func:`text2ct.classifiers.train`.
        predict: Predictor; by default :func:`text2ct.classifiers.predict`.
        engine: Where trainings are done: in this process, or on Ray.
        dry_run: Return what would be trained, how long it takes and how much disk, and write nothing.

    Returns:
        ``arms`` (also with ``scores``: means over seeds with thresholds from validation, and
        ``calibration``), ``comparisons`` as in ``benchmark --json``, ``endpoint``, ``primary``,
        ``chosen_ratio``, ``gate``, ``settings``, ``training`` (volumes, prevalence and source-label
        association per arm, of its first seed), ``regimes`` (with several ``train_patients``; the numbers above are
        then those of the largest), ``run``, ``resumed`` and ``benchmark``, the path of ``benchmark.json``.

    Raises:
        UserError: An unknown arm or one that cannot be built, a missing split, a leak, a gate that is the
            scored classifier, or a run that declared something else.
    """
    splits = real_splits(real)
    if isinstance(pack, str | Path):
        pack = load_pack(pack)
    pool, names, notes = _arms(real, synthetic, workspace, settings, splits, pack)
    settings = settings.model_copy(update={"arms": tuple(names)})
    data = {name: table_digest(rows) for name, rows in splits.items()} | {"pack": ""}
    data["synthetic"] = "" if pool is None else table_digest(pool)
    if any("pack" in ARMS[split_name(name)[0]].needs for name in names):
        refuse_pack(pack.info.model_dump(mode="json"), real)
        data["pack"] = pack.sha256
    runner = Runner(settings, splits, workspace, device=device, cache_dir=cache_dir, train=train, predict=predict)
    declared = declare(_endpoint(splits, fidelity or {}, synthetic=pool is not None), settings, data)
    name = run or f"benchmark-{declared.digest[:8]}"
    report = workspace.run_dir("reports", name)
    with working_in(report, unless=dry_run):
        declared = keep_declaration(declared, report / PLAN, dry_run=dry_run)
        material = Material(
            real=real,
            train=splits["train"],
            validation=splits["validation"],
            synthetic=pool,
            workspace=workspace,
            settings=settings,
            pack=pack,
            device=device,
        )
        regimes = _regimes(material, names)
        head = {"run": name, "settings": settings.model_dump(mode="json")}
        if dry_run:
            return head | _foreseen(runner, regimes)
        every = [arm for regime in regimes for arms in regime.arms.values() for arm in arms]
        write_json(report / TRAININGS, {"trainings": runner.names(every)})
        results: list[dict[str, Any]] = []
        resumed = earlier = 0
        for regime in regimes:
            outcomes = runner.run_arms(regime.arms, engine)
            runs = [one for each in outcomes.values() for one in each]
            resumed += sum(one["resumed"] for one in runs)
            earlier += sum(one["begun"] is None or one["begun"] < declared.declared for one in runs)
            found = judge(regime.arms, outcomes, splits, declared.endpoint.findings, settings.n_bootstrap)
            results.append(found | {"endpoint": endpoint(declared, found)})
        result = head | results[-1]
        result["notes"] = [*notes, *_test_size(declared.endpoint), *result["notes"]]
        result["endpoint"] |= {"trained_before": earlier}
        gate = None if pool is None else gate_counts(pool, workspace)
        if gate is not None:
            result["gate"] = gate
        if pool is not None and (pool["gate"] == "").any():
            result["notes"].append(
                f"{(pool['gate'] == '').sum()} of {len(pool)} synthetic volumes were not gated (`text2ct gate`): they "
                "were used whatever they show"
            )
        if settings.train_patients and pool is not None:
            result["notes"].append(
                "with fewer training patients, prompts are theirs alone, but the generator and the gate may know all "
                "of the training split: a gain with few patients may be their knowledge"
            )
        if len(regimes) > 1:
            keys = ("arms", "comparisons", "training", "notes", "primary", "chosen_ratio", "endpoint")
            result["regimes"] = [
                {"train_patients": regime.train_patients, **{key: found[key] for key in keys if key in found}}
                for regime, found in zip(regimes, results, strict=True)
            ]
        path = report / "benchmark.json"
        write_json(path, result)
        return result | {"benchmark": str(path), "resumed": resumed}


def _arms(
    real: pd.DataFrame,
    synthetic: pd.DataFrame | Sequence[pd.DataFrame] | None,
    workspace: Workspace,
    settings: BenchmarkSettings,
    splits: Mapping[str, pd.DataFrame],
    pack: Any,
) -> tuple[pd.DataFrame | None, list[str], list[str]]:
    """The synthetic rows that arms may use (None where none does), the arms' names, and notes."""
    present: set[Need] = set()
    if synthetic is not None:
        present.add("synthetic")
        frames = [synthetic] if isinstance(synthetic, pd.DataFrame) else synthetic
        if any((frame["gate"] != "").any() for frame in frames if "gate" in frame):
            present.add("gate")
    if pack is not None:
        present.add("pack")
        if pack.has("vae"):
            present.add("autoencoder")
        if any(one.dataset == SIMULATED and one.first is not None for one in pack.info.trained_on):
            present.add("pack patients")
    texts = splits["train"][["findings_text", "impression_text"]]
    if (texts != "").any(axis=1).all():
        present.add("reports")
    if (splits["train"]["source"] == "simulated").all():
        present.add("simulated")
    names, notes = expand_arms(settings, present)
    if synthetic is None or not any("synthetic" in ARMS[split_name(name)[0]].needs for name in names):
        return None, names, notes
    return synthetic_pool(real, synthetic, workspace, settings.classifier, settings.seeds), names, notes


def _endpoint(splits: Mapping[str, pd.DataFrame], fidelity: Mapping[str, float], *, synthetic: bool) -> Endpoint:
    """The findings that decide: chosen by training patients and by the generator, never by the test set."""
    rare = underrepresented(splits["train"])
    unfaithful = [name for name in rare if synthetic and fidelity.get(name, 1.0) < MIN_FIDELITY]
    test = splits["test"]
    return Endpoint(
        findings=tuple(name for name in rare if name not in unfaithful),
        unfaithful=tuple(unfaithful),
        test_patients=len(test.drop_duplicates(["dataset", "patient"])),
    )


def _test_size(declared: Endpoint) -> list[str]:
    """What a test set that is too small, or an endpoint without findings, means."""
    notes = []
    if declared.test_patients < MIN_TEST_PATIENTS:
        notes.append(
            f"{declared.test_patients} test patients are fewer than the {MIN_TEST_PATIENTS:,} that the endpoint asks "
            "for: no evidence may only mean too few patients"
        )
        warn(notes[0])
    if declared.unfaithful:
        notes.append(f"not in the endpoint, since the generator does not render them: {', '.join(declared.unfaithful)}")
    if not declared.findings:
        notes.append("no under-represented finding is left that the endpoint could be about")
    return notes


def _regimes(material: Material, names: Sequence[str]) -> list[_Regime]:
    """The arms of every number of training patients, from few to many.

    Each training seed draws patients of its own, so that the luck of who they are is inside the intervals.
    """
    seeds = material.settings.seeds
    regimes = []
    for count in material.settings.train_patients or (None,):
        parts = {seed: material if count is None else _with_patients(material, count, seed) for seed in seeds}
        try:
            arms = {name: [build_arm(name, parts[seed], seed) for seed in seeds] for name in names}
            regimes.append(_Regime(count, arms))
        except UserError as error:
            if count is None:
                raise
            hint = " (of these patients no prompt was used; synthesize more, or ask for more patients)"
            raise UserError(f"with {count} training patients: {error}{hint}") from error
    return regimes


def _with_patients(material: Material, count: int, seed: int) -> Material:
    """The material of some of the training patients, with the synthetic volumes that they could have asked for."""
    subset = nested_patients(material.train, count, seed)
    pool = None if material.synthetic is None else known_to(material.synthetic, subset, material.real)
    return replace(material, train=subset, synthetic=pool)


def _foreseen(runner: Runner, regimes: Sequence[_Regime]) -> dict[str, Any]:
    """What a dry run says: the trainings, those that are done, ``seconds`` and ``bytes``, what must be made first."""
    every = [arm for regime in regimes for arms in regime.arms.values() for arm in arms]
    left = [arm for arm in every if runner.finished(arm) is None]
    made = list(dict.fromkeys(arm.name for arm in left if arm.make or arm.init))
    notes = [f"time and disk do not hold what is made first for {', '.join(made)}"] if made else []
    cost = runner.estimate(left)
    return {
        "dry_run": True,
        "trainings": len(every),
        "resumed": len(every) - len(left),
        "left": len(left),
        "hours": cost["seconds"] / 3600,
        "training": {name: describe(arms[0]) for name, arms in regimes[-1].arms.items()},
        "notes": notes,
        **cost,
    }
