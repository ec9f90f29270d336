"""Hours and disk for many volumes, from what one costs: the model behind docs/scale.md. Nothing is measured here.

As many real volumes are preprocessed as are generated; then every generated one is written, gated and evaluated. The
stages follow each other and each is spread evenly: over the cores, over the GPUs where there are any (a worker each,
which writes what it has generated), and all files pass one file system. Reports, trainings and start-ups are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

VOLUMES = (1_000, 10_000, 100_000)
STAGES = ("preprocess", "generate", "write", "gate", "evaluate", "files")
CORES_A_GPU = 8
"""As `--cpus-per-task` in docs/training.md; assumed."""
FILE_SYSTEM = 1e9
"""Bytes a second that all workers together read or write; assumed."""


class Figure(NamedTuple):
    """A number from elsewhere."""

    value: float
    what: str
    source: str


_MAISI = "github.com/NVIDIA-Medtech/NV-Generate-CTMR, docs/performance.md, maisi3d-rflow, 512x512x128 at 21.0 GB"
GPU_DENOISING_S = Figure(5.0, "A100 80G: 30 rectified flow steps without guidance, in seconds", _MAISI)
GPU_DECODING_S = Figure(6.0, "A100 80G: decoding, in seconds", _MAISI)
STEPS = Figure(30, "Euler steps, each with and without the condition", "Text2CT, arXiv 2506.00633")
UNET_TFLOP = Figure(5.26, "one evaluation at 512x512x128, in TFLOP", "counted by benchmarks/core.py, docs/speed.md")
DECODE_TFLOP = Figure(109.0, "one decode at 512x512x128, in TFLOP", "counted by benchmarks/core.py, docs/speed.md")
EFFICIENCY = Figure(
    0.88, "a CPU's speed at 512x512x128, of that of its matrix product", "measured by benchmarks/core.py, docs/speed.md"
)
FIGURES = (GPU_DENOISING_S, GPU_DECODING_S, STEPS, UNET_TFLOP, DECODE_TFLOP, EFFICIENCY)


def large_on_gpu_s() -> float:
    """Seconds that an A100 takes for a guided 512x512x128 volume: guidance doubles the evaluations."""
    return 2 * GPU_DENOISING_S.value + GPU_DECODING_S.value


def large_on_core_s(tflops: float) -> float:
    """The same on a core whose matrix product reaches ``tflops``."""
    work = 2 * STEPS.value * UNET_TFLOP.value + DECODE_TFLOP.value
    return work / (EFFICIENCY.value * tflops)


def small_on_gpu_s(tflop: float) -> float:
    """Seconds that an A100 takes for ``tflop`` at the speed of the published run.

    A lower bound at 64^3: small kernels reach that speed only in batches that fill the card.
    """
    published = STEPS.value * UNET_TFLOP.value + DECODE_TFLOP.value
    return tflop * (GPU_DENOISING_S.value + GPU_DECODING_S.value) / published


@dataclass(frozen=True)
class UnitCosts:
    """Of one volume: seconds of a core (or a GPU), and bytes.

    Attributes:
        preprocess_s: To bring a source to the grid and write it.
        core_s: To generate on one core.
        gpu_s: To generate on one GPU.
        write_s: To compress and write what was generated.
        gate_s: To judge, its own reading included.
        evaluate_s: To describe by the networks of ``evaluate``.
        source_bytes: A source, as it is downloaded.
        real_bytes: A preprocessed volume, with its record.
        synthetic_bytes: A generated one, with its sidecar.
    """

    preprocess_s: float
    core_s: float
    gpu_s: float
    write_s: float
    gate_s: float
    evaluate_s: float
    source_bytes: float
    real_bytes: float
    synthetic_bytes: float

    @property
    def moved_bytes(self) -> float:
        """Sources are read; real volumes written and read by `evaluate`; generated ones read by `gate` too."""
        return self.source_bytes + 2 * self.real_bytes + 3 * self.synthetic_bytes


@dataclass(frozen=True)
class Machine:
    """Where it runs.

    Attributes:
        name: In tables.
        cores: All of them.
        gpus: All of them; with 0 the cores generate.
        bytes_per_s: Of the file system.
    """

    name: str
    cores: int
    gpus: int = 0
    bytes_per_s: float = FILE_SYSTEM


def machines(cores: int, bytes_per_s: float = FILE_SYSTEM) -> tuple[Machine, ...]:
    """A core, this machine's ``cores``, an A100 and 64 of them."""
    return (
        Machine("1 core", 1, 0, bytes_per_s),
        *((Machine(f"{cores} cores", cores, 0, bytes_per_s),) if cores > 1 else ()),
        Machine("1 A100", CORES_A_GPU, 1, bytes_per_s),
        Machine("64 A100", 64 * CORES_A_GPU, 64, bytes_per_s),
    )


