"""The model behind docs/scale.md, and how `benchmarks/scale.py` counts the speed of workers."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    """A script of ``benchmarks``, which imports what lies beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return importlib.import_module(name)


projection, scale = load("projection"), load("scale")
positive = st.floats(1e-3, 1e4)
costs = st.builds(
    projection.UnitCosts,
    **{name: positive for name in ("preprocess_s", "core_s", "gpu_s", "write_s", "gate_s", "evaluate_s")},
    **{name: st.floats(1e3, 1e9) for name in ("source_bytes", "real_bytes", "synthetic_bytes")},
)
where = st.sampled_from(projection.machines(2))


@given(costs, where, st.integers(1, 10**6))
def test_hours_and_disk_grow_with_the_volumes(unit, machine, volumes) -> None:
    one, many = (projection.project(unit, machine, n) for n in (1, volumes))
    assert many.hours == pytest.approx({stage: volumes * hours for stage, hours in one.hours.items()})
    assert many.disk_bytes == pytest.approx(volumes * one.disk_bytes)
    assert many.bottleneck == one.bottleneck


@given(costs, st.integers(1, 10**6))
def test_more_of_a_machine_is_never_slower(unit, volumes) -> None:
    core, cores, card, cards = (projection.project(unit, one, volumes) for one in projection.machines(2))
    for less, more in ((core, cores), (card, cards)):
        assert all(more.hours[stage] <= less.hours[stage] for stage in projection.STAGES)
        assert more.total_hours <= less.total_hours
        assert more.write_bytes_per_s >= less.write_bytes_per_s
    assert cards.hours["files"] == card.hours["files"]  # all share one file system


@given(costs, where)
def test_the_bottleneck_is_the_longest_stage_and_moves_to_the_file_system(unit, machine) -> None:
    found = projection.project(unit, machine, 1000)
    assert found.hours[found.bottleneck] == max(found.hours.values())
    assert found.total_hours == pytest.approx(sum(found.hours.values()))
    slow = replace(machine, bytes_per_s=unit.moved_bytes / (10 * sum(found.hours.values()) * 3600))
    assert projection.project(unit, slow, 1000).bottleneck == "files"


def test_the_published_run_is_as_published() -> None:
    """Its work at its own speed takes its time; a guided volume has twice the evaluations."""
    work = projection.STEPS.value * projection.UNET_TFLOP.value + projection.DECODE_TFLOP.value
    assert projection.small_on_gpu_s(work) == pytest.approx(11.0)
    assert projection.large_on_gpu_s() == pytest.approx(16.0)
    assert projection.large_on_core_s(2.0) == pytest.approx(projection.large_on_core_s(1.0) / 2)


def test_tables_have_a_row_for_each_machine_and_grid() -> None:
    unit = projection.UnitCosts(1, 2, 0.1, 0.01, 0.2, 0.3, 1e8, 4e5, 3e5)
    table = projection.projection_table({"a": unit, "b": unit}, projection.machines(2)).splitlines()
    assert len(table) == 2 + 2 * (len(projection.machines(2)) + 1)
    assert len({line.count("|") for line in table}) == 1
    assert all(one.source and one.what in projection.figures_table() for one in projection.FIGURES)


def test_a_workers_first_job_is_its_start() -> None:
    """Two workers of a volume a second each, one of which started late: 120 a minute, however long the start."""
    late = 30.0
    stamps = [scale.Stamp("a", t, t + 1, 0.5, 1) for t in range(40)]
    stamps += [scale.Stamp("b", late + t, late + t + 1, 0.5, 1) for t in range(10)]
    found = scale.rate(stamps, called=-5.0)
    assert found == pytest.approx({"volumes_per_minute": 120.0, "warm_after_s": late + 6, "processor_s": 0.5})
    with pytest.raises(ValueError, match="more --volumes"):
        scale.rate(stamps[:1], called=0.0)


def twice(job: int) -> list[int]:
    return [job, job]


def test_a_watched_engine_gives_what_the_engine_gives() -> None:
    from text2ct.engines import LOCAL

    watched = scale.Watched(LOCAL)
    assert list(watched.map(twice, [1, 2, 3])) == [[1, 1], [2, 2], [3, 3]]
    assert [stamp.volumes for stamp in watched.stamps] == [2, 2, 2]
    assert all(one.begun <= one.ended for one in watched.stamps)
