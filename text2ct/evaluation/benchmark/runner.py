"""Trains, predicts and remembers: a training is named by all that decides it, and skipped when it is done."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from text2ct.compute import pick_device
from text2ct.console import info, warn
from text2ct.engines import LOCAL, Engine, Local
from text2ct.errors import UserError
from text2ct.evaluation.benchmark.building import Arm
from text2ct.evaluation.benchmark.data import check_frame, check_start
from text2ct.evaluation.benchmark.settings import BenchmarkSettings, json_digest, plain, table_digest
from text2ct.files import atomic_path, read_json, sha256_file, write_json
from text2ct.findings import FINDINGS
from text2ct.locks import working_in
from text2ct.manifests import Workspace

TRAINING_VERSION = 4
"""Raise it when the same request trains or predicts otherwise: networks, recipe, reading of volumes."""

Train = Callable[..., dict[str, Any]]
Predict = Callable[..., pd.DataFrame]


class _Done(BaseModel):
    """``done.json``: what a training said, the SHA-256 of its predictions by split, and what pins it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: dict[str, Any]
    predictions: dict[str, str] = Field(min_length=2)
    begun: str | None = None
    """The hour (UTC); None where it was not kept yet, as ``files``."""
    files: str | None = None


def _read_done(path: Path) -> _Done | None:
    """The record of a finished training; None where there is none, or none that can be understood."""
    if not path.exists():
        return None
    try:
        return _Done.model_validate(read_json(path))
    except (UserError, ValidationError):
        warn(f"{path} is damaged; this training is made again")
        return None


