"""What `text2ct evaluate` takes, with nothing in its caches: seconds and peak memory of all metrics.

    python benchmarks/evaluate.py --workspace WS --synthetic WS/synthetic/guidance-simulated-64/3/manifest.csv \
        --classifier WS/classifiers/RUN --volumes 300

The workspace's real manifest gives as many test, training and validation scans; the synthetic manifest as many volumes
of the test reports. A new workspace in a temporary folder makes every cache cold.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from text2ct import manifests
from text2ct.files import write_json
from text2ct.manifests import Workspace

_ORIGIN = "origin"


def first_scans(frame: pd.DataFrame, split: str, most: int) -> pd.DataFrame:
    """One reconstruction of each of the first scans of a split."""
    rows = frame[(frame["split"] == split) & (frame["path"] != "")]
    return rows.drop_duplicates(["dataset", "scan"]).head(most)


def prepared(origin: Workspace, synthetic: Path, most: int, folder: Path) -> list[str]:
    """A workspace with the same roots and empty caches, and the options that name the sets."""
    roots = {name: str(path) for name, path in origin.roots.items() if name != "workspace"}
    write_json(folder / "workspace.json", {"roots": roots | {_ORIGIN: str(origin.path)}})
    real = manifests.read_manifest(origin.run_dir("real") / "manifest.csv")
    made = manifests.read_manifest(synthetic).head(most)
    asked = real[real["volume"].isin(made["prompt_volume"])]
    own = pd.concat([asked, real[real["split"] == "test"]]).drop_duplicates(["dataset", "scan"]).head(most)
    parts = [own, *(first_scans(real, split, most) for split in ("train", "validation"))]
    words = []
    for name, frame in (("real", pd.concat(parts)), ("synthetic", made)):
        moved = frame.assign(root=frame["root"].replace("workspace", _ORIGIN)).reset_index(drop=True)
        manifests.write_manifest(moved, folder / f"{name}.csv")
        words += [f"--{name}", str(folder / f"{name}.csv")]
    return words


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--synthetic", type=Path, required=True, help="manifest of volumes of test reports")
    parser.add_argument("--classifier", type=Path, required=True)
    parser.add_argument("--volumes", type=int, default=300, help="of each set")
    parser.add_argument("--out", type=Path, help="keep the report here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = prepared(Workspace.open(given.workspace), given.synthetic, given.volumes, folder)
        words += ["--classifier", str(given.classifier.resolve()), "--workspace", str(folder), "--json"]
        begun = time.perf_counter()
        program = "from text2ct.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, "evaluate", *words], stdout=subprocess.PIPE, text=True, check=True
        )
        seconds = time.perf_counter() - begun
        found = json.loads(done.stdout)
        if given.out is not None:
            shutil.copytree(Path(found["report"]).parent, given.out, dirs_exist_ok=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    measured = {key: found[key] for key in ("n_real", "n_synthetic", "pairs")}
    print(json.dumps(measured | {"seconds": round(seconds, 1), "peak_gb": round(peak, 2)}))


if __name__ == "__main__":
    main()
