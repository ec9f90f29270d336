"""How often what `preprocess` and `report` flag is wrong, and how long it takes: the figures of docs/data.md.

    python benchmarks/hygiene.py --reports annotated_reports_train.csv  # some five minutes on one core

Chests are simulated ones; abdomens are their lower parts. Labels are those of annotated reports, which experts gave;
a share of them is turned round, and what `report` flags is set beside what was turned round. The check of 50,188
volumes takes these reports with a third of their sentences made different, so that few are met twice.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from text2ct import hygiene
from text2ct.augment.contradictions import read_report
from text2ct.augment.edited import sentences
from text2ct.evaluation.reserved import reserved_reports
from text2ct.findings import FINDINGS
from text2ct.manifests import validate
from text2ct.simulation import draw_patient, patient_number
from text2ct.simulation.render import render
from text2ct.volumes import Volume
from text2ct.volumes.anatomy import not_a_chest

SEED = 981
# Slices of 5 mm from the lowest of a field that reaches 9 cm below the default one's: abdomens without and with bases.
FIELD, TOPS = (64, 64, 100), (28, 36, 42)
FULL_SIZE, FULL_SPACING_MM = (256, 256, 160), (1.4, 1.4, 2.0)
VOLUMES, SCANS, DIFFERENT = 50_188, 25_692, 1 / 3


def flagged_chests(count: int, size: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> str:
    """How many chests of a grid are flagged, and the time of one."""
    flagged, seconds = [], 0.0
    for index in range(count):
        patient = draw_patient(patient_number(SEED, index))
        volume = Volume(render(patient, size=size, spacing_mm=spacing_mm), np.diag([*spacing_mm, 1.0]))
        begun = time.process_time()
        said = not_a_chest(volume)
        seconds += time.process_time() - begun
        flagged += [f"  patient {index}: {said}"] if said else []
    sizes = " x ".join(map(str, size))
    lines = [f"{len(flagged)} of {count} chests of {sizes} are flagged, {1000 * seconds / count:.0f} ms each", *flagged]
    return "\n".join(lines)


def flagged_abdomens(count: int) -> str:
    """How many lower parts of simulated people are flagged."""
    lines = []
    people = [render(draw_patient(patient_number(SEED, index)), size=FIELD) for index in range(count)]
    for top in TOPS:
        flagged = sum(bool(not_a_chest(Volume(hu[..., :top], np.diag([5.0, 5.0, 5.0, 1.0])))) for hu in people)
        lines.append(f"{flagged} of {count} abdomens of {top / 2:g} cm are flagged")
    return "\n".join(lines)


def turned_labels(table: pd.DataFrame, share: float) -> str:
    """Which of the labels that are turned round are flagged, and which others."""
    labels = table[list(FINDINGS)].to_numpy() == 1
    said = [read_report(text) for text in table["report_text"]]
    denied = np.array([[name in one.denied for name in FINDINGS] for one in said])
    shown = np.array([[name in one.shown for name in FINDINGS] for one in said])
    turned = np.random.default_rng(SEED).random(labels.shape) < share
    wrong = labels ^ turned
    lines = []
    for words, flags, relevant in (
        ("labelled 1 and denied", denied & wrong, wrong),
        ("labelled 0 and shown", shown & ~wrong, ~wrong),
    ):
        hits, cases = int((flags & turned).sum()), int((turned & relevant).sum())
        untouched = int((relevant & ~turned).sum())
        lines.append(
            f"{words}: {hits} of {cases} turned labels are flagged (recall {hits / cases:.3f}), and "
            f"{int((flags & ~turned).sum())} of {untouched} untouched ones; precision {hits / int(flags.sum()):.3f}"
        )
    return "\n".join(lines)


def check_time(table: pd.DataFrame) -> str:
    """Seconds of one core for a manifest of CT-RATE's size."""
    rng = np.random.default_rng(SEED)
    scans = np.arange(VOLUMES) % SCANS
    texts = []
    for scan in range(SCANS):
        parts = sentences(table["report_text"].iloc[scan % len(table)])
        texts.append(" ".join(part if rng.random() >= DIFFERENT else f"{part[:-1]} {scan}." for part in parts))
    names = [f"train_{scan}_a" for scan in scans]
    frame = pd.DataFrame({name: table[name].to_numpy(dtype=float)[scans % len(table)] for name in FINDINGS})
    frame = frame.assign(
        dataset="CT-RATE",
        volume=[f"{name}_{row // SCANS + 1}.nii.gz" for row, name in enumerate(names)],
        patient=[name[:-2] for name in names],
        scan=names,
        split=np.where(scans % 10 == 0, "test", "train"),
        source="real",
        findings_text=[texts[scan] for scan in scans],
        sha256=[f"{row:064x}" for row in range(VOLUMES)],
    )
    frame = validate(frame, "the timed manifest")
    read_report.cache_clear()
    begun = time.process_time()
    hygiene.check_manifest(frame)
    return f"{VOLUMES:,} volumes are checked in {time.process_time() - begun:.0f} s of one core"


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=Path, help="annotated reports: report_text and the 18 findings")
    parser.add_argument("--chests", type=int, default=400)
    parser.add_argument("--full-size", type=int, default=8, help=f"chests of {FULL_SIZE} voxels")
    parser.add_argument("--turned", type=float, default=0.02, help="share of labels that are turned round")
    arguments = parser.parse_args()
    print(flagged_chests(arguments.chests, (64, 64, 64), (5.0, 5.0, 5.0)))
    if arguments.full_size:
        print(flagged_chests(arguments.full_size, FULL_SIZE, FULL_SPACING_MM))
    print(flagged_abdomens(min(arguments.chests, 100)))
    if arguments.reports:
        table = pd.read_csv(arguments.reports)
        reserved = reserved_reports(table)
        for words, rows in (("developed on", ~reserved), ("reserved", reserved)):
            print(f"{int(rows.sum())} reports ({words})\n{turned_labels(table[rows], arguments.turned)}")
        print(check_time(table))


if __name__ == "__main__":
    main()
