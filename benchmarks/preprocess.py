"""`text2ct preprocess` against the plain way, and a zarr cache against .nii.gz, side by side.

    python benchmarks/preprocess.py --work build/preprocess --json build/preprocess.json

The plain way is that of the released Text2CT script: `get_fdata` in float64, the whole volume turned to RAS and
clipped, `torch.nn.functional.interpolate` (trilinear) to the spacing and again to the grid, in one thread, int16 to
.nii.gz by nibabel. Ours is `--fit resize`, which has the same geometry; both outputs must agree to 1 HU.

Sources are simulated chests, enlarged to 512x512x300 with noise, and .nii.gz as foreign software writes it. Each
way runs in a process of its own on the same volumes, in turns; times leave out the start of Python and its imports.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VOXELS, SPACING_MM = (512, 512, 300), (0.7, 0.7, 1.0)
GRIDS: dict[str, tuple[tuple[int, int, int], tuple[float, float, float]]] = {
    "64x64x64, 5 mm": ((64, 64, 64), (5.0, 5.0, 5.0)),
    "512x512x128, 0.75x0.75x3 mm": ((512, 512, 128), (0.75, 0.75, 3.0)),
}
WAYS = ("plain, .nii.gz", "ours, .nii.gz", "ours, .zarr", "ours, .nii.gz, all cores", "ours, .zarr, all cores")
# Reading is timed so often, and the shortest time is taken.
READS = 7


def make_sources(folder: Path, count: int) -> list[Path]:
    """CT-RATE-like files: LPS, int16, noise of 25 HU; what is there is kept."""
    import nibabel as nib
    from scipy.ndimage import zoom

    from text2ct.diffusion.training.cases import simulated_case
    from text2ct.files import atomic_path
    from text2ct.simulation.patients import PACK_PATIENTS

    paths = [folder / f"train_{number + 1}_a_1.nii.gz" for number in range(count)]
    small = (160, 160, 128)
    for number, path in enumerate(paths):
        if path.exists():
            continue
        extent = [n * mm for n, mm in zip(VOXELS, SPACING_MM, strict=True)]
        coarse = tuple(mm / n for mm, n in zip(extent, small, strict=True))
        hu, _ = simulated_case(PACK_PATIENTS.start + 9 * 10**6 + number, small, coarse)  # type: ignore[arg-type]
        fine = zoom(hu.astype(np.float32), [n / m for n, m in zip(VOXELS, small, strict=True)], order=1)
        fine += 25 * np.random.default_rng(number).standard_normal(fine.shape, dtype=np.float32)
        stored = np.rint(np.clip(fine, -1024, 3071)).astype(np.int16)[::-1, ::-1]
        image = nib.Nifti1Image(stored, np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0]))
        with atomic_path(path) as temporary:
            nib.save(image, temporary)
    return paths


def plain(paths: list[Path], out: Path, size: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> None:
    """The released script's way, one volume after another."""
    import nibabel as nib
    import torch

    torch.set_num_threads(1)
    out.mkdir(parents=True)
    for path in paths:
        image = nib.as_closest_canonical(nib.load(path))
        hu = np.clip(image.get_fdata(dtype=np.float64), -1000, 1000).transpose(2, 1, 0)
        own_mm = np.linalg.norm(image.affine[:3, :3], axis=0)
        middle = [round(n * mm / wanted) for n, mm, wanted in zip(image.shape, own_mm, spacing_mm, strict=True)]
        volume = torch.from_numpy(np.ascontiguousarray(hu))[None, None]
        for shape in (middle, size):
            volume = torch.nn.functional.interpolate(volume, size=shape[::-1], mode="trilinear", align_corners=False)
        voxels = np.rint(volume[0, 0].numpy()).astype(np.int16).transpose(2, 1, 0)
        nib.save(nib.Nifti1Image(voxels, np.diag([*spacing_mm, 1.0])), out / path.name)


def ours(paths: list[Path], out: Path, grid: str, format: str, workers: int) -> None:
    """What `text2ct preprocess --fit resize` calls."""
    from text2ct.engines import Local
    from text2ct.volumes import preprocess

    size, spacing_mm = GRIDS[grid]
    done = preprocess(paths, out, size=size, spacing_mm=spacing_mm, fit="resize", format=format, engine=Local(workers))
    assert len(done.manifest) == len(paths), done.quarantine["reasons"].tolist()


def child(way: str, grid: str, paths: list[Path], out: Path) -> None:
    """One way over all volumes; prints seconds, and seconds of the processor."""
    import isal.igzip
    import nibabel
    import numcodecs.blosc
    import scipy.sparse
    import torch
    import zarr

    import text2ct.manifests
    import text2ct.volumes
    from text2ct.workers import available_cores

    del isal, nibabel, numcodecs, scipy, torch, zarr, text2ct
    begun, used = time.perf_counter(), os.times()
    if way == WAYS[0]:
        plain(paths, out, *GRIDS[grid])
    else:
        workers = available_cores() if way.endswith("all cores") else 1
        ours(paths, out, grid, "zarr" if ".zarr" in way else "nii.gz", workers)
    seconds, now = time.perf_counter() - begun, os.times()
    processor = sum(now[:4]) - sum(used[:4])
    print(json.dumps({"seconds": seconds, "processor": processor}))