class Runner:
    """One benchmark's trainings.

    Args:
        settings: The same for every arm.
        splits: Real rows by split; ``validation`` and ``test`` are predicted after each training.
        workspace: Resolves the rows' roots.
        device: ``auto``, ``cpu``, ``cuda``, ...
        cache_dir: Cache of preprocessed volumes.
        train: Trainer; by default :func:`text2ct.classifiers.train`.
        predict: Predictor; by default :func:`text2ct.classifiers.predict`.

    Raises:
        UserError: An unknown classifier, option, field of the recipe or device, or a grid that does not serve.
    """

    def __init__(
        self,
        settings: BenchmarkSettings,
        splits: Mapping[str, pd.DataFrame],
        workspace: Workspace,
        *,
        device: str = "auto",
        cache_dir: Path | None = None,
        train: Train | None = None,
        predict: Predict | None = None,
    ) -> None:
        self._settings, self._splits, self._workspace = settings, splits, workspace
        self._device, self._cache_dir = device, cache_dir
        self._folder = workspace.run_dir("classifiers", "benchmark")
        self._test_data = table_digest(splits["test"])
        self._recipe = _recipe(settings.classifier, settings.train_options)
        if train is None:
            pick_device(device)
            _check_grid(settings.classifier, settings.train_options)
        self._train, self._predict = train, predict

    def _request(self, arm: Arm) -> dict[str, Any]:
        """Everything that decides a training and its predictions."""
        settings = self._settings.model_dump(
            mode="json", include={"steps", "classifier", "batch_size", "train_options"}
        )
        weights = None if arm.sampling_weights is None else arm.sampling_weights.tolist()
        return {
            "version": TRAINING_VERSION,
            "arm": arm.name,
            "seed": arm.seed,
            **settings,
            "recipe": self._recipe,
            "options": plain(arm.options),
            "training_data": table_digest(arm.frame),
            "made_with": plain(arm.made_with),
            "sampling_weights": json_digest(weights),
            "test_data": self._test_data,
        }

    def names(self, arms: Iterable[Arm]) -> list[str]:
        """The folders of trainings within ``classifiers/benchmark``."""
        return list(dict.fromkeys(self._place(arm).name for arm in arms))

    def _place(self, arm: Arm) -> Path:
        """Where a training lies: benchmarks that ask for the same one share it."""
        return self._folder / f"{arm.name}-seed{arm.seed}-{json_digest(self._request(arm))[:12]}"

    def _made(self, arm: Arm) -> Path:
        """Where the volumes or first weights of an arm lie that are made for it."""
        return self._folder / "made" / f"{arm.name.split('@')[0]}-{json_digest(plain(arm.made_with))[:12]}"

    def finished(self, arm: Arm) -> dict[str, Any] | None:
        """The outcome of a training that is done with the same request on the same files, or None."""
        place = self._place(arm)
        done = _read_done(place / "done.json")
        if done is None:
            return None
        if done.files not in (None, self._files(arm)):
            info(f"{arm.name}, seed {arm.seed}: volumes were replaced since it was trained; it is trained again")
            shutil.rmtree(place)
            return None
        tables = {}
        for split, checksum in done.predictions.items():
            table = place / f"predictions-{split}.csv"
            if not table.is_file() or sha256_file(table) != checksum:
                return None
            # Cells as text first: float() gives back the very number that was written.
            cells = pd.read_csv(table, dtype="str", keep_default_na=False)
            tables[split] = cells.astype(dict.fromkeys(FINDINGS, "float64"))
        return {"train": done.train, "predictions": tables, "resumed": True, "begun": done.begun}

    def _files(self, arm: Arm) -> str:
        """Digest of the sizes of all volumes that an arm is trained, validated and judged on.

        Sizes are cheap to ask for, and packed voxels that differ hardly ever have the same.
        """
        rows = pd.concat([arm.frame, self._splits["test"]], ignore_index=True)
        places = (self._workspace.resolve(root, path) for root, path in zip(rows["root"], rows["path"], strict=True))
        return json_digest([place.stat().st_size if place.is_file() else None for place in places])

    def run_arms(self, arms: Mapping[str, Sequence[Arm]], engine: Engine = LOCAL) -> dict[str, list[dict[str, Any]]]:
        """All trainings, each unless it was done before; volumes are made only for those that were not.

        Args:
            arms: Each arm with each seed, one training each.
            engine: Where; trainings that share what is made for them are one job.

        Returns:
            For each training ``train`` (what the trainer says), ``predictions`` (by split), ``resumed``, and the
            hour when it was ``begun`` (None where that was not kept).

        Raises:
            UserError: Made volumes would leak, first weights know a held-out patient, or an engine of several local
                processes, which would share the device's memory.
        """
        if isinstance(engine, Local) and engine.workers > 1:
            raise UserError("trainings share this machine's cores already; for several at once add --engine ray")
        found: dict[tuple[str, int], dict[str, Any]] = {}
        jobs: dict[Path, list[tuple[str, int, Arm]]] = {}
        for name, each in arms.items():
            before = [self.finished(arm) for arm in each]
            done = sum(outcome is not None for outcome in before)
            if done:
                info(f"{name}: {done} of {len(each)} trainings were done before")
            for number, (arm, outcome) in enumerate(zip(each, before, strict=True)):
                if outcome is not None:
                    found[name, number] = outcome
                else:
                    place = self._made(arm) if arm.make or arm.init else self._place(arm)
                    jobs.setdefault(place, []).append((name, number, arm))
        groups = list(jobs.values())
        tasks = [[arm for _, _, arm in group] for group in groups]
        for group, outcomes in zip(groups, engine.map(self._run_group, tasks), strict=True):
            found |= {(name, number): one for (name, number, _), one in zip(group, outcomes, strict=True)}
        return {name: [found[name, number] for number in range(len(each))] for name, each in arms.items()}

    def _run_group(self, arms: Sequence[Arm]) -> list[dict[str, Any]]:
        return [self._run(arm) for arm in arms]

    def _run(self, arm: Arm) -> dict[str, Any]:
        with ExitStack() as held:
            # Benchmarks share trainings, and what is made for several.
            for folder in (self._place(arm), *([self._made(arm)] if arm.make or arm.init else [])):
                held.enter_context(working_in(folder, instead="run it again then: what is done is kept"))
            return self._run_alone(arm)

    def _run_alone(self, arm: Arm) -> dict[str, Any]:
        settings, place = self._settings, self._place(arm)
        begun = datetime.now(UTC).isoformat(timespec="seconds")
        frame = arm.frame
        if arm.make is not None:
            info(f"{arm.name}, seed {arm.seed}: making its volumes")
            frame = arm.make(self._made(arm))
        check_frame(arm.name, frame, self._splits)
        info(
            f"{arm.name}, seed {arm.seed}: {settings.steps} steps on {arm.real} real and {arm.synthetic} synthetic "
            "volumes" + (f", {arm.clones} copies of real ones beside them" if arm.clones else "")
        )
        write_json(place / "request.json", self._request(arm))
        train, predict = self._functions()
        options = {**settings.train_options, **arm.options}
        if arm.init is not None:
            options["init"] = arm.init(self._made(arm))
            check_start(arm.name, options["init"], self._splits)
        trained = train(
            frame,
            self._workspace,
            place / "model",
            name=settings.classifier,
            steps=settings.steps,
            batch_size=settings.batch_size,
            seed=arm.seed,
            cache_dir=self._cache_dir,
            device=self._device,
            sampling_weights=arm.sampling_weights,
            **options,
        )
        tables, checksums = {}, {}
        for split in ("validation", "test"):
            rows = self._splits[split]
            table = predict(
                place / "model",
                rows,
                self._workspace,
                batch_size=settings.batch_size,
                device=self._device,
                cache_dir=self._cache_dir,
            )
            if table["VolumeName"].tolist() != rows["volume"].tolist():
                raise UserError(f"{place / 'model'}: predictions are not in the order of the {split} volumes")
            path = place / f"predictions-{split}.csv"
            with atomic_path(path) as temporary:
                table.to_csv(temporary, index=False, lineterminator="\n")
            tables[split], checksums[split] = table, sha256_file(path)
        kept = {key: plain(value) for key, value in trained.items() if key != "run"}
        done = _Done(train=kept, predictions=checksums, begun=begun, files=self._files(arm))
        write_json(place / "done.json", done.model_dump(mode="json"))
        return {"train": kept, "predictions": tables, "resumed": False, "begun": begun}

    def estimate(self, left: Sequence[Arm]) -> dict[str, Any]:
        """``seconds`` and ``bytes`` of these trainings, at most, on volumes that are there."""
        total = {"seconds": 0.0, "bytes": 0}
        if not left:
            return total
        # One training on everything that any arm reads: what is judged costs as much as what is validated.
        judged = self._splits["test"].assign(split="validation")
        frame = pd.concat([*(arm.frame for arm in left), judged], ignore_index=True)
        frame = frame.drop_duplicates(["dataset", "volume"])
        train, _ = self._functions()
        reading: dict[str, Any] = {}
        for options in {json_digest(plain(arm.options)): arm.options for arm in left}.values():
            trial = train(
                frame,
                self._workspace,
                self._folder / "dry-run",
                name=self._settings.classifier,
                steps=self._settings.steps,
                batch_size=self._settings.batch_size,
                cache_dir=self._cache_dir,
                device=self._device,
                dry_run=True,
                **{**self._settings.train_options, **options},
            )
            trainings = sum(arm.options == options for arm in left)
            total["seconds"] += trainings * trial["seconds_training"]
            total["bytes"] += trainings * trial["bytes_run"]
            reading = reading or trial
        return {
            "seconds": total["seconds"] + reading["seconds_reading"],
            "bytes": total["bytes"] + reading["bytes_cache"],
        }

    def _functions(self) -> tuple[Train, Predict]:
        if self._train is None or self._predict is None:
            from text2ct import classifiers

            return self._train or classifiers.train, self._predict or classifiers.predict
        return self._train, self._predict


