"""Run the scenarios, print a table, and write what was found as JSON; the exit code is 1 where something went wrong."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks.soak.bombs import QUICK, bombs
from benchmarks.soak.children import THREADS
from benchmarks.soak.cluster import cluster
from benchmarks.soak.disks import disks
from benchmarks.soak.fuzz import QUICK_FORMATS, fuzz
from benchmarks.soak.kills import COMMANDS, QUICK_COMMANDS, kills
from benchmarks.soak.locking import locking
from benchmarks.soak.outcome import Outcome, table
from benchmarks.soak.pipeline import pipeline
from benchmarks.soak.quarantine import quarantine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="a scenario; again for more")
    parser.add_argument("--rounds", type=int, default=20, help="kills of each command")
    parser.add_argument("--files", type=int, default=10_000, help="broken files, in all")
    parser.add_argument("--volumes", type=int, default=2_000, help="volumes that go through all commands")
    parser.add_argument("--patients", type=int, default=40, help="simulated patients of each round of commands")
    parser.add_argument("--seed", type=int, default=0, help="decides moments and damages")
    parser.add_argument("--quick", action="store_true", help="some cases of each scenario, as in `make test`")
    parser.add_argument("--out", type=Path, help="JSON file of the outcomes")
    asked = parser.parse_args()
    os.environ.update(THREADS)
    scenarios: dict[str, Callable[[], list[Outcome]]] = {
        "kills": lambda: kills(asked.rounds, asked.seed, QUICK_COMMANDS if asked.quick else tuple(COMMANDS)),
        "cluster": cluster,
        "disks": lambda: disks(asked.quick),
        "locks": locking,
        "fuzz": lambda: fuzz(asked.files, asked.seed, QUICK_FORMATS if asked.quick else ()),
        "bombs": lambda: bombs(QUICK if asked.quick else None),
        "quarantine": quarantine,
        "pipeline": lambda: pipeline(asked.volumes, asked.patients),
    }
    unknown = set(asked.only) - scenarios.keys()
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: expected {', '.join(scenarios)}")
    outcomes: list[Outcome] = []
    for name in asked.only or scenarios:
        begun = time.monotonic()
        outcomes += (found := _apart(scenarios[name]))
        print(
            f"{name}: {time.monotonic() - begun:.0f} s, {sum(len(one.problems) for one in found)} problems",
            file=sys.stderr,
        )
    print(table(outcomes))
    for one in outcomes:
        for problem in one.problems:
            print(f"{one.name}: {problem}", file=sys.stderr)
    if asked.out:
        machine = {"machine": platform.platform(), "cores": os.cpu_count(), "seed": asked.seed}
        asked.out.write_text(json.dumps(machine | {"outcomes": [one.as_json() for one in outcomes]}, indent=2) + "\n")
    return int(any(one.problems for one in outcomes))


def _apart(scenario: Callable[[], list[Outcome]]) -> list[Outcome]:
    """A scenario in a process of its own: forks are taken of one that has not computed anything yet."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            found = [one.as_json() for one in scenario()]
            with os.fdopen(writing, "w") as stream:
                json.dump(found, stream)
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    _, status = os.waitpid(pid, 0)
    if not said:
        return [Outcome("scenario", problems=[f"it ended with {os.waitstatus_to_exitcode(status)}"])]
    return [Outcome(**one) for one in json.loads(said)]


if __name__ == "__main__":
    sys.exit(main())
