"""Throughput of one and two workers, here and on Ray, and what it makes of many volumes.

    python benchmarks/scale.py --json build/scale.json

`preprocess` (512x512x300 to 64^3) and `synthesize` (the bundled pack) on the local engine with 1 and 2 processes and on
Ray with 1 and 2 actors, in turns, one thread a worker, one volume a job. A worker is warm after its first job, in which
it imports and opens what it needs: volumes a minute are of what comes after, summed over workers; the time until all
are warm stands beside them, with Ray's own start. All four must write the same bytes. Generation has few steps here, so
that workers and files weigh more than they do in earnest.

Then what one volume costs a core, in processor time, which other work on the machine changes little, and from that the
tables of docs/scale.md; `projection.py` is the model, with the published figures that it takes for GPUs. The gate is
timed without its classifier and without 3D CLIP, `evaluate` by the features of its fidelity and alignment.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from projection import (
    FILE_SYSTEM,
    UnitCosts,
    costs_table,
    figures_table,
    large_on_core_s,
    large_on_gpu_s,
    machines,
    projection_table,
    small_on_gpu_s,
)

ENGINES = (("local", 1), ("local", 2), ("ray", 1), ("ray", 2))
SMALL, LARGE = "64x64x64", "512x512x128"
GRIDS = {SMALL: ((64, 64, 64), (5.0, 5.0, 5.0)), LARGE: ((512, 512, 128), (0.75, 0.75, 3.0))}
PATIENTS = 30
"""Simulated for the gate and the evaluation: few, since only the cost of a volume is asked for."""


class Stamp(NamedTuple):
    """A job: whose, from when to when (seconds of one machine's clock), the processor's seconds, and its volumes."""

    worker: str
    begun: float
    ended: float
    processor: float
    volumes: int


class Stamped:
    """A task that notes when it is done; its results are lists of one entry a volume."""

    def __init__(self, task: Callable[[Any], Sequence[Any]]) -> None:
        self._task = task

    def __call__(self, job: Any) -> tuple[Sequence[Any], Stamp]:
        begun, used = time.time(), time.process_time()
        result = self._task(job)
        spent = time.process_time() - used
        return result, Stamp(str(os.getpid()), begun, time.time(), spent, len(result))


@dataclass(frozen=True)
class Watched:
    """An engine whose jobs leave stamps."""

    engine: Any
    stamps: list[Stamp] = field(default_factory=list)

    @property
    def workers(self) -> int:
        return int(self.engine.workers)

    def map(self, task: Callable[[Any], Sequence[Any]], jobs: Sequence[Any]) -> Iterator[Sequence[Any]]:
        for result, stamp in self.engine.map(Stamped(task), jobs):
            self.stamps.append(stamp)
            yield result


def rate(stamps: Sequence[Stamp], called: float) -> dict[str, float]:
    """Volumes a minute of warm workers, and the seconds from ``called`` until all were warm.

    Raises:
        ValueError: A worker did one job only; more volumes are needed.
    """
    per_s, warm, processor, volumes = 0.0, called, 0.0, 0
    for worker in {one.worker for one in stamps}:
        first, *rest = sorted((one for one in stamps if one.worker == worker), key=lambda one: one.begun)
        if not rest:
            raise ValueError("a worker did one job only; give more --volumes")
        per_s += sum(one.volumes for one in rest) / (rest[-1].ended - first.ended)
        warm = max(warm, first.ended)
        processor += sum(one.processor for one in rest)
        volumes += sum(one.volumes for one in rest)
    return {"volumes_per_minute": 60 * per_s, "warm_after_s": warm - called, "processor_s": processor / volumes}


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    from text2ct.files import sha256_file

    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def throughput(work: Path, sources: list[Path], pack: Any, volumes: int, repeats: int, steps: int) -> dict[str, Any]:
    """Both commands on each engine, in turns; medians, where all have written the same bytes."""
    import pandas as pd

    from text2ct.augment import synthesize
    from text2ct.engines import EngineSettings
    from text2ct.manifests import Workspace
    from text2ct.volumes import preprocess

    linked = [work / f"train_{n + 1}_a_1.nii.gz" for n in range(volumes)]
    for n, path in enumerate(linked):
        path.hardlink_to(sources[n % len(sources)])
    requests = pd.DataFrame({"prompt": [f"Pleural effusion on the left, {n + 1} cm." for n in range(volumes)]})

    def converted(out: Path, engine: Any) -> None:
        done = preprocess(linked, out / "preprocessed", engine=engine)
        assert len(done.manifest) == volumes, done.quarantine["reasons"].tolist()

    def generated(out: Path, engine: Any) -> None:
        settings = {"batch_size": 1, "device": "cpu", "sampling": {"steps": steps}}
        synthesize(requests, pack=pack, workspace=Workspace(out), run="run", engine=engine, **settings)

    results = {}
    for command, call in (("preprocess", converted), ("synthesize", generated)):
        runs: dict[str, list[dict[str, float]]] = {}
        trees = []
        for turn in range(repeats):
            for name, workers in ENGINES:
                out = work / f"{command}-{turn}-{name}-{workers}"
                called = time.time()
                with EngineSettings(name, workers=workers).open() as engine:
                    watched = Watched(engine)
                    call(out, watched)
                runs.setdefault(f"{name}, {workers}", []).append(rate(watched.stamps, called))
                trees.append(tree(out))
        if any(one != trees[0] for one in trees):
            raise SystemExit(f"{command} wrote other bytes on another engine")
        results[command] = {
            engine: {key: statistics.median(run[key] for run in of) for key in of[0]} for engine, of in runs.items()
        }
    return results


def processor_s(work: Callable[[], Any]) -> float:
    """Seconds of the processor that a call takes, in this process."""
    used = time.process_time()
    work()
    return time.process_time() - used


def mean_size(paths: Sequence[Path]) -> float:
    """In bytes."""
    return statistics.fmean(path.stat().st_size for path in paths)


def matrix_tflops(size: int = 4096, times: int = 3) -> float:
    """Speed of a matrix product in one thread, of float32 or bfloat16, whichever is faster here; the best of a few."""
    import torch

    matrices = (torch.randn(size, size), torch.randn(size, size).bfloat16())
    shortest = min(processor_s(lambda one=one: torch.mm(one, one)) for one in matrices * times)
    return 2 * size**3 / shortest / 1e12


def unit_costs(work: Path, sources: list[Path], pack: Any) -> dict[str, UnitCosts]:
    """What one volume costs, by grid; GPUs, and generation of large volumes, as :mod:`projection` says."""
    from torch.utils.flop_counter import FlopCounterMode

    from text2ct import manifests, volumes, workflow
    from text2ct.augment import synthesize
    from text2ct.augment.gate.config import GateConfig
    from text2ct.augment.gate.judges import Judges
    from text2ct.evaluating.measures import Names, find_measures
    from text2ct.evaluation.generator import Settings, evaluate

    workspace = manifests.Workspace.open(work / "workspace")
    cohort = workflow.simulate(work / "cohort", PATIENTS)
    real = manifests.read(Path(cohort["root"]), workspace=workspace)
    prompts = real[["findings_text"]].rename(columns={"findings_text": "prompt"}).drop_duplicates().head(8)
    made_by = {"pack": pack, "workspace": workspace, "device": "cpu"}
    with FlopCounterMode(display=False) as counter:
        synthesize(prompts.head(1), run="one", batch_size=1, **made_by)
    generated = {}
    small_s = processor_s(lambda: generated.update(synthesize(prompts, run="some", **made_by))) / len(prompts)
    made = manifests.read_manifest(Path(generated["manifest"]))
    run = Path(generated["manifest"]).parent
    drawn, sidecars = list((run / "volumes").iterdir()), list((run / "sidecars").iterdir())

    tests = GateConfig(tests=("geometry", "intensity", "memorised"))
    judges = Judges(real, workspace, tests, classifier=None, device="cpu")
    gate_s = processor_s(lambda: judges.judge(made)) / len(made)
    settings = Settings(metrics=("fidelity", "fid_3d", "alignment"), n_bootstrap=0)
    measures = find_measures(workspace, settings, Names(device="cpu"))
    compared = len(made) + int((real["split"] == "test").groupby(real["scan"]).any().sum())
    # The second time features are there: what differs is what they cost.
    first, second = (processor_s(lambda: evaluate(real, made, workspace, settings, measures)) for _ in range(2))
    evaluate_s = (first - second) / compared

    costs = {}
    for name, (size, spacing_mm) in GRIDS.items():
        out = work / f"units-{name}"
        convert_s = processor_s(lambda out=out, size=size, mm=spacing_mm: volumes.preprocess(
            sources, out, size=size, spacing_mm=mm
        )) / len(sources)  # fmt: skip
        files = list((out / "volumes").rglob("*.nii.gz"))
        held = volumes.read(files[0])
        write_s = processor_s(lambda held=held, out=out: volumes.write(held, out / "again.nii.gz"))
        regrid_s = 0.0
        if name == LARGE:
            regrid_s = processor_s(lambda path=files[0]: volumes.to_grid(volumes.read(path), *GRIDS[SMALL], "crop-pad"))
        records = list((out / "records").rglob("*.json"))
        costs[name] = UnitCosts(
            preprocess_s=convert_s,
            core_s=small_s - write_s if name == SMALL else large_on_core_s(matrix_tflops()),
            gpu_s=small_on_gpu_s(counter.get_total_flops() / 1e12) if name == SMALL else large_on_gpu_s(),
            write_s=write_s,
            gate_s=gate_s + regrid_s,
            evaluate_s=evaluate_s + regrid_s,
            source_bytes=mean_size(sources),
            real_bytes=mean_size(files) + mean_size(records),
            synthetic_bytes=mean_size(sidecars) + mean_size(drawn if name == SMALL else files),
        )
    return costs


def throughput_table(results: Mapping[str, Any]) -> str:
    lines = [
        "| command | engine, workers | volumes a minute | of local, 1 | processor, s a volume | warm after |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for command, engines in results.items():
        base = engines["local, 1"]["volumes_per_minute"]
        for engine, row in engines.items():
            cells = (f"{row['volumes_per_minute']:.0f}", f"{row['volumes_per_minute'] / base:.2f}")
            cells += (f"{row['processor_s']:.2f}", f"{row['warm_after_s']:.1f} s")
            lines.append(f"| {command} | {engine} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--volumes", type=int, default=6, help="of each command on each engine")
    parser.add_argument("--repeats", type=int, default=2, help="turns of all engines")
    parser.add_argument("--steps", type=int, default=3, help="of the sampler, in the throughput of synthesize")
    parser.add_argument("--file-system", type=float, default=FILE_SYSTEM, help="bytes a second, for the projection")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    asked = parser.parse_args()
    # Before torch and numpy are there, and for the workers.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    import torch
    from preprocess import make_sources

    from text2ct.compute import keep_freed_memory
    from text2ct.diffusion import load_pack
    from text2ct.files import write_json
    from text2ct.workers import available_cores

    torch.set_num_threads(1)
    keep_freed_memory()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="scale-") as temporary:
        work = Path(temporary)
        (work / "sources").mkdir()
        sources = make_sources(work / "sources", 2)
        pack = load_pack()
        costs = unit_costs(work, sources, pack)
        speeds = throughput(work, sources, pack, asked.volumes, asked.repeats, asked.steps)
    where = machines(available_cores(), asked.file_system)
    print(f"{asked.volumes} volumes, {asked.repeats} turns, {asked.steps} steps\n\n{throughput_table(speeds)}\n")
    print(f"{costs_table(costs)}\n\n{figures_table()}\n\n{projection_table(costs, where)}\n")
    result = {
        "volumes": asked.volumes,
        "repeats": asked.repeats,
        "steps": asked.steps,
        "seconds": time.perf_counter() - begun,
        "throughput": speeds,
        "unit_costs": {name: asdict(one) for name, one in costs.items()},
        "machines": [asdict(one) for one in where],
    }
    print(json.dumps(result))
    if asked.json:
        write_json(asked.json, result)


if __name__ == "__main__":
    main()
