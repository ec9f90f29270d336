"""Thousands of small volumes through every command, in one process whose memory and open files are watched."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.soak.children import handles, load_modules, memory_mb
from benchmarks.soak.outcome import Outcome

# Patients of a round: about a hundred real volumes, and half as many synthetic ones.
PATIENTS, SYNTHETIC = 40, 50
# Memory may grow by this share in the last half.
MOST_GROWTH = 0.05
_GATE = {"tests": ["geometry", "intensity"], "size": [16, 16, 16], "spacing_mm": [18, 18, 18]}


def pipeline(volumes: int, patients: int = PATIENTS, synthetic: int = SYNTHETIC) -> list[Outcome]:
    """Rounds of all commands until so many volumes have gone through."""
    load_modules()
    from text2ct.diffusion import init_pack

    found = Outcome("soak of all commands")
    memory: list[float] = []
    files: list[int] = []
    begun, done = time.monotonic(), 0
    base = Path(tempfile.mkdtemp(prefix="soak-pipeline-"))
    init_pack(base / "tiny")
    (base / "gate.json").write_text(json.dumps(_GATE))
    while done < volumes:
        folder = base / "round"
        shutil.rmtree(folder, ignore_errors=True)
        for words in commands(folder, base, len(memory), patients, synthetic):
            code, said = in_this_process(words)
            found.expect(code == 0, f"round {len(memory)}: {words[0]} ended with {code}: {said[-300:]}")
        cohort, run = folder / "cohort", folder / "w" / "synthetic" / "a"
        made = 0 if found.problems else sum(1 for part in (cohort, run) for _ in part.rglob("*.nii.gz"))
        if not made:
            break
        done += made
        gc.collect()
        memory.append(memory_mb())
        files.append(handles())
    shutil.rmtree(base, ignore_errors=True)
    found.figures = {"volumes": done, "rounds": len(memory), "minutes": round((time.monotonic() - begun) / 60, 1)}
    if len(memory) >= 2:
        growth, half = _growth(memory), files[len(files) // 2]
        found.figures |= {"memory (MB)": f"{memory[len(memory) // 2]:.0f} at half, {memory[-1]:.0f} at the end"}
        found.figures |= {"growth in the last half": f"{growth:.1%}", "open files": f"{half}, {files[-1]}"}
        if len(memory) >= 8:  # before, modules and buffers are still being loaded
            found.expect(growth < MOST_GROWTH, f"memory grew by {growth:.1%} in the last half: {memory}")
            found.expect(files[-1] <= half, f"open files grew from {half} to {files[-1]}")
    return [found]


def _growth(memory: list[float]) -> float:
    """The end against the middle, each as the median of three rounds, since the allocator moves both."""
    middle = len(memory) // 2
    before, after = sorted(memory[max(0, middle - 1) : middle + 2]), sorted(memory[-3:])
    return after[len(after) // 2] / before[len(before) // 2] - 1


def commands(folder: Path, base: Path, number: int, patients: int, synthetic: int) -> list[list[str]]:
    """The command lines of a round."""
    space, cohort = ["--workspace", str(folder / "w")], str(folder / "cohort")
    grid = ["--grid", "16", "--spacing", "18"]
    return [
        [
            "simulate", "--patients", str(patients), "--grid", "24", "--spacing", "12", "--valid-fraction", "0.6",
            "--workers", "1", "--seed", str(number), "--out", cohort, *space,
        ],
        ["report", cohort, *space],
        [
            "preprocess", f"{folder}/w/real/manifest.csv", "--out", f"{folder}/pre", "--workers", "1", "--grid", "20",
            "--spacing", "14", *space,
        ],
        [
            "synthesize", "--prompts", f"{folder}/w/real/manifest.csv", "--count", str(synthetic), "--model",
            str(base / "tiny"), "--steps", "2", "--batch-size", "5", "--run", "a", *space,
        ],
        ["gate", "--config", str(base / "gate.json"), *space],
        ["mix", "--ratio", "0.5", "--synthetic", f"{folder}/w/synthetic/a", *space],
        ["train", *grid, "--steps", "4", "--batch-size", "4", "--run", "t", *space],
        ["score", "--bootstrap", "40", *space],
        ["evaluate", "--metrics", "fidelity", "--grid", "32", "--spacing", "10", "--bootstrap", "0", *space],
    ]  # fmt: skip


def in_this_process(words: list[str]) -> tuple[int, str]:
    """Call a command here: its exit code, and what it said."""
    import click

    from text2ct.cli import app

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = app(words, standalone_mode=False)
        except click.ClickException as error:
            return 2, error.format_message()
        except Exception as error:
            return 70, f"{type(error).__name__}: {error}"
    return int(code or 0), said.getvalue()
