"""Does it help? Training sets against each other at equal steps, judged on one real test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from text2ct.augment.mix import gather, prevalence, source_label_association
from text2ct.augment.selection import Strategy, training_volumes, underrepresented
from text2ct.console import info
from text2ct.errors import UserError
from text2ct.evaluation._arms import (
    DEFAULT_ARMS,
    Arm,
    build_arm,
    expand_arms,
    json_digest,
    needs_synthetic,
    table_digest,
)
from text2ct.evaluation.classification import choose_thresholds, score
from text2ct.evaluation.comparison import compare
from text2ct.files import atomic_path, read_json, sha256_file, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace

Train = Callable[..., dict[str, Any]]
Predict = Callable[..., pd.DataFrame]
# The upper end of what Charte et al. 2015 use; above it, as many clones as synthetic volumes.
MIN_OVERSAMPLE_SHARE = 0.25
_SCORES = ("macro_auc", "weighted_auc", "macro_average_precision", "macro_precision", "macro_f1", "crg")


def run_benchmark(
    real: pd.DataFrame,
    synthetic: pd.DataFrame | Sequence[pd.DataFrame] | None,
    workspace: Workspace,
    run: str | None = None,
    *,
    ratios: Sequence[float] = (0.5,),
    seeds: Sequence[int] = (0, 1),
    steps: int = 300,
    classifier: str = "cnn3d",
    arms: Sequence[str] = DEFAULT_ARMS,
    strategy: Strategy = "targeted",
    batch_size: int = 8,
    device: str = "auto",
    cache_dir: Path | None = None,
    n_bootstrap: int = 1000,
    train_options: Mapping[str, Any] | None = None,
    train: Train | None = None,
    predict: Predict | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Train every arm with every seed for the same number of steps and compare them with ``real``.

    Each (arm, seed) is a run in ``classifiers/<run>/<arm>-seed<k>/`` that is skipped when it is done
    with the same data and settings. The checkpoint is chosen, and decision thresholds are set, on real
    validation patients; the test split holds no synthetic volume. ``real+oversampled`` draws ML-ROS
    clones, as many as the largest ratio has synthetic volumes at most.

    Args:
        real: Real (or simulated) manifest with train, validation and test rows.
        synthetic: Manifests of ``synthesize``; may be None when no arm uses them.
        workspace: Resolves roots and holds the runs.
        run: Name; by default from the settings.
        ratios: Synthetic volumes per real training volume, for arms ending in ``@R``.
        seeds: One training per arm and seed; with a single one no verdict is given.
        steps: Optimisation steps of every training.
        classifier: An entry of ``text2ct.classifiers.CLASSIFIERS``.
        arms: ``real``, ``real+oversampled``, ``real+synthetic@R``, ``real+shuffled@R`` (labels of the
            synthetic volumes permuted), ``synthetic``.
        strategy: How synthetic volumes are chosen, see :func:`text2ct.augment.selection.select`.
        batch_size: Volumes a step.
        device: ``auto``, ``cpu``, ``cuda``, ...
        cache_dir: Cache of preprocessed volumes.
        n_bootstrap: Bootstrap samples of the statistics.
        train_options: Further arguments of ``train``, the same for every arm.
        train: Trainer; by default :func:`text2ct.classifiers.train`.
        predict: Predictor; by default :func:`text2ct.classifiers.predict`.
        dry_run: Return what would be trained, how long it takes and how much disk, and write nothing.

    Returns:
        ``arms`` (also with ``scores``: means over seeds with thresholds from validation), ``comparisons``
        as in ``benchmark --json``, ``settings``, ``training`` (volumes, prevalence and source-label
        association per arm), ``run``, ``resumed`` and ``benchmark``, the path of ``benchmark.json``.

    Raises:
        UserError: An unknown arm, a missing split, a leak, or a run folder that holds other settings.
    """
    names = expand_arms(arms, ratios)
    seeds = list(dict.fromkeys(seeds))
    if not seeds or steps < 1:
        raise UserError(f"a benchmark needs at least one seed and one step; given {len(seeds)} seeds, {steps} steps")
    splits = _splits(real)
    pool = _pool(real, synthetic, workspace, names)
    used = [float(name.split("@")[1]) for name in names if "@" in name]
    share = max([MIN_OVERSAMPLE_SHARE, *used])
    # The draw is the same for every seed: seeds are the luck of training, not of choosing volumes.
    sets = [
        build_arm(
            name,
            splits["train"],
            splits["validation"],
            pool,
            workspace,
            strategy=strategy,
            oversample_share=share,
            seed=0,
        )
        for name in names
    ]
    rare = underrepresented(splits["train"])
    settings = {
        "ratios": list(ratios),
        "seeds": seeds,
        "steps": steps,
        "classifier": classifier,
        "batch_size": batch_size,
        "arms": names,
        "strategy": strategy,
        "oversample_share": share,
        "n_bootstrap": n_bootstrap,
        "train_options": {key: _plain(value) for key, value in (train_options or {}).items()},
    }
    runner = _Runner(settings, splits, workspace, device, cache_dir, dict(train_options or {}), train, predict)
    name = run or f"benchmark-{runner.digest(sets)[:8]}"
    folder = workspace.run_dir("classifiers", name)
    training = {arm.name: _describe(arm) for arm in sets}
    if dry_run:
        trainings = len(sets) * len(seeds)
        done = sum(runner.finished(arm, seed, folder) is not None for arm in sets for seed in seeds)
        plan = {"run": name, "dry_run": True, "trainings": trainings, "resumed": done}
        return plan | {"settings": settings, "training": training} | runner.estimate(sets, trainings - done, folder)
    outcomes = {arm.name: [runner.run(arm, seed, folder) for seed in seeds] for arm in sets}
    result = _statistics(outcomes, splits, rare, n_bootstrap)
    for arm_name, runs in outcomes.items():
        result["arms"][arm_name]["scores"] = _mean_scores(runs, splits)
        training[arm_name]["validation_macro_auc"] = [run_["train"].get("validation_macro_auc") for run_ in runs]
    result["notes"] += _short_of_the_ratio(training)
    result |= {"run": name, "settings": settings, "training": training}
    path = workspace.run_dir("reports", name) / "benchmark.json"
    write_json(path, result)
    resumed = sum(run_["resumed"] for runs in outcomes.values() for run_ in runs)
    return result | {"benchmark": str(path), "resumed": resumed}


