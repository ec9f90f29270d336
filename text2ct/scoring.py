"""Train, score and compare as the commands do it: classifiers on manifests, tables of predictions, benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd

from text2ct import manifests
from text2ct.console import info
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError, first_of
from text2ct.files import sha256_file, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace
from text2ct.workflow import embed_cohort, pack_of, read_synthetic, real_as_it_is, real_manifest

if TYPE_CHECKING:
    from text2ct.evaluation.benchmark import BenchmarkSettings

# A dozen pictures show what the generator does; more make the page heavy.
SHOWN_VOLUMES = 12


def score_tables(predictions: Path, labels: Path, *, n_bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Scores of a table of probabilities against a table of labels; the threshold is 0.5."""
    from text2ct.evaluation import read_pair, score

    table, truth = read_pair(predictions, labels)
    return score(table, truth, n_bootstrap=n_bootstrap, seed=seed)


def score_run(
    workspace: Workspace,
    run: Path | None = None,
    *,
    manifest: Path | None = None,
    split: str = "test",
    n_bootstrap: int = 1000,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Scores of a trained classifier on one split of real volumes, with thresholds from validation patients.

    These are the manifest's, or where it has none the workspace's; without any the threshold is 0.5, and a
    note says so. Writes ``scores/<run>.json``.

    Args:
        workspace: Resolves roots and takes the scores.
        run: A run's folder or name; by default the newest.
        manifest: Whose volumes are scored; by default the workspace's real data, which it does not replace.
        split: Split that is scored.
        n_bootstrap: Bootstrap samples.
        seed: Seed of the bootstrap.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Returns:
        The ``score`` object of the command line, with ``run``, ``manifest`` and ``split``.

    Raises:
        UserError: No such run, the split is empty or holds synthetic volumes, patients that the run was
            trained on, patients whose reports its synthetic training volumes were made from, or a run that is
            the gate of synthetic volumes in this workspace.
    """
    from text2ct.classifiers import predict
    from text2ct.evaluation import choose_thresholds, score

    folder = workspace.newest("classifiers") if run is None else workspace.find_run("classifiers", run)
    if manifest is None:
        frame, source = real_manifest(workspace)
    else:
        frame, source = manifests.read(manifest, workspace=workspace), manifest
    rows = frame[(frame["split"] == split) & (frame["path"] != "")]
    if rows.empty:
        raise UserError(f"{source} has no volume with a file in the split '{split}'")
    if (rows["source"] == "synthetic").any():
        raise UserError(f"the split '{split}' of {source} holds synthetic volumes; scores are of real volumes only")
    _refuse_leaks(folder, rows)
    _refuse_gate(folder, workspace)
    thresholds = None
    validation = _validation(workspace, frame) if split != "validation" else frame.iloc[:0]
    if len(validation):
        chosen_on = predict(folder, validation, workspace, device=device)
        thresholds = choose_thresholds(
            chosen_on, _labels(validation), groups=_patients(validation), scans=_scans(validation)
        )
    predictions = predict(folder, rows, workspace, device=device)
    result = score(
        predictions,
        _labels(rows),
        groups=_patients(rows),
        scans=_scans(rows),
        n_bootstrap=n_bootstrap,
        seed=seed,
        thresholds=thresholds,
    )
    if thresholds is None:
        result["notes"].append("no validation patients to choose thresholds on: precision, F1 and CRG are at 0.5")
    result |= {"run": str(folder), "manifest": str(source), "split": split}
    path = workspace.run_dir("scores") / f"{_run_name(workspace, folder)}.json"
    write_json(path, result)
    info(f"scores: {path}")
    return result


def _refuse_leaks(folder: Path, rows: pd.DataFrame) -> None:
    """Refuse to score patients that a classifier knows: from volumes, from reports, or by what made its volumes."""
    from text2ct.augment.leaks import HeldOut
    from text2ct.classifiers.leaks import leaks

    problems = leaks(folder, HeldOut(rows.assign(split="test")))
    if problems:
        raise UserError(f"{folder} knows patients that are to be scored", first_of(problems))


def _refuse_gate(folder: Path, workspace: Workspace) -> None:
    """Refuse to score the classifier that chose synthetic volumes of this workspace."""
    from text2ct.augment.gate import refuse_judge

    model = folder / "model.safetensors"
    if model.is_file():
        refuse_judge(sha256_file(model), workspace)


def _validation(workspace: Workspace, frame: pd.DataFrame) -> pd.DataFrame:
    """Validation rows of the scored manifest, or else of the workspace's real data."""
    own = workspace.run_dir("real") / "manifest.csv"
    for table in (frame, manifests.read_manifest(own) if own.exists() else frame):
        rows = table[(table["split"] == "validation") & (table["path"] != "") & (table["source"] != "synthetic")]
        if len(rows):
            break
    return rows


def _run_name(workspace: Workspace, folder: Path) -> str:
    """A run's name for its scores: all folders below ``classifiers``, since a benchmark holds many models."""
    own, folder = workspace.run_dir("classifiers").resolve(), folder.resolve()
    return "-".join(folder.relative_to(own).parts) if folder.is_relative_to(own) else folder.name


def _labels(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[["volume", *FINDINGS]].rename(columns={"volume": "VolumeName"}).reset_index(drop=True)


def _patients(rows: pd.DataFrame) -> list[str]:
    return [f"{d}/{p}" for d, p in zip(rows["dataset"], rows["patient"], strict=True)]


def _scans(rows: pd.DataFrame) -> list[str]:
    return [f"{d}/{s}" for d, s in zip(rows["dataset"], rows["scan"], strict=True)]


def benchmark(
    workspace: Workspace,
    settings: BenchmarkSettings | None = None,
    *,
    real: Path | None = None,
    synthetic: Path | None = None,
    model: str | None = None,
    run: str | None = None,
    device: str = "auto",
    engine: Engine = LOCAL,
    rerun: Sequence[str] = (),
    dry_run: bool = False,
) -> dict[str, Any]:
    """Train the arms, compare them on the real test split and write the report.

    Args:
        workspace: Resolves roots and holds the runs.
        settings: The same for every arm.
        real: Real manifest; by default the workspace's.
        synthetic: Synthetic manifest; by default the newest, where an arm needs one.
        model: Pack of the arms that need one; by default that which made the synthetic volumes.
        run: Name of the benchmark; by default from its settings and data.
        device: ``auto``, ``cpu``, ``cuda``, ...
        engine: Where trainings are done.
        rerun: Command lines that give the same again, for the report.
        dry_run: Say what would be trained, how long and how much disk, and write nothing.

    Returns:
        The ``benchmark`` object of the command line; of a dry run without volumes to measure on ``hours``,
        ``seconds`` and ``bytes`` are None.

    Raises:
        UserError: An unknown arm, no synthetic volumes, a missing split, or a leak.
    """
    from text2ct.evaluation.benchmark import BenchmarkSettings, pack_fidelity, run_benchmark, uses
    from text2ct.reports import benchmark_limitations, benchmark_methods, write_benchmark_report

    settings = settings or BenchmarkSettings()
    source, made = synthetic_source(workspace, settings, synthetic), None
    if source is not None:
        info(f"benchmark with the synthetic volumes of {source}")
        made = read_synthetic(source)
    pack = pack_of(workspace, made, model) if uses("pack", settings) else None
    frame = real_as_it_is(workspace, real) if dry_run else real_manifest(workspace, real)[0]
    if frame is None or (dry_run and _is_new(frame, workspace, real)):
        return _unmeasured(workspace, settings, real, frame, made, pack)
    result = run_benchmark(
        frame,
        made,
        workspace,
        settings,
        run,
        pack=pack,
        fidelity=None if made is None else pack_fidelity(made, workspace),
        device=device,
        engine=engine,
        dry_run=dry_run,
    )
    if dry_run:
        return result
    page = write_benchmark_report(
        result,
        workspace.run_dir("reports", result["run"]),
        volumes=[] if made is None else list(_shown(made, workspace)),
        methods=benchmark_methods(result, frame, made),
        limitations=benchmark_limitations(result, frame, made),
        rerun=rerun,
    )
    return result | {"report": str(page)}


def synthetic_source(workspace: Workspace, settings: BenchmarkSettings, given: Path | None = None) -> Path | None:
    """The synthetic manifest of a benchmark: the given one, else the newest where an arm needs one, else None.

    Raises:
        UserError: An unknown arm, or there are no synthetic volumes yet.
    """
    from text2ct.augment.gate import newest_usable
    from text2ct.evaluation.benchmark import uses
    from text2ct.evaluation.benchmark.arms import Need, expand_arms

    expand_arms(settings, set(get_args(Need)))  # names that are wrong whatever is there, before anything is made
    return given or (newest_usable(workspace) if uses("synthetic", settings) else None)


def _is_new(frame: pd.DataFrame, workspace: Workspace, real: Path | None) -> bool:
    """Whether a folder of real data was read that the workspace knows no root of; a manifest has to name known ones."""
    return real is not None and real.is_dir() and not set(frame["root"]) - {""} <= set(workspace.roots)


def _unmeasured(
    workspace: Workspace,
    settings: BenchmarkSettings,
    real: Path | None,
    frame: pd.DataFrame | None,
    made: pd.DataFrame | None,
    pack: Any,
) -> dict[str, Any]:
    """A dry run where the volumes that time and disk are measured on are not in the workspace: both are None."""
    from text2ct.evaluation.benchmark.arms import Need, expand_arms

    first = f"{real} becomes data of the workspace first"
    if frame is None:
        embed_cohort(workspace, dry_run=True)
        first = "there is no real data: the embedded cohort is simulated first"
    there: dict[Need, bool] = {
        "synthetic": made is not None,
        "gate": made is not None and bool((made["gate"] != "").any()),
        "pack": pack is not None,
        "simulated": frame is None or bool((frame["source"] == "simulated").all()),
    }
    names, notes = expand_arms(settings, {need for need, present in there.items() if present})
    trainings = len(names) * len(settings.seeds) * max(1, len(settings.train_patients))
    unknown = dict.fromkeys(("hours", "seconds", "bytes"))
    counts = {"trainings": trainings, "resumed": 0, "left": trainings}
    notes = [f"{first}; time and disk of the trainings can be said once it is there", *notes]
    return {"dry_run": True, "settings": settings.model_dump(mode="json"), **counts, **unknown, "notes": notes}


def _shown(made: pd.DataFrame, workspace: Workspace) -> list[dict[str, Any]]:
    """Volumes for the report, of those that arms may learn from: the first of each label set, so that findings vary."""
    from text2ct import volumes
    from text2ct.augment.selection import usable

    made, _ = usable(made, workspace)
    keys = made[list(FINDINGS)].fillna(-1).apply(tuple, axis=1)
    first = made[~keys.duplicated()]
    chosen = pd.concat([first, made.drop(first.index)]).head(SHOWN_VOLUMES)
    shown = []
    for row in chosen.to_dict("records"):
        volume = volumes.read(workspace.resolve(row["root"], row["path"]))
        shown.append(
            {
                "name": row["volume"],
                **{key: row[key] for key in ("prompt", "seed", "pack", "pack_sha256")},
                "labels": [name for name in FINDINGS if row[name] == 1],
                "hu": volume.hu,
                "spacing_mm": volume.spacing_mm,
            }
        )
    return shown
