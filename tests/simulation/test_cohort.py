"""Cohorts on disk: layout, determinism, resuming, truth of the tables, refusals."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from text2ct import manifests
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.simulation import cohort as cohort_module
from text2ct.simulation import simulate_cohort
from text2ct.simulation.metadata import COLUMNS, metadata_row
from text2ct.simulation.patients import draw_patient, patient_number
from text2ct.volumes import read

GRID = {"size": (24, 24, 24), "spacing_mm": (12.0, 12.0, 12.0)}
PATIENTS = 3


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("cohort") / "out"
    return root, simulate_cohort(root, PATIENTS, seed=3, workers=1, **GRID)


def test_counts_are_those_on_disk(cohort):
    root, result = cohort
    volumes = list((root / "dataset").rglob("*.nii.gz"))
    assert result["volumes"] == result["rendered"] == len(volumes)
    assert result["patients"] == PATIENTS
    assert result["scans"] == len({path.parent for path in volumes})
    assert Path(result["root"]) == root


def test_layout_is_that_of_ct_rate(cohort):
    root, _ = cohort
    assert (root / "dataset/train_fixed/train_1/train_1_a/train_1_a_1.nii.gz").is_file()
    assert (root / "dataset/valid_fixed/valid_1/valid_1_a/valid_1_a_1.nii.gz").is_file()
    for part in ("train", "valid"):
        labels = pd.read_csv(root / f"multi_abnormality_labels/{part}_predicted_labels.csv")
        reports = pd.read_csv(root / f"radiology_text_reports/{part}_reports.csv")
        metadata = pd.read_csv(root / f"metadata/{part}_metadata.csv")
        assert list(labels.columns) == ["VolumeName", *FINDINGS]
        assert list(reports.columns)[3:] == ["Findings_EN", "Impressions_EN"]
        assert tuple(metadata.columns) == COLUMNS
        on_disk = sorted(path.name for path in (root / f"dataset/{part}_fixed").rglob("*.nii.gz"))
        for table in (labels, reports, metadata):
            assert sorted(table["VolumeName"]) == on_disk


def test_the_manifest_reader_understands_it(cohort):
    root, result = cohort
    frame = manifests.read(root)
    assert len(frame) == result["volumes"]
    assert set(frame["dataset"]) == {"simulated-seed3"}
    assert set(frame["source"]) == {"simulated"}
    assert (frame["findings_text"] != "").all()
    assert (frame[["spacing_x", "spacing_z"]] == 12.0).all(axis=None)
    pd.testing.assert_frame_equal(frame, manifests.read_manifest(result["manifest"]))


def test_tables_are_true_of_patients_and_volumes(cohort):
    root, _ = cohort
    patient = draw_patient(patient_number(3, 0))
    labels = pd.read_csv(root / "multi_abnormality_labels/train_predicted_labels.csv").set_index("VolumeName")
    metadata = pd.read_csv(root / "metadata/train_metadata.csv").set_index("VolumeName")
    present = {instance.finding for instance in patient.scans[0].instances}
    assert {name for name in FINDINGS if labels.loc["train_1_a_1.nii.gz", name]} == present
    row = metadata.loc["train_1_a_1.nii.gz"]
    assert row["PatientAge"] == f"{patient.age:03d}Y"
    assert row["PatientSex"] == patient.sex
    volume = read(root / "dataset/train_fixed/train_1/train_1_a/train_1_a_1.nii.gz")
    assert volume.size == (row["Columns"], row["Rows"], row["NumberofSlices"]) == (24, 24, 24)
    np.testing.assert_allclose(volume.spacing_mm, 12.0)
    np.testing.assert_allclose(volume.centre_mm, 0.0, atol=1e-6)
    assert volume.hu.min() >= -1000
    assert volume.hu.max() > 100


def test_bytes_do_not_depend_on_the_number_of_workers(cohort, tmp_path):
    root, _ = cohort
    simulate_cohort(tmp_path / "again", PATIENTS, seed=3, workers=2, **GRID)
    assert contents(tmp_path / "again") == contents(root)


def test_an_interrupted_cohort_goes_on(cohort, tmp_path):
    root, result = cohort
    part = Path(shutil.copytree(root, tmp_path / "part"))
    removed, *_, kept = sorted(part.rglob("*.nii.gz"))
    for path in (removed, part / "metadata/train_metadata.csv", part / "manifest.csv"):
        path.unlink()
    before = kept.stat().st_mtime_ns
    resumed = simulate_cohort(part, PATIENTS, seed=3, workers=1, **GRID)
    assert resumed["rendered"] == 1
    assert resumed["resumed"] == result["volumes"] - 1
    assert kept.stat().st_mtime_ns == before
    assert contents(part) == contents(root)


@pytest.mark.parametrize("length", [0, 3, 400])
def test_a_volume_that_is_not_whole_is_rendered_again(cohort, tmp_path, length):
    root, result = cohort
    part = Path(shutil.copytree(root, tmp_path / "part"))
    damaged = max(part.rglob("*.nii.gz"))
    damaged.write_bytes(damaged.read_bytes()[:length])
    resumed = simulate_cohort(part, PATIENTS, seed=3, workers=1, **GRID)
    assert (resumed["rendered"], resumed["resumed"]) == (1, result["volumes"] - 1)
    assert contents(part) == contents(root)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_workers_end_with_a_killed_parent(tmp_path):
    code = (
        "from text2ct.simulation import simulate_cohort\n"
        f"simulate_cohort({str(tmp_path / 'out')!r}, 60, workers=2, size=(24, 24, 24), spacing_mm=(12.0, 12.0, 12.0))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("train_1_a_1.nii.gz")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.communicate(timeout=30)  # the pipe closes when the last of the workers is gone


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_killed_run_leaves_whole_files_only(cohort, tmp_path):
    root, _ = cohort
    out = tmp_path / "killed"
    code = (
        "from text2ct.simulation import simulate_cohort\n"
        f"simulate_cohort({str(out)!r}, {PATIENTS}, seed=3, workers=1, size=(24, 24, 24), "
        f"spacing_mm=(12.0, 12.0, 12.0))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        deadline = time.monotonic() + 60
        while not list(out.rglob("train_1_a_1.nii.gz")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    simulate_cohort(out, PATIENTS, seed=3, workers=1, **GRID)
    finished = {name: data for name, data in contents(out).items() if ".partial-" not in name}
    assert finished == contents(root)


def test_a_dry_run_writes_nothing(tmp_path):
    result = simulate_cohort(tmp_path / "none", 10, dry_run=True, workers=1)
    assert result["patients"] == 10
    assert result["volumes"] >= result["scans"] >= 10
    assert result["seconds"] > 0
    assert result["megabytes"] > 0
    assert not (tmp_path / "none").exists()


def test_a_dry_run_counts_what_is_left(cohort, tmp_path, capsys):
    root, result = cohort
    part = Path(shutil.copytree(root, tmp_path / "part"))
    max(part.rglob("*.nii.gz")).unlink()
    before = contents(part)
    left = simulate_cohort(part, PATIENTS, seed=3, workers=1, dry_run=True, **GRID)
    assert left["volumes"] == result["volumes"]
    assert f"would write 1 volumes of {PATIENTS} patients" in (said := capsys.readouterr().err)
    assert f"({result['volumes'] - 1} more are there)" in said
    assert contents(part) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_grid_beyond_memory_is_refused_in_words(tmp_path, monkeypatch, workers):
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cohort_module, "_render", full)
    monkeypatch.setattr(cohort_module, "run_all", full)
    with pytest.raises(UserError, match="24 x 24 x 24 voxels does not fit into memory"):
        simulate_cohort(tmp_path / "out", PATIENTS, workers=workers, **GRID)


def test_a_longer_cohort_starts_with_the_shorter_one():
    request = cohort_module._checked(5, 3, (24, 24, 24), (12.0, 12.0, 12.0), 0.4)
    longer = list(cohort_module._members(dataclasses.replace(request, patients=50)))
    assert longer[:5] == list(cohort_module._members(request))
    assert sum(member.part == "valid" for member in longer) == 20
    assert len({member.name for member in longer}) == len({member.number for member in longer}) == 50


def test_scans_and_reconstructions_per_patient():
    patients = [draw_patient(patient_number(0, index)) for index in range(300)]
    scans = [scan for patient in patients for scan in patient.scans]
    assert 1.1 < len(scans) / len(patients) < 1.35
    assert 1.3 < np.mean([len(scan.reconstructions) for scan in scans]) < 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patients": 0}, "needs 1 to"),
        ({"patients": 10**7}, "needs 1 to"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"seed": 10**6}, "out of range"),
        ({"size": (4, 4, 4)}, "too small"),
        ({"size": (64, 64)}, "three sizes"),
        ({"valid_fraction": 1.0}, "below 1"),
        ({"workers": 0}, "at least 1"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_impossible_requests_are_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        simulate_cohort(tmp_path / "out", **({"patients": 2, "workers": 1} | change))
    assert not (tmp_path / "out").exists()


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="no simulated cohort"):
        simulate_cohort(tmp_path, 2, workers=1, **GRID)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_request_in_the_folder_is_refused(cohort):
    root, _ = cohort
    with pytest.raises(UserError, match="seed was 3, now 4"):
        simulate_cohort(root, PATIENTS, seed=4, workers=1, **GRID)


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="is a file"):
        simulate_cohort(tmp_path / "out", 2, workers=1)


def test_reconstructions_share_scanner_and_date():
    patient = next(
        patient
        for patient in (draw_patient(patient_number(0, index)) for index in range(50))
        if {item.kernel for item in patient.scans[0].reconstructions} == {"soft", "sharp"}
    )
    soft, sharp, *_ = patient.scans[0].reconstructions
    rows = [metadata_row("v", patient, 0, item, (8, 9, 10), (1.0, 2.0, 3.0)) for item in (soft, sharp)]
    assert rows[0]["ConvolutionKernel"] != rows[1]["ConvolutionKernel"]
    for column in ("Manufacturer", "StudyDate", "XRayTubeCurrent", "RescaleIntercept"):
        assert rows[0][column] == rows[1][column]
    assert (rows[0]["Rows"], rows[0]["Columns"], rows[0]["NumberofSlices"]) == (9, 8, 10)
    assert rows[0]["XYSpacing"] == "[2.0, 1.0]"


def test_follow_ups_are_dated_after_what_they_follow():
    several = [patient for patient in map(draw_patient, range(400)) if len(patient.scans) > 1]
    assert len(several) > 25
    for patient in several:
        rows = [
            metadata_row("v", patient, scan, record.reconstructions[0], (8, 8, 8), (1.0, 1.0, 1.0))
            for scan, record in enumerate(patient.scans)
        ]
        days = pd.to_datetime([str(row["StudyDate"]) for row in rows], format="%Y%m%d")
        assert days.min() >= pd.Timestamp(2017, 1, 1)
        assert days.max() < pd.Timestamp(2023, 1, 1)
        assert (np.diff(days) >= pd.Timedelta(days=30)).all()
