"""Broken volumes among whole ones: every command counts and names them, goes on, and stops with ``--strict``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from benchmarks.soak.children import forked, load_modules
from benchmarks.soak.kills import begin, in_folder, prepare
from benchmarks.soak.outcome import Outcome

_GATE = {"tests": ["geometry", "intensity"], "size": [16, 16, 16], "spacing_mm": [18, 18, 18]}
_SPACE = ["--workspace", "work/w"]
# What each command finds broken: so many volumes, of which it names this part.
CASES: dict[str, tuple[list[str], int]] = {
    "preprocess": (["preprocess", "work/cohort/dataset", "--out", "work/pre", "--grid", "20", "--spacing", "14"], 4),
    "core encode": (["core", "encode", "--work", "work/e", "--model", "work/tiny"], 2),
    "gate": (["gate", "--config", "work/gate.json"], 3),
    "evaluate": (
        ["evaluate", "--metrics", "fidelity", "--grid", "32", "--spacing", "10", "--bootstrap", "0", "--split",
         "validation"],
        2,
    ),
}  # fmt: skip


def quarantine() -> list[Outcome]:
    """Two training volumes, one of validation, one of test and a synthetic one cut short."""
    load_modules()
    with in_folder() as base:
        prepare(base)
        # The cohort goes into the workspace's folder, so that each command meets its own broken files.
        shutil.copytree(base / "cohort", base / "start" / "cohort")
        shutil.rmtree(base / "start" / "w")
        begin(base)
        log = base / "log"
        for words in (
            ["report", "work/cohort", *_SPACE],
            [
                "synthesize", "--prompts", "work/w/real/manifest.csv", "--count", "6", "--batch-size", "2", "--steps",
                "2", "--model", "work/tiny", "--run", "a", *_SPACE,
            ],
        ):  # fmt: skip
            code, _ = forked(words, log)
            if code:
                raise RuntimeError(log.read_text()[-1000:])
        shutil.rmtree(base / "start")
        (base / "work").rename(base / "start")
        return [_case(base, name) for name in CASES]


def _case(base: Path, name: str) -> Outcome:
    words, expected = CASES[name]
    found, log = Outcome(f"quarantine: {name}"), base / "log"
    for strict in (False, True):
        work = begin(base)
        (work / "gate.json").write_text(json.dumps(_GATE))
        broken = _break(work)
        log.unlink(missing_ok=True)
        code, _ = forked([*words, *_SPACE, *(["--strict"] if strict else [])], log)
        said = log.read_text()
        found.expect(
            code == int(strict), f"{'with' if strict else 'without'} --strict it ended with {code}: {said[-500:]}"
        )
        if strict:
            continue
        named = sum(path.name in said for path in broken)
        found.expect(named >= expected, f"{named} of {expected} broken volumes are named: {said[-500:]}")
        found.expect("quarantined" in said, f"nothing is said of a quarantine: {said[-300:]}")
        found.figures = {"named": named}
    return found


def _break(work: Path) -> list[Path]:
    """Cut some volumes short: two training ones, of validation and test one each, and a synthetic one."""
    import pandas as pd

    rows = pd.read_csv(work / "w" / "real" / "manifest.csv").drop_duplicates("scan")
    chosen = [*rows[rows["split"] == "train"]["volume"][:2]]
    chosen += [rows[rows["split"] == split]["volume"].iloc[0] for split in ("validation", "test")]
    files = [next((work / "cohort").rglob(name)) for name in chosen]
    files.append(sorted((work / "w" / "synthetic" / "a" / "volumes").iterdir())[1])
    for path in files:
        path.write_bytes(path.read_bytes()[:100])
    return files