def _check_grid(classifier: str, options: Mapping[str, Any]) -> None:
    """Refuse a grid that the network cannot take, before anything is declared."""
    from text2ct.classifiers.config import Preprocessing
    from text2ct.classifiers.model import check_grid
    from text2ct.classifiers.registry import find

    spec = find(classifier)
    grid = {key: options[key] for key in ("size", "spacing_mm") if key in options}
    network = spec.config.of(f"the options of classifier '{classifier}'", options.get("options") or {})
    check_grid(spec, network, Preprocessing.of("the grid", grid).size)


def _recipe(classifier: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a training does, resolved: another version of it gives another classifier.

    Raises:
        UserError: An unknown classifier, option or field of the recipe.
    """
    from text2ct import __version__
    from text2ct.classifiers.config import Training
    from text2ct.classifiers.registry import find

    spec = find(classifier)
    rates = {"learning_rate": spec.learning_rate, "weight_decay": spec.weight_decay, "validate_every": 1}
    training = Training.of("the training settings", rates | dict(options.get("recipe") or {}))
    return {
        "version": __version__,
        "windows": list(spec.windows),
        "options": spec.config.of(f"the options of classifier '{classifier}'", options.get("options") or {}).model_dump(
            mode="json"
        ),
        **training.model_dump(
            mode="json", exclude={"steps", "batch_size", "seed", "validate_every", "synthetic_until"}
        ),
    }