def _splits(real: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows with files per split; the test split is real or simulated only."""
    if (real["source"] == "synthetic").any():
        raise UserError("the real manifest holds synthetic rows; a benchmark is judged on real volumes only")
    known = real[list(FINDINGS)].notna().any(axis=1)
    splits = {
        split: real[(real["split"] == split) & (real["path"] != "") & known].reset_index(drop=True)
        for split in ("validation", "test")
    }
    empty = [f"split '{split}' has no labelled volumes with files" for split, rows in splits.items() if rows.empty]
    if empty:
        raise UserError("the benchmark needs training, validation and test patients", empty)
    return {"train": training_volumes(real[known]).reset_index(drop=True), **splits}


def _pool(
    real: pd.DataFrame,
    synthetic: pd.DataFrame | Sequence[pd.DataFrame] | None,
    workspace: Workspace,
    names: Sequence[str],
) -> pd.DataFrame | None:
    if not needs_synthetic(names):
        return None
    if synthetic is None:
        raise UserError("these arms need synthetic volumes; run `text2ct synthesize` first")
    return gather(real, synthetic, workspace)


class _Runner:
    """Trains, predicts and remembers: one folder per arm and seed."""

    def __init__(
        self,
        settings: dict[str, Any],
        splits: dict[str, pd.DataFrame],
        workspace: Workspace,
        device: str,
        cache_dir: Path | None,
        train_options: dict[str, Any],
        train: Train | None,
        predict: Predict | None,
    ) -> None:
        self._settings, self._splits, self._workspace = settings, splits, workspace
        self._device, self._cache_dir, self._options = device, cache_dir, train_options
        self._train, self._predict = train, predict

    def digest(self, arms: Sequence[Arm]) -> str:
        """Names a benchmark by its settings and data."""
        return json_digest([self._settings, [self._request(arm, 0) for arm in arms]])

    def _request(self, arm: Arm, seed: int) -> dict[str, Any]:
        weights = None if arm.sampling_weights is None else arm.sampling_weights.tolist()
        settings = {key: self._settings[key] for key in ("steps", "classifier", "batch_size", "train_options")}
        return {
            "version": 1,
            "arm": arm.name,
            "seed": seed,
            **settings,
            "training_data": table_digest(arm.frame),
            "sampling_weights": json_digest(weights),
            "test_data": table_digest(self._splits["test"]),
        }

    def finished(self, arm: Arm, seed: int, folder: Path) -> dict[str, Any] | None:
        """The outcome of a training that is done with the same request, or None.

        Raises:
            UserError: The folder holds a training with other data or settings.
        """
        place = folder / f"{arm.name}-seed{seed}"
        request, file = self._request(arm, seed), place / "request.json"
        if not file.exists():
            return None
        before = read_json(file)
        if before != request:
            differing = [
                f"{key}: then {before.get(key)}, now {value}"
                for key, value in request.items()
                if before.get(key) != value
            ]
            raise UserError(f"{place} was made from other data or settings; give another --run", differing)
        if not (place / "done.json").exists():
            return None
        done = read_json(place / "done.json")
        tables = {}
        for split, checksum in done["predictions"].items():
            table = place / f"predictions-{split}.csv"
            if not table.is_file() or sha256_file(table) != checksum:
                return None
            # Cells as text first: float() gives back the very number that was written.
            cells = pd.read_csv(table, dtype="str", keep_default_na=False)
            tables[split] = cells.astype(dict.fromkeys(FINDINGS, "float64"))
        return {"train": done["train"], "predictions": tables, "resumed": True}

    def run(self, arm: Arm, seed: int, folder: Path) -> dict[str, Any]:
        """Train and predict, unless that was done before."""
        done = self.finished(arm, seed, folder)
        if done is not None:
            info(f"{arm.name}, seed {seed}: done before")
            return done
        info(
            f"{arm.name}, seed {seed}: {self._settings['steps']} steps on {arm.real} real and "
            f"{arm.synthetic} synthetic volumes"
        )
        place = folder / f"{arm.name}-seed{seed}"
        write_json(place / "request.json", self._request(arm, seed))
        train, predict = self._functions()
        trained = train(
            arm.frame,
            self._workspace,
            place / "model",
            name=self._settings["classifier"],
            steps=self._settings["steps"],
            batch_size=self._settings["batch_size"],
            seed=seed,
            cache_dir=self._cache_dir,
            device=self._device,
            sampling_weights=arm.sampling_weights,
            **self._options,
        )
        tables, checksums = {}, {}
        for split in ("validation", "test"):
            rows = self._splits[split]
            table = predict(
                place / "model",
                rows,
                self._workspace,
                batch_size=self._settings["batch_size"],
                device=self._device,
                cache_dir=self._cache_dir,
            )
            if table["VolumeName"].tolist() != rows["volume"].tolist():
                raise UserError(f"{place / 'model'}: predictions are not in the order of the {split} volumes")
            path = place / f"predictions-{split}.csv"
            with atomic_path(path) as temporary:
                table.to_csv(temporary, index=False, lineterminator="\n")
            tables[split], checksums[split] = table, sha256_file(path)
        kept = {key: _plain(value) for key, value in trained.items() if key != "run"}
        write_json(place / "done.json", {"train": kept, "predictions": checksums})
        return {"train": kept, "predictions": tables, "resumed": False}

    def estimate(self, arms: Sequence[Arm], left: int, folder: Path) -> dict[str, Any]:
        """``seconds`` and ``bytes`` of the trainings that are left, at most."""
        if left == 0:
            return {"seconds": 0.0, "bytes": 0}
        # One training on everything that any arm reads: what is judged costs as much as what is validated.
        judged = self._splits["test"].assign(split="validation")
        frame = pd.concat([*(arm.frame for arm in arms), judged], ignore_index=True)
        train, _ = self._functions()
        trial = train(
            frame.drop_duplicates(["dataset", "volume"]),
            self._workspace,
            folder / "dry-run",
            name=self._settings["classifier"],
            steps=self._settings["steps"],
            batch_size=self._settings["batch_size"],
            cache_dir=self._cache_dir,
            device=self._device,
            dry_run=True,
            **self._options,
        )
        return {
            "seconds": trial["seconds_reading"] + left * trial["seconds_training"],
            "bytes": trial["bytes_cache"] + left * trial["bytes_run"],
        }

    def _functions(self) -> tuple[Train, Predict]:
        if self._train is None or self._predict is None:
            from text2ct import classifiers

            return self._train or classifiers.train, self._predict or classifiers.predict
        return self._train, self._predict


def _statistics(
    outcomes: Mapping[str, Sequence[dict[str, Any]]],
    splits: dict[str, pd.DataFrame],
    rare: Sequence[str],
    n_bootstrap: int,
) -> dict[str, Any]:
    """Every arm against ``real``, and synthetic volumes against oversampling, which costs nothing."""
    names = list(outcomes)
    pairs = [(name, "real") for name in names if name != "real"]
    if "real+oversampled" in names:
        pairs += [(name, "real+oversampled") for name in names if name.startswith("real+synthetic@")]
    predictions = {
        name: [_keyed(run["predictions"]["test"], splits["test"]) for run in outcomes[name]] for name in names
    }
    labels = _labels(splits["test"])
    patients, scans = _identities(splits["test"])
    return compare(
        predictions,
        labels,
        pairs=pairs,
        groups=patients,
        scans=scans,
        underrepresented=list(rare),
        n_bootstrap=n_bootstrap,
    )


def _mean_scores(runs: Sequence[dict[str, Any]], splits: dict[str, pd.DataFrame]) -> dict[str, float | None]:
    """Test scores averaged over seeds, with each training's thresholds from its validation patients."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        tables = {}
        for split in ("validation", "test"):
            patients, scans = _identities(splits[split])
            tables[split] = (
                _keyed(run["predictions"][split], splits[split]),
                _labels(splits[split]),
                patients,
                scans,
            )
        predictions, labels, patients, scans = tables["validation"]
        thresholds = choose_thresholds(predictions, labels, groups=patients, scans=scans)
        predictions, labels, patients, scans = tables["test"]
        rows.append(score(predictions, labels, groups=patients, scans=scans, n_bootstrap=0, thresholds=thresholds))
    means: dict[str, float | None] = {}
    for key in _SCORES:
        values = [row[key] for row in rows if row[key] is not None]
        means[key] = float(np.mean(values)) if values else None
    return means


def _identities(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Patient and scan of each row, prefixed by the data set, since origins share spellings."""
    return (rows["dataset"] + "/" + rows["patient"]).tolist(), (rows["dataset"] + "/" + rows["scan"]).tolist()


def _row_names(rows: pd.DataFrame) -> list[str]:
    return (rows["dataset"] + ":" + rows["volume"]).tolist()


def _keyed(predictions: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    return predictions[list(FINDINGS)].assign(VolumeName=_row_names(rows))


def _labels(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[list(FINDINGS)].assign(VolumeName=_row_names(rows))


def _short_of_the_ratio(training: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Arms that had fewer synthetic volumes than their name asks for."""
    notes = []
    for name, arm in training.items():
        asked = float(name.split("@")[1]) if "@" in name else 0.0
        if arm["synthetic"] < round(asked * arm["real"]):
            notes.append(
                f"{name} had only {arm['synthetic']} synthetic volumes to use: its ratio is {arm['ratio']:.2g}"
            )
    return notes


def _describe(arm: Arm) -> dict[str, Any]:
    train = arm.frame[arm.frame["split"] == "train"]
    return {
        "real": arm.real,
        "synthetic": arm.synthetic,
        "ratio": arm.synthetic / arm.real if arm.real else None,
        "clones": arm.clones,
        "prevalence": prevalence(train),
        "source_label_association": source_label_association(train) if arm.synthetic and arm.real else None,
    }


def _plain(value: Any) -> Any:
    """A value as JSON stores it: tuples become lists, NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
