"""Commands on Ray and in several processes: the same bytes and figures as in one process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest

from text2ct.augment import synthesize
from text2ct.classifiers.cache import VolumeCache
from text2ct.classifiers.config import Preprocessing
from text2ct.classifiers.dataset import make_table
from text2ct.engines import Engine, EngineSettings, Local
from text2ct.errors import UserError
from text2ct.evaluation.generator import Measures, evaluate
from text2ct.evaluation.generator.scorers import PackScorer
from text2ct.manifests import Workspace

from .benchmark_fakes import run as benchmark
from .evaluated_sets import CPU, SETTINGS, SIZE, Encoder

ray = pytest.importorskip("ray", reason="the extra cluster is not installed")


@pytest.fixture(scope="module")
def on_ray() -> Iterator[Engine]:
    for name in ("evaluated_sets", "benchmark_fakes"):  # workers cannot import what lies beside a test
        ray.cloudpickle.register_pickle_by_value(importlib.import_module(f".{name}", __package__))
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ExitStack() as held:
        try:
            engine = held.enter_context(EngineSettings("ray", workers=2, cpus_per_worker=0.5).open())
        except UserError as error:
            pytest.skip(f"Ray does not start on this machine: {error}")
        yield engine


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_volumes_are_the_same_wherever_they_are_made(on_ray: Engine, tiny_pack, tmp_path: Path) -> None:
    """Of a whole run and of one that goes on: batches, seeds, files and manifest."""
    requests = pd.DataFrame({"prompt": [f"Report {n}." for n in range(5)]})
    runs = {}
    for name, engine in (("here", Local(1)), ("processes", Local(2)), ("ray", on_ray)):
        workspace = Workspace(tmp_path / name)
        made = {"pack": tiny_pack.path, "workspace": workspace, "run": "r", "batch_size": 2, "device": "cpu"}
        result = synthesize(requests, engine=engine, **made)
        assert (result["volumes"], result["resumed"]) == (5, 0)
        whole = files(workspace.run_dir("synthetic", "r"))
        (workspace.run_dir("synthetic", "r") / "volumes" / sorted(whole)[-1].split("/")[-1]).unlink()
        assert synthesize(requests, engine=engine, **made)["resumed"] == 4
        assert files(workspace.run_dir("synthetic", "r")) == whole
        runs[name] = whole
    assert runs["here"] == runs["processes"] == runs["ray"]
    assert sum(name.endswith(".nii.gz") for name in runs["here"]) == 5


def test_an_evaluation_is_the_same(on_ray: Engine, sets, workspace, tiny_pack, tmp_path: Path) -> None:
    real, made = sets
    measures = {"encoder": Encoder(), "scorer": PackScorer(tiny_pack, CPU), "device": "cpu"}
    here = evaluate(real, made, workspace, SETTINGS, Measures(**measures))
    kept = {name: bytes_ for name, bytes_ in files(workspace.path / "cache").items() if name.startswith("features")}
    for path in sorted((workspace.path / "cache").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    there = evaluate(real, made, workspace, SETTINGS, Measures(engine=on_ray, **measures))
    assert there == here
    again = {name: bytes_ for name, bytes_ in files(workspace.path / "cache").items() if name.startswith("features")}
    assert again.keys() == kept.keys()


def test_what_cannot_be_read_is_said_of_all_at_once(on_ray: Engine, sets, workspace, tmp_path: Path) -> None:
    real, _ = sets
    for path in real["path"].iloc[:2]:
        (workspace.path / path).write_bytes(b"half")
    cache = VolumeCache(tmp_path / "cache", Preprocessing(size=(SIZE,) * 3, spacing_mm=(20.0,) * 3))
    messages = []
    for engine in (Local(1), on_ray):
        with pytest.raises(UserError, match="2 of 36 real volumes cannot be read") as refused:
            make_table(real, workspace, cache, "real", engine)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


def test_a_benchmark_is_the_same(on_ray: Engine, tmp_path: Path, real, synthetic, workspace) -> None:
    arms = ("real", "real+oversampled", "synthetic")
    here = benchmark(workspace, real, synthetic, arms=arms, seeds=(0, 1))
    for path in workspace.path.glob("classifiers/benchmark/*/done.json"):
        path.unlink()
    there = benchmark(workspace, real, synthetic, arms=arms, seeds=(0, 1), engine=on_ray)
    assert there == here
    with pytest.raises(UserError, match="add --engine ray"):
        benchmark(workspace, real, synthetic, arms=arms, engine=Local(2))
