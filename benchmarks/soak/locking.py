"""Two commands in one workspace at once: what tests/test_locks.py tests, as a row of the report."""

from __future__ import annotations

import re
import subprocess
import sys

from benchmarks.soak.children import REPOSITORY, environment
from benchmarks.soak.outcome import Outcome


def locking() -> list[Outcome]:
    """Run those tests."""
    words = [sys.executable, "-m", "pytest", "-q", "tests/test_locks.py"]
    done = subprocess.run(words, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    found = Outcome("two commands at once (tests/test_locks.py)")
    passed = re.search(r"(\d+) passed", done.stdout)
    found.tried = int(passed[1]) if passed else max(1, done.stdout.count("."))
    if done.returncode:
        found.problems.append(done.stdout[-500:])
    return [found]
