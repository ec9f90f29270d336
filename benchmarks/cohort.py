"""How the simulated cohort stands beside real chests: findings, HU, words, pictures, speed.

    python benchmarks/cohort.py --work build/cohort --real DIR  # everything; about half an hour on 2 cores
    python benchmarks/cohort.py --work build/cohort --real DIR --parts b c d e t  # no judges: a few minutes
    python benchmarks/cohort.py --work build/cohort --real DIR --parts c --final  # the reserved reports, at the end

Parts: ``a`` trains two judges of different kinds on 4,000 patients and reads the findings of new ones, ``b``
compares HU of body, lungs, soft tissue and bone with a real whole chest, ``c`` reads real reports with a text
classifier that learnt from simulated ones, ``d`` draws real and simulated slices side by side, ``e`` compares
how sharp edges are, ``t`` times the simulator. Real data come from ``--real`` and are neither copied nor printed;
without ``--final`` the 300 reserved reports are not looked at. Every part goes on where it was stopped and keeps its
figures in ``<work>/cohort.json``; ``<work>/cohort-tables.md`` has them as tables for docs/cohort.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.stats import wasserstein_distance

from text2ct.diffusion.training.cases import render_patients
from text2ct.evaluation.bootstrap import auc_samples, cluster_weights, interval, row_mean
from text2ct.evaluation.judges import aucs, trained_judges
from text2ct.evaluation.reserved import TextReader, reserved_reports
from text2ct.files import atomic_path, read_json, write_json, write_text
from text2ct.findings import FINDINGS
from text2ct.simulation import draw_patient, patient_number
from text2ct.simulation.labels import scan_labels
from text2ct.simulation.patients import FIRST_JUDGED
from text2ct.simulation.render import render
from text2ct.simulation.text import report
from text2ct.volumes import Volume, apply_window, read, to_grid

SIZE, SPACING_MM = (64, 64, 64), (5.0, 5.0, 5.0)
LEARNT, NEW = 4000, 600
# The judges' training patients, then the new ones; all of them before those that packs are measured on.
FIRST_NEW = FIRST_JUDGED + 5 * 10**5
REPORTS, REPORTS_SEED = 5000, 977
FOLDS = 5  # of the real reports, when they are both learnt from and read
BOOTSTRAP = 2000
HU_PATIENTS, HU_SEED = 100, 978
HU_BINS = np.arange(-1000, 1001, 10)
# Findings that change the lungs' or the fluid's HU: the real chest compared with has none of them.
HEAVY = ("Emphysema", "Atelectasis", "Lung opacity", "Pleural effusion", "Consolidation", "Mosaic attenuation pattern",
         "Pulmonary fibrotic sequela", "Interlobular septal thickening", "Medical material")  # fmt: skip
SHEET_SEED = 979
EDGE_BANDS, EDGE_PATIENTS = ((0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.87)), 3


# a: two judges


def part_a(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train both judges on their own patients, read the findings of new ones."""
    grid: dict[str, Any] = {"size": SIZE, "spacing_mm": SPACING_MM}
    new = render_patients(work / "new-cases", FIRST_NEW, arguments.new, **grid)
    volumes = [new.volume_hu(i) for i in range(len(new))]
    found: dict[str, Any] = {"learnt": arguments.learnt, "new": len(new), "judges": {}}
    scores = {}
    judges = trained_judges(work, arguments.learnt, minutes=arguments.minutes, kinds=tuple(arguments.judges), **grid)
    for judge in judges:
        scores[judge.name] = judge.scores(volumes)
        found["judges"][judge.name] = measured(scores[judge.name], new.labels)
    if len(scores) > 1:
        both = np.mean(list(scores.values()), axis=0)
        found["judges"]["mean of both"] = measured(both, new.labels)
    return found