@dataclass(frozen=True)
class Projection:
    """What many volumes take.

    Attributes:
        hours: By stage, of :data:`STAGES`.
        disk_bytes: What the workspace holds in the end: preprocessed and generated volumes, without the sources.
        read_bytes_per_s: What the file system must give while preprocessing, so that no core waits.
        write_bytes_per_s: What it must take while generating, so that no worker waits.
    """

    hours: Mapping[str, float]
    disk_bytes: float
    read_bytes_per_s: float
    write_bytes_per_s: float

    @property
    def total_hours(self) -> float:
        """Of all stages, one after the other."""
        return sum(self.hours.values())

    @property
    def bottleneck(self) -> str:
        """The stage that takes longest."""
        return max(self.hours, key=self.hours.__getitem__)


def project(costs: UnitCosts, machine: Machine, volumes: int) -> Projection:
    """Spread ``volumes`` over a machine."""
    makers = machine.gpus or machine.cores
    generate_s = costs.gpu_s if machine.gpus else costs.core_s
    seconds = {
        "preprocess": costs.preprocess_s / machine.cores,
        "generate": generate_s / makers,
        "write": costs.write_s / makers,
        "gate": costs.gate_s / machine.cores,
        "evaluate": costs.evaluate_s / machine.cores,
        "files": costs.moved_bytes / machine.bytes_per_s,
    }
    return Projection(
        hours={stage: volumes * seconds[stage] / 3600 for stage in STAGES},
        disk_bytes=volumes * (costs.real_bytes + costs.synthetic_bytes),
        read_bytes_per_s=costs.source_bytes / seconds["preprocess"],
        write_bytes_per_s=costs.synthetic_bytes / (seconds["generate"] + seconds["write"]),
    )


def costs_table(costs: Mapping[str, UnitCosts]) -> str:
    """Unit costs by grid."""
    rows = [
        ("preprocess, core s", "preprocess_s", 1, "{:.2f}"),
        ("generate, core s", "core_s", 1, "{:,.1f}"),
        ("generate, A100 s", "gpu_s", 1, "{:.3f}"),
        ("write, core s", "write_s", 1, "{:.3f}"),
        ("gate, core s", "gate_s", 1, "{:.2f}"),
        ("evaluate, core s", "evaluate_s", 1, "{:.2f}"),
        ("source, MB", "source_bytes", 1e6, "{:.1f}"),
        ("preprocessed, MB", "real_bytes", 1e6, "{:.2f}"),
        ("generated, MB", "synthetic_bytes", 1e6, "{:.2f}"),
    ]
    lines = [f"| of one volume | {' | '.join(costs)} |", "|---|" + "---:|" * len(costs)]
    for title, name, unit, form in rows:
        lines.append(f"| {title} | {' | '.join(form.format(getattr(one, name) / unit) for one in costs.values())} |")
    return "\n".join(lines)


def projection_table(costs: Mapping[str, UnitCosts], where: tuple[Machine, ...]) -> str:
    """Hours and disk for :data:`VOLUMES`, and what limits."""
    lines = [
        f"| grid | on | {' | '.join(f'{n:,}' for n in VOLUMES)} | longest stage (share) | read | write |",
        "|---|---|" + "---:|" * len(VOLUMES) + "---|---:|---:|",
    ]
    for grid, unit in costs.items():
        for machine in where:
            found = [project(unit, machine, n) for n in VOLUMES]
            last = found[-1]
            share = last.hours[last.bottleneck] / last.total_hours
            cells = [f"{_hours(one.total_hours)}" for one in found]
            cells += [f"{last.bottleneck} ({share:.0%})", _rate(last.read_bytes_per_s), _rate(last.write_bytes_per_s)]
            lines.append(f"| {grid} | {machine.name} | {' | '.join(cells)} |")
        disk = [f"{project(unit, where[0], n).disk_bytes / 1e9:,.1f} GB" for n in VOLUMES]
        lines.append(f"| {grid} | disk | {' | '.join(disk)} | | | |")
    return "\n".join(lines)


def figures_table() -> str:
    """What is not measured here, with its source."""
    lines = ["| figure | value | source |", "|---|---:|---|"]
    return "\n".join([*lines, *(f"| {one.what} | {one.value:g} | {one.source} |" for one in FIGURES)])


def _hours(hours: float) -> str:
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _rate(bytes_per_s: float) -> str:
    unit, name = (1e9, "GB/s") if bytes_per_s >= 1e9 else (1e6, "MB/s") if bytes_per_s >= 1e6 else (1e3, "kB/s")
    return f"{bytes_per_s / unit:.3g} {name}"