def run_child(way: str, grid: str, paths: list[Path], out: Path) -> dict[str, float]:
    """One way in a process of its own; with the peak of its memory, and that of its workers, in bytes."""
    command = [sys.executable, __file__, "--child", way, grid, str(out), *map(str, paths)]
    peaks: dict[int, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            for number in (process.pid, *children(process.pid)):
                peaks[number] = max(peaks.get(number, 0), peak(number))
            time.sleep(0.02)
        assert process.stdout is not None
        answer = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{way} failed on {grid}")
    return json.loads(answer.splitlines()[-1]) | {"peak": sum(peaks.values())}  # type: ignore[no-any-return]


def children(number: int) -> list[int]:
    try:
        return [
            int(word) for file in Path(f"/proc/{number}/task").glob("*/children") for word in file.read_text().split()
        ]
    except OSError:
        return []


def peak(number: int) -> int:
    """The most memory that a process has had so far, of Linux; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def difference(first: Path, second: Path) -> float:
    """The largest difference of two folders' volumes, in HU."""
    from text2ct.volumes import find_volumes, read
    from text2ct.volumes.readers import find_reader

    theirs = {path.name.split(".")[0]: path for path in first.glob("*.nii.gz")}
    largest = 0.0
    for path in find_volumes([second / "volumes"]):
        other = theirs.pop(path.name.split(".")[0])
        voxels = find_reader(other).load(other).voxels
        largest = max(largest, float(np.abs(read(path).hu - voxels).max()))
    assert not theirs, f"{second} lacks {sorted(theirs)}"
    return largest


def throughput(sources: list[Path], repeats: int) -> dict[str, Any]:
    """Every way on every grid, in turns; medians over the turns."""
    results: dict[str, Any] = {}
    for grid in GRIDS:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        differences = dict.fromkeys(WAYS[1:], 0.0)
        for _ in range(repeats):
            with tempfile.TemporaryDirectory(dir=sources[0].parent) as temporary:
                for number, way in enumerate(WAYS):
                    runs[way].append(run_child(way, grid, sources, Path(temporary) / str(number)))
                    if number:
                        largest = difference(Path(temporary) / "0", Path(temporary) / str(number))
                        differences[way] = max(differences[way], largest)
        results[grid] = {
            way: {
                "volumes_per_minute": 60 * len(sources) / statistics.median(run["seconds"] for run in of),
                "times_plain": statistics.median(
                    base["seconds"] / run["seconds"] for base, run in zip(runs[WAYS[0]], of, strict=True)
                ),
                "processor_seconds_per_volume": statistics.median(run["processor"] for run in of) / len(sources),
                "peak_bytes": max(run["peak"] for run in of),
                "largest_difference_hu": differences.get(way),
            }
            for way, of in runs.items()
        }
    return results


def reading(source: Path) -> dict[str, Any]:
    """Shortest seconds to read a volume of each grid, from .nii.gz and .zarr, in turns."""
    import nibabel as nib

    from text2ct.volumes import open_volume, read, to_grid, write
    from text2ct.volumes.readers import find_reader

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=source.parent) as temporary:
        for grid, (size, spacing_mm) in GRIDS.items():
            volume = to_grid(open_volume(source), size, spacing_mm, "resize")
            gz, cache = Path(temporary) / "ct.nii.gz", Path(temporary) / "ct.zarr"
            for path in (gz, cache):
                write(volume, path)
            ways: dict[str, Callable[[], Any]] = {
                "nibabel get_fdata, .nii.gz": lambda gz=gz: nib.load(gz).get_fdata(),
                "nibabel int16, .nii.gz": lambda gz=gz: np.asanyarray(nib.load(gz).dataobj),
                "ours int16, .nii.gz": lambda gz=gz: find_reader(gz).load(gz).voxels,
                "ours int16, .zarr": lambda cache=cache: find_reader(cache).load(cache).voxels,
                "ours HU, .nii.gz": lambda gz=gz: read(gz).hu,
                "ours HU, .zarr": lambda cache=cache: read(cache).hu,
            }
            seconds: dict[str, float] = {}
            for _ in range(READS):
                for way, once in ways.items():
                    begun = time.perf_counter()
                    once()
                    seconds[way] = min(seconds.get(way, np.inf), time.perf_counter() - begun)
            np.testing.assert_array_equal(read(gz).hu, read(cache).hu)
            results[grid] = {
                "seconds": seconds,
                "bytes": {".nii.gz": gz.stat().st_size, ".zarr": cache.stat().st_size},
            }
    return results


def tables(result: dict[str, Any]) -> str:
    lines = [
        "| grid | way | volumes a minute | times plain | processor, s a volume | peak | largest difference |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for grid, ways in result["throughput"].items():
        for way, row in ways.items():
            apart = "" if row["largest_difference_hu"] is None else f"{row['largest_difference_hu']:g} HU"
            lines.append(
                f"| {grid} | {way} | {row['volumes_per_minute']:.0f} | {row['times_plain']:.1f} | "
                f"{row['processor_seconds_per_volume']:.2f} | {row['peak_bytes'] / 1e9:.2f} GB | {apart} |"
            )
    lines += ["", "| volume | read | ms | times `.zarr` as int16 | file |", "|---|---|---:|---:|---:|"]
    for grid, row in result["reading"].items():
        fastest = row["seconds"]["ours int16, .zarr"]
        for way, seconds in row["seconds"].items():
            size = row["bytes"][way.rpartition(" ")[2]]
            lines.append(f"| {grid} | {way} | {seconds * 1e3:.1f} | {seconds / fastest:.1f} | {size / 1e6:.2f} MB |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, required=True, help="folder of the sources, 100 MB each")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--count", type=int, default=6, help="volumes")
    parser.add_argument("--repeats", type=int, default=3, help="turns of all ways")
    asked = parser.parse_args()
    sources = make_sources(asked.work, asked.count)
    result = {"volumes": asked.count, "reading": reading(sources[0]), "throughput": throughput(sources, asked.repeats)}
    print(tables(result))
    print("\n" + json.dumps(result))
    if asked.json:
        from text2ct.files import write_json

        write_json(asked.json, result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], [Path(path) for path in sys.argv[5:]], Path(sys.argv[4]))
    else:
        main()
