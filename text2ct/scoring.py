"""Train, score and compare as the commands do it: classifiers on manifests, tables of predictions, benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from text2ct import manifests
from text2ct.console import info
from text2ct.errors import UserError
from text2ct.files import sha256_file, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace
from text2ct.workflow import pack_of, real_manifest

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

    folder = run or workspace.newest("classifiers")
    if not folder.exists() and (workspace.run_dir("classifiers") / folder).exists():
        folder = workspace.run_dir("classifiers") / folder
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
    """Refuse to score patients that a classifier knows, from their volumes or from their reports."""
    from text2ct.augment.leaks import HeldOut
    from text2ct.classifiers import prompt_volumes, training_patients

    scored = HeldOut(rows.assign(split="test"))
    prompts = pd.DataFrame(prompt_volumes(folder), columns=["dataset", "volume"], dtype=str)
    for leaked, how in (
        ([f"{d}/{p}" for d, p in scored.among(training_patients(folder))], "trained on"),
        (
            prompts.loc[scored.volumes(prompts["dataset"], prompts["volume"]), "volume"].tolist(),
            "trained on volumes made from the reports of",
        ),
    ):
        if leaked:
            shown = leaked[:10] + ([f"and {len(leaked) - 10} more"] if len(leaked) > 10 else [])
            raise UserError(f"{folder} was {how} {len(leaked)} of the patients or scans to be scored", shown)


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
        rerun: Command lines that give the same again, for the report.
        dry_run: Say what would be trained, how long and how much disk, and write nothing.

    Returns:
        The ``benchmark`` object of the command line.

    Raises:
        UserError: No synthetic volumes, a missing split, or a leak.
    """
    from text2ct.augment.gate import newest_usable
    from text2ct.evaluation.benchmark import BenchmarkSettings, pack_fidelity, run_benchmark, uses
    from text2ct.reports import write_benchmark_report

    settings = settings or BenchmarkSettings()
    made = None
    if synthetic is not None or uses("synthetic", settings):
        source = synthetic or newest_usable(workspace)
        info(f"benchmark with the synthetic volumes of {source}")
        made = manifests.read_manifest(source)
    frame, _ = real_manifest(workspace, real)
    result = run_benchmark(
        frame,
        made,
        workspace,
        settings,
        run,
        pack=pack_of(workspace, made, model) if uses("pack", settings) else None,
        fidelity=None if made is None else pack_fidelity(made, workspace),
        device=device,
        dry_run=dry_run,
    )
    if dry_run:
        return result
    page = write_benchmark_report(
        result,
        workspace.run_dir("reports", result["run"]),
        volumes=[] if made is None else list(_shown(made, workspace)),
        methods=_methods(result, made),
        limitations=_limitations(result, frame, made),
        rerun=rerun,
    )
    return result | {"report": str(page)}


def _shown(made: pd.DataFrame, workspace: Workspace) -> list[dict[str, Any]]:
    """Volumes for the report: the first of each label set, so that findings vary."""
    from text2ct import volumes

    keys = made[list(FINDINGS)].fillna(-1).apply(tuple, axis=1)
    first = made[~keys.duplicated()]
    chosen = pd.concat([first, made.drop(first.index)]).head(SHOWN_VOLUMES)
    shown = []
    for row in chosen.to_dict("records"):
        volume = volumes.read(workspace.resolve(row["root"], row["path"]))
        shown.append(
            {
                "name": row["volume"],
                "prompt": row["prompt"],
                "seed": row["seed"],
                "pack": row["pack"],
                "pack_sha256": row["pack_sha256"],
                "labels": [name for name in FINDINGS if row[name] == 1],
                "hu": volume.hu,
                "spacing_mm": volume.spacing_mm,
            }
        )
    return shown


def _methods(result: Mapping[str, Any], made: pd.DataFrame | None) -> str:
    settings, patients = result["settings"], result["test"]["patients"]
    strangers = "arm"
    if made is not None:
        strangers = "arm, prompt or generator" if (made["pack_sha256"] != "").all() else "arm or prompt"
    return (
        f"Every arm trained the classifier {settings['classifier']} for {settings['steps']} steps of "
        f"{settings['batch_size']} volumes with {len(settings['seeds'])} seed(s); the checkpoint was chosen by macro "
        f"AUC on real validation patients. Arms are compared on {patients} real test patients, none of whom any "
        f"{strangers} has seen. Reconstructions of a scan are averaged. Intervals (95%) join a bootstrap over "
        f"patients ({settings['n_bootstrap']} samples, paired between arms) with the spread between trainings; "
        "p-values follow Student's t with Welch-Satterthwaite degrees of freedom, corrected by Holm's method over "
        "the findings of a comparison and over the comparisons."
    )


def _limitations(result: Mapping[str, Any], frame: pd.DataFrame, made: pd.DataFrame | None) -> list[str]:
    lines = []
    if (frame["source"] == "simulated").any():
        lines.append(
            "The cohort is simulated: neither a gain nor a loss here says anything about patients. It shows that the "
            "pipeline runs and what its statistics can tell."
        )
    lines.extend(
        f"The pack {pack} has learnt from patients that the classifiers have not seen: a gain may be its knowledge, "
        "transferred, and not information that was in your training data."
        for pack in sorted(set() if made is None else set(made["pack"]))
    )
    lines.append(
        f"The test set has {result['test']['patients']} patients; differences smaller than the intervals cannot be "
        "seen with it."
    )
    return lines
