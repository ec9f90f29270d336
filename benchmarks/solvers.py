"""Quality of the bundled pack's volumes against the evaluations that they cost.

    python benchmarks/solvers.py --work build/solvers --plot docs/solvers.png

Every setting makes a volume of each new patient's report, from the same noise. Compared are the latents, with
those of 200 Heun evaluations with the same guidance, and how well the findings asked for are read from the
volumes: the macro AUC of trees on block statistics that learnt from other simulated patients. The pack's way
before is 30 Euler steps; a setting is as good when the interval of its AUC difference to that, over patients,
holds zero or more. Runs go on where they were stopped. About an hour on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from text2ct.compute import keep_freed_memory, pick_device
from text2ct.diffusion import load_pack
from text2ct.diffusion.generate import decode_latents, sample_latents
from text2ct.diffusion.info import Sampling
from text2ct.diffusion.pack import Pack
from text2ct.diffusion.training.cases import Cases, render_patients
from text2ct.evaluation.judges import BlockJudge
from text2ct.files import atomic_path, write_json
from text2ct.simulation.patients import PACK_PATIENTS

# Patients that neither the pack nor its figures have seen.
FIRST = PACK_PATIENTS.start + 5 * 10**6
JUDGED, LEARNT = 200, 1600
BATCH = 8
REFERENCE = {"steps": 200, "solver": "heun"}
BEFORE = {"steps": 30, "solver": "euler"}
SETTINGS: list[dict[str, Any]] = [
    BEFORE,
    *({"steps": n, "solver": "euler"} for n in (8, 12, 16)),
    *({"steps": n, "solver": "heun"} for n in (5, 7, 9)),
    *({"steps": n, "solver": "adams-bashforth"} for n in (4, 6, 8, 12)),
    *({"steps": n, "solver": "dpm-solver"} for n in (4, 6, 8, 12)),
    *(
        {"steps": 8, "solver": "adams-bashforth", "guidance_interval": interval}
        for interval in ((0.0, 0.8), (0.3, 1.0), (0.3, 0.8))
    ),
]
BOOTSTRAP = 1000


def name_of(setting: dict[str, Any]) -> str:
    """Of the setting's file."""
    low, high = setting.get("guidance_interval", (0.0, 1.0))
    return f"{setting['solver']}-{setting['steps']}-{low:g}-{high:g}"


def latents_of(pack: Pack, cases: Cases, count: int, sampling: Sampling, path: Path) -> np.ndarray:
    """Latents of the first ``count`` cases' reports by one setting, kept in ``path`` with the seconds they took."""
    if not path.is_file():
        prompts, made = [text.text() for text in cases.texts[:count]], []
        started = time.perf_counter()
        for start in range(0, count, BATCH):
            chosen = range(start, min(start + BATCH, count))
            made.append(
                sample_latents(
                    pack, [prompts[i] for i in chosen], list(chosen), sampling=sampling, device=pick_device("cpu")
                ).numpy()
            )
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, latents=np.concatenate(made), seconds=(time.perf_counter() - started) / count)
    return np.load(path)["latents"]


def macro_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean over the findings that have both classes."""
    known = [i for i in range(labels.shape[1]) if 0 < labels[:, i].sum() < len(labels)]
    return float(np.mean([roc_auc_score(labels[:, i], scores[:, i]) for i in known]))


def difference_interval(labels: np.ndarray, scores: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval over patients of the difference of two macro AUCs."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(labels), (BOOTSTRAP, len(labels)))
    found = [macro_auc(labels[d], scores[d]) - macro_auc(labels[d], before[d]) for d in draws]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def evaluations(sampling: Sampling, pack: Pack) -> tuple[int, int]:
    """Calls of the network for one volume: guided (two contexts) and unguided."""
    guided: list[bool] = []

    def count(x: torch.Tensor, timestep: float) -> torch.Tensor:
        guided.append(sampling.guides_at(timestep / pack.scheduler.horizon))
        return x

    pack.scheduler.sample(count, torch.zeros(1, *pack.latent_shape), *sampling.path)
    return sum(guided), len(guided) - sum(guided)


def study(work: Path, judged: int) -> dict[str, Any]:
    """Make what is missing and measure everything."""
    keep_freed_memory()
    pack = load_pack()
    grid: dict[str, Any] = {"size": pack.info.grid, "spacing_mm": pack.info.spacing_mm}
    cases = render_patients(work / "judged", FIRST, judged, **grid)
    judge = BlockJudge.train(render_patients(work / "learnt", FIRST + 10**6, LEARNT, **grid))
    sampled = {name_of(s): pack.info.defaults.updated(**{"guidance_interval": (0.0, 1.0)} | s) for s in SETTINGS}
    reference = latents_of(
        pack, cases, min(judged, 48), pack.info.defaults.updated(**REFERENCE), work / "reference.npz"
    )
    scores: dict[str, np.ndarray] = {}
    rows = []
    for name, sampling in sampled.items():
        latents = latents_of(pack, cases, judged, sampling, work / f"{name}.npz")
        volumes_hu = np.concatenate([decode_latents(pack, part) for part in torch.from_numpy(latents).split(BATCH)])
        scores[name] = judge.scores(list(volumes_hu))
        error = latents[: len(reference)] - reference
        guided, alone = evaluations(sampling, pack)
        rows.append(
            {
                "setting": name,
                "evaluations": guided + alone,
                "calls": 2 * guided + alone,
                "latent_error": float(np.sqrt(np.mean(error**2)) / reference.std()),
                "macro_auc": macro_auc(cases.labels, scores[name]),
                "difference_to_before": difference_interval(cases.labels, scores[name], scores[name_of(BEFORE)]),
                "seconds_per_volume": float(np.load(work / f"{name}.npz")["seconds"]),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    real = macro_auc(cases.labels, judge.scores([cases.volume_hu(i) for i in range(judged)]))
    return {
        "patients": judged,
        "guidance_scale": pack.info.defaults.guidance_scale,
        "macro_auc_real": real,
        "rows": rows,
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Latent error and AUC against calls of the network."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for solver in ("euler", "heun", "adams-bashforth", "dpm-solver"):
        rows = sorted(
            (r for r in result["rows"] if r["setting"].startswith(solver) and r["setting"].endswith("-0-1")),
            key=lambda r: r["calls"],
        )
        calls = [r["calls"] for r in rows]
        left.plot(calls, [r["latent_error"] for r in rows], "o-", label=solver)
        right.plot(calls, [r["macro_auc"] for r in rows], "o-", label=solver)
    partly = [r for r in result["rows"] if not r["setting"].endswith("-0-1")]
    right.plot([r["calls"] for r in partly], [r["macro_auc"] for r in partly], "kx", label="guided in an interval only")
    right.axhline(result["macro_auc_real"], color="grey", linestyle="--", label="the patients' own volumes")
    left.set(yscale="log", ylabel="latent error against 200 Heun evaluations (deviations)")
    right.set(ylabel="macro AUC of the findings asked for")
    for axis in (left, right):
        axis.set(xlabel="calls of the network per volume (a guided evaluation is two)")
        axis.grid(alpha=0.3)
    right.legend(fontsize=8)
    left.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, required=True, help="folder of cases and latents")
    parser.add_argument("--plot", type=Path, help="write the picture here")
    parser.add_argument("--patients", type=int, default=JUDGED, help="reports that volumes are made of")
    arguments = parser.parse_args()
    result = study(arguments.work, arguments.patients)
    write_json(arguments.work / "solvers.json", result)
    if arguments.plot:
        plot(result, arguments.plot)


if __name__ == "__main__":
    main()
