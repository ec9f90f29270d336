"""Train, score and compare as the commands do it: classifiers on manifests, tables of predictions, benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from text2ct import manifests
from text2ct.console import info
from text2ct.errors import UserError
from text2ct.files import write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import Workspace
from text2ct.workflow import real_manifest

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

    Writes ``scores/<run>.json``.

    Raises:
        UserError: No such run, the split is empty or holds synthetic volumes or training patients.
    """
    from text2ct.classifiers import predict, training_patients
    from text2ct.evaluation import choose_thresholds, score

    folder = run or workspace.newest("classifiers")
    if not folder.exists() and (workspace.run_dir("classifiers") / folder).exists():
        folder = workspace.run_dir("classifiers") / folder
    frame, source = real_manifest(workspace, manifest)
    rows = frame[(frame["split"] == split) & (frame["path"] != "")]
    if rows.empty:
        raise UserError(f"{source} has no volume with a file in the split '{split}'")
    if (rows["source"] == "synthetic").any():
        raise UserError(f"the split '{split}' of {source} holds synthetic volumes; scores are of real volumes only")
    seen = training_patients(folder)
    leaked = sorted({f"{d}/{p}" for d, p in zip(rows["dataset"], rows["patient"], strict=True) if (d, p) in seen})
    if leaked:
        shown = leaked[:10] + ([f"and {len(leaked) - 10} more"] if len(leaked) > 10 else [])
        raise UserError(f"{folder} was trained on {len(leaked)} of the patients to be scored", shown)
    validation = frame[(frame["split"] == "validation") & (frame["path"] != "")]
    thresholds = None
    if len(validation) and split != "validation":
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
    result |= {"run": str(folder), "manifest": str(source), "split": split}
    path = workspace.run_dir("scores") / f"{folder.resolve().name}.json"
    write_json(path, result)
    info(f"scores: {path}")
    return result


def _labels(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[["volume", *FINDINGS]].rename(columns={"volume": "VolumeName"}).reset_index(drop=True)


def _patients(rows: pd.DataFrame) -> list[str]:
    return [f"{d}/{p}" for d, p in zip(rows["dataset"], rows["patient"], strict=True)]


def _scans(rows: pd.DataFrame) -> list[str]:
    return [f"{d}/{s}" for d, s in zip(rows["dataset"], rows["scan"], strict=True)]


def benchmark(
    workspace: Workspace,
    *,
    ratios: Sequence[float] = (0.5,),
    seeds: int = 3,
    steps: int = 300,
    classifier: str = "cnn3d",
    real: Path | None = None,
    synthetic: Path | None = None,
    run: str | None = None,
    seed: int = 0,
    device: str = "auto",
    train_options: Mapping[str, Any] | None = None,
    rerun: Sequence[str] = (),
) -> dict[str, Any]:
    """Train the arms, compare them on the real test split and write the report.

    Returns:
        The ``benchmark`` object of the command line.
    """
    from text2ct.evaluation.benchmark import run_benchmark
    from text2ct.reports import write_benchmark_report

    frame, _ = real_manifest(workspace, real)
    source = synthetic or workspace.newest("synthetic")
    info(f"benchmark with the synthetic volumes of {source}")
    made = manifests.read_manifest(source)
    result = run_benchmark(
        frame,
        made,
        workspace,
        run,
        ratios=ratios,
        seeds=range(seed, seed + seeds),
        steps=steps,
        classifier=classifier,
        device=device,
        cache_dir=workspace.path / "cache" / "volumes",
        train_options=train_options,
    )
    page = write_benchmark_report(
        result,
        workspace.run_dir("reports", result["run"]),
        volumes=list(_shown(made, workspace)),
        methods=_methods(result, frame),
        limitations=_limitations(frame, made),
        rerun=rerun or [_command(ratios, seeds, steps, classifier, seed)],
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
                "labels": [name for name in FINDINGS if row[name] == 1],
                "hu": volume.hu,
                "spacing_mm": volume.spacing_mm,
            }
        )
    return shown


def _methods(result: Mapping[str, Any], frame: pd.DataFrame) -> str:
    settings = result["settings"]
    test = frame[frame["split"] == "test"]
    patients = len(test[["dataset", "patient"]].drop_duplicates())
    return (
        f"Every arm trained the classifier {settings['classifier']} for {settings['steps']} steps of "
        f"{settings['batch_size']} volumes with {len(settings['seeds'])} seed(s); the checkpoint was chosen by macro "
        f"AUC on real validation patients. Arms are compared on {patients} real test patients, none of whom any arm, "
        "prompt or generator has seen. Reconstructions of a scan are averaged. Intervals (95%) join a bootstrap over "
        f"patients ({settings['n_bootstrap']} samples, paired between arms) with the spread between trainings; "
        "p-values follow Student's t with Welch-Satterthwaite degrees of freedom, corrected by Holm's method over "
        "the findings of a comparison and over the comparisons."
    )


def _limitations(frame: pd.DataFrame, made: pd.DataFrame) -> list[str]:
    lines = []
    if (frame["source"] == "simulated").any():
        lines.append(
            "The cohort is simulated: neither a gain nor a loss here says anything about patients. It shows that the "
            "pipeline runs and what its statistics can tell."
        )
    lines.extend(
        f"The pack {pack} has learnt from patients that the classifiers have not seen: a gain may be its knowledge, "
        "transferred, and not information that was in your training data."
        for pack in sorted(set(made["pack"]))
    )
    test = frame[frame["split"] == "test"]
    patients = len(test[["dataset", "patient"]].drop_duplicates())
    lines.append(
        f"The test set has {patients} patients; differences smaller than the intervals cannot be seen with it."
    )
    return lines


def _command(ratios: Sequence[float], seeds: int, steps: int, classifier: str, seed: int) -> str:
    listed = ",".join(f"{ratio:g}" for ratio in ratios)
    return (
        f"text2ct benchmark --ratios {listed} --seeds {seeds} --steps {steps} --classifier {classifier} --seed {seed}"
    )