def measured(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> dict[str, Any]:
    """Macro AUC with its bootstrap interval over patients or ``groups``, and each finding's AUC with its interval."""
    groups = np.arange(len(labels)) if groups is None else groups
    weights = cluster_weights(groups, BOOTSTRAP, np.random.default_rng(0))
    samples = auc_samples(scores, labels, weights)
    by_finding = aucs(scores, labels)
    rows = {
        name: {"auc": by_finding[name], "ci": _rounded(interval(samples[:, i])), "positive": int(labels[:, i].sum())}
        for i, name in enumerate(FINDINGS)
        if name in by_finding
    }
    macro = float(np.mean([row["auc"] for row in rows.values()]))
    return {"macro_auc": round(macro, 3), "macro_auc_ci": _rounded(interval(row_mean(samples))), "findings": rows}


def _rounded(values: list[float] | None) -> list[float] | None:
    return None if values is None else [round(value, 3) for value in values]


# b: HU histograms


def tissues(hu: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """HU and litres of body, lungs, soft tissue and bone, by thresholds and connected components.

    The body is the largest component above -500 HU after an opening that drops the table, filled slice by
    slice; the lungs are its air components of over 0.5% of it; bone is what is above 200 HU in components of
    over 30 voxels, filled; soft tissue is -200 to 200 HU without bone. The HU of lungs and of soft tissue are
    those a voxel away from the body's and the lungs' surface, where voxels are averages of two tissues; the litres
    are of all.
    """
    solid = ndimage.binary_opening(hu > -500, iterations=1)
    body = _largest(solid)
    body = np.stack([ndimage.binary_fill_holes(body[:, :, z]) for z in range(body.shape[2])], axis=2)
    labels, _ = ndimage.label(body & (hu < -400))
    sizes = np.bincount(labels.ravel())
    kept = sizes > 0.005 * body.sum()
    kept[0] = False
    lungs = kept[labels]
    labels, _ = ndimage.label(ndimage.binary_erosion(body) & (hu > 200))
    sizes = np.bincount(labels.ravel())
    kept = sizes > 30
    kept[0] = False
    bone = np.stack([ndimage.binary_fill_holes(kept[labels][:, :, z]) for z in range(hu.shape[2])], axis=2)
    soft = body & ~lungs & ~bone & (hu > -200) & (hu < 200)
    masks = {"body": body, "lungs": lungs, "soft tissue": soft, "bone": bone}
    deep = {
        "lungs": ndimage.binary_erosion(lungs),
        "soft tissue": soft & ndimage.binary_erosion(body) & ~ndimage.binary_dilation(lungs),
    }
    litres = {name: int(mask.sum()) * float(np.prod(SPACING_MM)) / 1e6 for name, mask in masks.items()}
    return {name: hu[deep.get(name, mask)] for name, mask in masks.items()}, litres


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


def real_chest(real: Path) -> np.ndarray:
    """The real whole chest at 5 mm on the default grid."""
    return to_grid(read(real / "volumes" / "chest_full_4mm.nrrd"), SIZE, SPACING_MM).hu


def quiet_patients(count: int, seed: int) -> list[np.ndarray]:
    """Volumes of simulated patients without the findings that change much of a chest."""
    found: list[np.ndarray] = []
    index = 0
    while len(found) < count:
        patient = draw_patient(patient_number(seed, index))
        index += 1
        if not {i.finding for i in patient.scans[0].instances} & set(HEAVY):
            found.append(np.clip(render(patient, 0, 0, SIZE, SPACING_MM), -1000, 1000))
    return found


def part_b(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """HU of tissues of one real chest and of simulated patients: distances and an overlaid plot."""
    real, real_litres = tissues(real_chest(arguments.real))
    simulated, litres = zip(*(tissues(hu) for hu in quiet_patients(arguments.hu_patients, HU_SEED)), strict=True)
    pooled = {name: np.concatenate([one[name] for one in simulated]) for name in real}
    found: dict[str, Any] = {"patients": len(simulated), "tissues": {}}
    for name, values in real.items():
        own = [wasserstein_distance(values, one[name]) for one in simulated if len(one[name])]
        to_all, among = pool_distances(values, [one[name] for one in simulated])
        found["tissues"][name] = {
            "wasserstein_hu": round(to_all, 1),
            "wasserstein_hu_nearest_patient": round(float(np.min(own)), 1),
            "wasserstein_hu_median_patient": round(float(np.median(own)), 1),
            "wasserstein_hu_among_simulated": round(float(np.median(among)), 1),
            "median_hu_real": round(float(np.median(values)), 1),
            "median_hu_simulated": round(float(np.median(pooled[name])), 1),
            "litres_real": round(real_litres[name], 2),
            "litres_simulated": round(float(np.mean([one[name] for one in litres])), 2),
        }
    plot_tissues(real, list(simulated), pooled, found, arguments.docs / "cohort-hu.png")
    return found


def pool_distances(values: np.ndarray, patients: list[np.ndarray]) -> tuple[float, list[float]]:
    """Wasserstein distance of ``values`` to the pool of all patients, and of each patient to the pool of the others.

    The latter says what one real chest could reach. A distance to every 50th of ten million sorted values is that to
    all of them, sooner.
    """
    pool, whose = np.concatenate(patients), np.repeat(np.arange(len(patients)), [len(one) for one in patients])
    order = np.argsort(pool)[:: max(1, len(pool) // 200_000)]
    pool, whose = pool[order], whose[order]
    others = [wasserstein_distance(one, pool[whose != k]) for k, one in enumerate(patients) if len(one)]
    return float(wasserstein_distance(values, pool)), [float(distance) for distance in others]


def plot_tissues(
    real: dict[str, np.ndarray],
    simulated: list[dict[str, np.ndarray]],
    pooled: dict[str, np.ndarray],
    found: dict[str, Any],
    path: Path,
) -> None:
    """Densities over HU, one panel a tissue; the band holds 90% of the simulated patients."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
    middles = (HU_BINS[1:] + HU_BINS[:-1]) / 2
    limits = {"body": (-1000, 600), "lungs": (-1000, -300), "soft tissue": (-220, 220), "bone": (-50, 1000)}

    def density(values: np.ndarray) -> np.ndarray:
        return np.histogram(values, HU_BINS)[0] / max(1, len(values)) / 10

    for axis, name in zip(axes.flat, real, strict=True):
        each = np.stack([density(one[name]) for one in simulated])
        axis.fill_between(middles, *np.percentile(each, [5, 95], axis=0), alpha=0.25, label="90% of patients")
        axis.plot(middles, density(pooled[name]), label=f"simulated, {len(simulated)} patients")
        axis.plot(middles, density(real[name]), color="k", label="real chest")
        distance = found["tissues"][name]["wasserstein_hu"]
        axis.set(title=f"{name}: Wasserstein distance {distance:g} HU", xlim=limits[name], xlabel="HU", yticks=[])
    axes.flat[0].legend(fontsize=8)
    _save(figure, path)


# c: words


def simulated_reports(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Reports of first scans, and their labels."""
    texts, labels = [], []
    for index in range(count):
        patient = draw_patient(patient_number(seed, index))
        said = report(patient, patient.scans[0])
        texts.append(f"{said.findings} {said.impression}")
        labels.append(scan_labels(patient.scans[0]))
    return texts, np.array(labels).astype(float)


def part_c(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """A text classifier that learnt from simulated reports reads real ones; real training gives the ceiling."""
    frame = pd.read_csv(arguments.real / "ct_rate" / "annotated_reports_train.csv")
    reserved = reserved_reports(frame)
    labels = frame[list(FINDINGS)].to_numpy(dtype=float)
    texts = frame["report_text"].astype(str).to_numpy(dtype=object)
    simulated = TextReader(*simulated_reports(arguments.reports, REPORTS_SEED))
    measured_on = reserved if arguments.final else ~reserved
    if arguments.final:
        ceiling = TextReader(list(texts[~reserved]), labels[~reserved]).scores(list(texts[reserved]))
    else:
        ceiling = _cross_validated(texts[~reserved], labels[~reserved])
    truth = labels[measured_on]
    _, equal = np.unique(texts[measured_on].astype(str), return_inverse=True)
    return {
        "reports": "reserved" if arguments.final else "development",
        "n": int(measured_on.sum()),
        "learnt": {
            "simulated": arguments.reports,
            "real": int((~reserved).sum()) * (FOLDS if arguments.final else FOLDS - 1) // FOLDS,
        },
        "simulated": measured(simulated.scores(list(texts[measured_on])), truth, equal),
        "real": measured(ceiling, truth, equal),
    }


def _cross_validated(texts: np.ndarray, labels: np.ndarray, folds: int = FOLDS) -> np.ndarray:
    """Scores of each report by readers that learnt from the others, equal texts in one fold."""
    _, group = np.unique(texts.astype(str), return_inverse=True)
    fold = np.random.default_rng(0).permutation(group.max() + 1)[group] % folds
    scores = np.zeros(labels.shape)
    for k in range(folds):
        out = fold == k
        scores[out] = TextReader(list(texts[~out]), labels[~out]).scores(list(texts[out]))
    return scores


# d: the sheet


def part_d(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Real and simulated slices side by side, at matched levels, in the lung and the soft-tissue window."""
    folder = arguments.real / "volumes"
    whole, crop = read(folder / "chest_full_4mm.nrrd"), read(folder / "chest_cta_crop_1.5mm.nii.gz")
    fine = (160, 160, 128), (2.5, 2.5, 2.5)
    patients = [draw_patient(patient_number(SHEET_SEED, index)) for index in range(60)]
    quiet = [p for p in patients if not {i.finding for i in p.scans[0].instances} & set(HEAVY)]
    calm = {"Hiatal hernia", "Bronchiectasis", "Pericardial effusion"}
    enhanced = next(p for p in quiet if p.scans[0].contrast and not {i.finding for i in p.scans[0].instances} & calm)
    rows: list[tuple[str, np.ndarray]] = [
        ("real chest, 4 mm", to_grid(whole, SIZE, SPACING_MM).hu),
        *((f"simulated, 5 mm ({p.sex}, {p.age})", render(p, 0, 0, SIZE, SPACING_MM)) for p in quiet[:2]),
        ("real CTA crop, 1.5 mm", crop.hu),
        (f"simulated, 2.5 mm ({enhanced.sex}, {enhanced.age})", render(enhanced, 0, 0, *fine)),
    ]
    draw_sheet(rows, arguments.docs / "cohort-sheet.png")
    return {"rows": [name for name, _ in rows]}


def draw_sheet(rows: list[tuple[str, np.ndarray]], path: Path) -> None:
    """A row a volume: three axial levels in the lung window, two in soft tissue, one coronal, one sagittal."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(rows), 7, figsize=(14, 2.1 * len(rows)), layout="constrained")
    for number, (axis_row, (name, hu)) in enumerate(zip(axes, rows, strict=True)):
        cuts = _cuts(hu)
        for axis, (title, picture, window) in zip(axis_row, cuts, strict=True):
            # From the front and from the feet: the patient's right is on the left.
            axis.imshow(apply_window(picture, window).T[:, ::-1], cmap="gray", vmin=0, vmax=1, origin="lower")
            axis.set(xticks=[], yticks=[])
            if number == 0:
                axis.set_title(title, fontsize=8)
        axis_row[0].set_ylabel(name, fontsize=7)
    _save(figure, path)


def _cuts(hu: np.ndarray) -> list[tuple[str, np.ndarray, str]]:
    """Levels at shares of the lungs' height, which match across volumes of different extent."""
    labels, _ = ndimage.label(hu < -400)
    for face in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        labels[np.isin(labels, np.unique(face[face > 0]))] = 0
    lungs = labels > 0 if (labels > 0).sum() > 0.02 * hu.size else hu < -400
    low, middle, high = [], [], []
    for axis in range(3):
        profile = lungs.sum(axis=tuple(a for a in range(3) if a != axis)).cumsum()
        first, half, last = np.searchsorted(profile, [0.02 * profile[-1], 0.5 * profile[-1], 0.98 * profile[-1]])
        low.append(int(first))
        middle.append(int(half))
        high.append(int(last))

    def level(share: float) -> int:
        return int(np.clip(low[2] + share * (high[2] - low[2]), 0, hu.shape[2] - 1))

    cuts = [(f"axial {share:.0%}, lung", hu[:, :, level(share)], "lung") for share in (0.8, 0.55, 0.3)]
    cuts += [(f"axial {share:.0%}, soft tissue", hu[:, :, level(share)], "soft_tissue") for share in (0.65, 0.3)]
    return [
        *cuts,
        ("coronal, lung", hu[:, middle[1], :], "lung"),
        ("sagittal, bone", hu[(low[0] + high[0]) // 2, :, :], "bone"),
    ]


# t: time


def part_t(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of one core a volume (process time): the mean, and the least, since other work only adds."""
    found = {}
    for name, size, spacing_mm, count in (
        ("64", SIZE, SPACING_MM, 8),
        ("256", (256, 256, 256), (1.25, 1.25, 1.25), 2),
    ):
        taken = []
        for index in range(count):
            patient = draw_patient(patient_number(HU_SEED, index))
            begun = time.process_time()
            render(patient, 0, 0, size, spacing_mm)
            taken.append(time.process_time() - begun)
        found[name] = {"mean_s": round(float(np.mean(taken)), 3), "least_s": round(float(np.min(taken)), 3), "n": count}
    return {"seconds_per_volume": found}


# e: edges


def bands(hu: np.ndarray) -> list[float]:
    """Share of the spectrum's energy, percent, in each of ``EDGE_BANDS``, of the middle of a volume."""
    middle = np.clip(hu, -1000, 1000)[8:-8, 8:-8, 8:-8].astype(np.float64)
    energy = np.abs(np.fft.fftn(middle - middle.mean())) ** 2
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in middle.shape), indexing="ij")))
    return [
        round(100 * float(energy[(frequency > low) & (frequency <= high)].sum() / energy.sum()), 2)
        for low, high in EDGE_BANDS
    ]


def part_e(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Spectra of the real chest, of patients drawn at 5 mm, and of the same drawn at 1.25 mm and resampled."""
    coarse, fine = [], []
    step = SPACING_MM[0] / 4
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = -(4 * SIZE[0] - 1) / 2 * step
    for index in range(EDGE_PATIENTS):
        patient = draw_patient(patient_number(HU_SEED, index))
        coarse.append(bands(render(patient, 0, 0, SIZE, SPACING_MM)))
        drawn = render(patient, 0, 0, (4 * SIZE[0], 4 * SIZE[1], 4 * SIZE[2]), (step, step, step))
        fine.append(bands(to_grid(Volume(drawn, affine), SIZE, SPACING_MM).hu))

    def mean(rows: list[list[float]]) -> list[float]:
        return [round(float(value), 2) for value in np.mean(rows, axis=0)]

    return {"real": bands(real_chest(arguments.real)), "coarse": mean(coarse), "fine": mean(fine), "n": EDGE_PATIENTS}


# all


def tables(results: dict[str, Any]) -> str:
    """Markdown of what was measured so far."""
    lines: list[str] = []
    if "a" in results:
        judges = results["a"]["judges"]
        lines += [
            f"Trained on {results['a']['learnt']} simulated patients, {results['a']['new']} new ones read:", "",
            "| finding | positive | " + " | ".join(judges) + " |", "|---|---|" + "---|" * len(judges),
        ]  # fmt: skip
        first = next(iter(judges.values()))["findings"]
        lines += [
            f"| {name} | {first[name]['positive']} | "
            + " | ".join(_value(judge["findings"][name]) for judge in judges.values())
            + " |"
            for name in first
        ]
        lines += ["| **macro** | | " + " | ".join(_macro(judge) for judge in judges.values()) + " |", ""]
    if "b" in results:
        lines += [
            f"One real chest against {results['b']['patients']} simulated patients:", "",
            "| tissue | Wasserstein distance, HU | of the nearest patient | median of patients to the others "
            "| median HU, real | simulated | litres, real | simulated |", "|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        lines += [
            f"| {name} | {t['wasserstein_hu']} | {t['wasserstein_hu_nearest_patient']} "
            f"| {t['wasserstein_hu_among_simulated']} | {t['median_hu_real']} | {t['median_hu_simulated']} "
            f"| {t['litres_real']} | {t['litres_simulated']} |"
            for name, t in results["b"]["tissues"].items()
        ]
        lines.append("")
    if "e" in results:
        e = results["e"]
        lines += [
            "Share of the spectrum's energy by spatial frequency, cycles a voxel:", "",
            f"| band | real chest | {e['n']} patients drawn at 5 mm | at 1.25 mm, resampled |", "|---|---|---|---|",
        ]  # fmt: skip
        lines += [
            f"| {low:g} to {high:g} | {e['real'][k]} % | {e['coarse'][k]} % | {e['fine'][k]} % |"
            for k, (low, high) in enumerate(EDGE_BANDS)
        ]
        lines.append("")
    for part in ("c", "c-final"):
        if part in results:
            lines += _text_table(results[part])
    if "t" in results:
        lines += ["| grid | seconds a volume, one core |", "|---|---|"]
        lines += [f"| {n}×{n}×{n} | {row['mean_s']} |" for n, row in results["t"]["seconds_per_volume"].items()]
        lines.append("")
    return "\n".join(lines)


def _text_table(found: dict[str, Any]) -> list[str]:
    simulated, real = found["simulated"]["findings"], found["real"]["findings"]
    return [
        f"{found['n']} {found['reports']} real reports, read after {found['learnt']['simulated']} simulated ones "
        f"and after {found['learnt']['real']} real ones:", "",
        "| finding | positive | learnt from simulated | from real |", "|---|---|---|---|",
        *(
            f"| {name} | {row['positive']} | {_value(row)} | {_value(real[name])} |"
            for name, row in simulated.items()
        ),
        f"| **macro** | | {_macro(found['simulated'])} | {_macro(found['real'])} |", "",
    ]  # fmt: skip


def _value(row: dict[str, Any]) -> str:
    low, high = row["ci"] or (float("nan"), float("nan"))
    return f"{row['auc']:.3f} ({low:.2f}–{high:.2f})"


def _macro(found: dict[str, Any]) -> str:
    low, high = found["macro_auc_ci"] or (float("nan"), float("nan"))
    return f"**{found['macro_auc']:.3f}** ({low:.3f}–{high:.3f})"


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


PARTS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "a": part_a, "b": part_b, "c": part_c, "d": part_d, "e": part_e, "t": part_t,
}  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """What can be asked for; the reserved reports only by name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, required=True, help="folder of cases, judges and figures")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the pictures go")
    parser.add_argument("--real", type=Path, help="folder of real volumes and reports; parts b to e need it")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--judges", nargs="+", choices=["blocks", "cnn"], default=["blocks", "cnn"])
    parser.add_argument("--learnt", type=int, default=LEARNT, help="patients that the judges learn from")
    parser.add_argument("--new", type=int, default=NEW, help="new patients that they read")
    parser.add_argument("--minutes", type=float, default=10, help="training time of the CNN")
    parser.add_argument("--hu-patients", type=int, default=HU_PATIENTS)
    parser.add_argument("--reports", type=int, default=REPORTS, help="simulated reports to learn from")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--develop", action="store_true", help="read the other 500 reports (default)")
    which.add_argument("--final", action="store_true", help="read the 300 reserved reports")
    return parser


def main() -> None:
    """Run the parts asked for."""
    parser = make_parser()
    arguments = parser.parse_args()
    if arguments.real is None and set(arguments.parts) & set("bcde"):
        parser.error("parts b to e compare with real data: name their folder with --real, or choose --parts a t")
    if arguments.hu_patients < 2:
        parser.error(f"--hu-patients is {arguments.hu_patients}; expected 2 or more, to compare each with the others")
    path = arguments.work / "cohort.json"
    for part in arguments.parts:
        found = PARTS[part](arguments.work, arguments)
        results = read_json(path) if path.is_file() else {}
        write_json(path, results | {"c-final" if part == "c" and arguments.final else part: found})
        print(json.dumps({part: found}), flush=True)
    write_text(arguments.work / "cohort-tables.md", tables(read_json(path)))


if __name__ == "__main__":
    main()
