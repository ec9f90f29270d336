from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from text2ct.engines import Local
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import COLUMNS, Workspace, read_manifest, validate, write_manifest
from text2ct.volumes import preprocess, read

GRID = {"size": (12, 10, 9), "spacing_mm": (24.0, 24.0, 26.0)}
METADATA = pd.DataFrame(
    {
        "slope": 1.0,
        "intercept": [-1024.0, -8192.0],
        "spacing_x": 10.0,
        "spacing_y": [12.0, np.nan],
        "spacing_z": 14.0,
    },
    index=["train_1_a_1", "train_1_a_2"],
)


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def cohort(tmp_path, foreign):
    """Two good volumes of both generations, one broken and one that is no CT."""
    foreign("in/train_1_a_1.nii.gz", lambda hu: hu + 1024)
    foreign("in/train_1_a_2.nii.gz")
    foreign("in/train_2_a_1.nii.gz", lambda hu: np.clip(hu, 0, 1))
    (tmp_path / "in/train_3_a_1.nii.gz").write_bytes(b"not a volume")
    return tmp_path / "in"


def test_goes_on_past_bad_ones_and_says_why(cohort, tmp_path):
    result = preprocess([cohort], tmp_path / "out", metadata=METADATA, **GRID)
    assert result.manifest["volume"].tolist() == ["train_1_a_1.nii.gz", "train_1_a_2.nii.gz"]
    assert result.manifest["patient"].tolist() == ["train_1", "train_1"]
    assert result.manifest[list(FINDINGS)].isna().all(axis=None)
    assert result.manifest["size_y"].tolist() == [10, 10]
    assert result.manifest["spacing_z"].tolist() == [26, 26]
    pd.testing.assert_frame_equal(read_manifest(result.manifest_path), result.manifest)
    quarantine = pd.read_csv(result.quarantine_path)
    assert quarantine["volume"].tolist() == ["train_2_a_1.nii.gz", "train_3_a_1.nii.gz"]
    assert "the voxels are not HU" in quarantine["reasons"][0]
    assert "cannot read" in quarantine["reasons"][1]
    first, second = (read(tmp_path / "out" / path) for path in result.manifest["path"])
    np.testing.assert_array_equal(first.hu, second.hu)
    record = json.loads((tmp_path / "out/records/local/train_1_a_1.json").read_text("utf-8"))
    assert "intercept -1024 of the metadata applied" in record["intensity"]


def test_the_manifest_says_how_voxels_became_hu(cohort, tmp_path):
    grid = {"size": (24, 20, 16), "spacing_mm": (10, 12, 14)}
    result = preprocess([cohort], tmp_path / "out", metadata=METADATA, **grid)
    first, second = result.manifest["intensity"]
    assert first.startswith("slope 1 and intercept -1024 of the metadata applied: ")
    assert "rejected HU as stored" in first
    assert second.startswith("HU as stored: ")
    assert read_manifest(result.manifest_path)["intensity"].tolist() == [first, second]
    workspace = Workspace(tmp_path / "ws")
    workspace.add_root("out", tmp_path / "out")
    again = preprocess(result.manifest, tmp_path / "again", workspace=workspace, **grid)
    assert again.manifest["intensity"].tolist() == [first, second]


def test_metadata_sizes_tell_a_placeholder(tmp_path, save_foreign, phantom):
    save_foreign(tmp_path / "in/train_1_a_1.nii", phantom.hu.astype("<i2"), np.eye(4))
    sizes = dict(zip(("size_x", "size_y", "size_z"), phantom.size, strict=True))
    result = preprocess([tmp_path / "in"], tmp_path / "out", metadata=METADATA.assign(spacing_y=12.0, **sizes), **GRID)
    assert result.manifest["notes"].tolist() == [
        "the header says 1 x 1 x 1 mm, a placeholder, the metadata 10 x 12 x 14 mm, which is used"
    ]


def test_what_seems_no_chest_is_flagged_or_left_out(cohort, tmp_path, foreign):
    foreign("in/train_4_a_1.nii.gz", lambda hu: np.where((hu < -600) & (hu > -950), hu + 860, hu))
    flagged = preprocess([cohort], tmp_path / "out", metadata=METADATA, **GRID)
    notes = flagged.manifest.set_index("volume")["notes"]
    assert notes["train_4_a_1.nii.gz"].startswith("no chest: 0.00 litres of lung")
    assert not notes["train_1_a_1.nii.gz"].startswith("no chest")
    assert [flagged.not_chest, len(flagged.manifest)] == [1, 3]
    left_out = preprocess([cohort], tmp_path / "out", metadata=METADATA, leave_out_non_chest=True, **GRID)
    assert [left_out.not_chest, left_out.resumed, len(left_out.manifest)] == [1, 3, 2]
    reasons = left_out.quarantine.set_index("volume")["reasons"]
    assert reasons["train_4_a_1.nii.gz"] == notes["train_4_a_1.nii.gz"]


def test_resumes_and_replays_to_the_byte(cohort, tmp_path, foreign):
    out = tmp_path / "out"
    assert preprocess([cohort], out, metadata=METADATA, **GRID).resumed == 0
    whole = snapshot(out)
    (out / "volumes/local/train_1_a_2.nii.gz").unlink()
    (out / "volumes/local/.partial-train_1_a_2.nii.gz").write_bytes(b"half")
    assert preprocess([cohort], out, metadata=METADATA, **GRID).resumed == 1
    (out / "volumes/local/train_1_a_1.nii.gz").write_bytes(b"torn")
    (out / "records/local/train_1_a_2.json").write_text("{")
    assert preprocess([cohort], out, metadata=METADATA, **GRID).resumed == 0
    assert snapshot(out) == whole
    assert preprocess([cohort], out, metadata=METADATA, **GRID).resumed == 2
    assert snapshot(out) == whole
    preprocess([cohort], tmp_path / "two", metadata=METADATA, engine=Local(2), **GRID)
    assert {k: v for k, v in snapshot(tmp_path / "two").items() if k.name != "manifest.csv"} == {
        k: v for k, v in whole.items() if k.name != "manifest.csv"
    }


@pytest.mark.parametrize("change", ["content", "fit", "metadata"])
def test_whatever_changes_the_voxels_makes_them_anew(cohort, tmp_path, foreign, change):
    preprocess([cohort], tmp_path / "out", metadata=METADATA, **GRID)
    options = dict(GRID, metadata=METADATA)
    if change == "content":
        foreign("in/train_1_a_1.nii.gz", lambda hu: hu + 1025)
    elif change == "fit":
        options["fit"] = "resize"
    else:
        options["metadata"] = METADATA.assign(intercept=[-1024, -1000])
    assert preprocess([cohort], tmp_path / "out", **options).resumed == (0 if change == "fit" else 1)


def test_manifest_in_manifest_out(cohort, tmp_path):
    workspace = Workspace(tmp_path / "ws")
    workspace.add_root("ct-rate", cohort)
    names = ["train_1_a_2.nii.gz", "train_9_a_1.nii.gz", "train_1_a_1.nii.gz"]
    frame = pd.DataFrame({name: [0.0, 1.0, np.nan] for name in FINDINGS})
    frame = frame.assign(dataset="ct-rate", volume=names, patient=["train_1", "train_9", "train_1"], split="train")
    frame = frame.assign(scan=["train_1_a", "train_9_a", "train_1_a"], source="real", root=["ct-rate", "", "ct-rate"])
    frame = frame.assign(path=[names[0], "", names[2]], sha256=["", "", "0" * 64], findings_text="Clear lungs.")
    inputs = validate(frame.reindex(columns=COLUMNS), "test")
    result = preprocess(inputs, workspace.path / "grids/small", workspace=workspace, metadata=METADATA, **GRID)
    (row,) = result.manifest.to_dict("records")
    assert row["root"] == "workspace"
    assert workspace.resolve(row["root"], row["path"]).is_file()
    assert [row["Lung nodule"], row["findings_text"], row["split"]] == [0.0, "Clear lungs.", "train"]
    assert result.quarantine["reasons"].tolist() == ["its content differs from the manifest's sha256"]
    elsewhere = preprocess(inputs, tmp_path / "my out", workspace=workspace, metadata=METADATA, **GRID)
    assert elsewhere.manifest["root"].tolist() == ["my-out"]
    assert workspace.resolve("my-out", elsewhere.manifest["path"][0]).is_file()
    with pytest.raises(UserError, match="give the workspace that declares the roots"):
        preprocess(inputs, tmp_path / "out", **GRID)
    with pytest.raises(UserError, match="no row of the manifest has a file"):
        preprocess(inputs.assign(path="", root=""), tmp_path / "out", workspace=workspace, **GRID)


def test_settings_are_checked_together(cohort, tmp_path):
    with pytest.raises(UserError) as caught:
        preprocess([cohort], tmp_path, size=(0, 1, 1), spacing_mm=(1, 1, -1), fit="squeeze", format="png")
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "size",
        "spacing",
        "fit",
        "format",
    ]


def test_what_would_be_lost_is_refused(cohort, tmp_path, foreign):
    foreign("again/train_1_a_1.nii.gz")
    with pytest.raises(UserError, match=r"several inputs have one name(.|\n)*again"):
        preprocess([cohort, tmp_path / "again"], tmp_path / "out", **GRID)
    foreign("out/volumes/local/ct.nii.gz")
    with pytest.raises(UserError, match="would overwrite their sources"):
        preprocess([tmp_path / "out/volumes/local/ct.nii.gz"], tmp_path / "out", **GRID)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="readable are"):
        preprocess([tmp_path / "empty"], tmp_path / "out", **GRID)
    with pytest.raises(UserError, match="does not exist"):
        preprocess([tmp_path / "absent.nii"], tmp_path / "out", **GRID)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        preprocess([cohort], tmp_path / "file" / "out", **GRID)


def test_outputs_inside_the_inputs_are_no_inputs(cohort):
    for resumed in (0, 1):
        result = preprocess([cohort], cohort / "grid", **GRID)
        assert result.manifest["volume"].tolist() == ["train_1_a_2.nii.gz"]
        assert result.resumed == resumed


def test_inputs_inside_the_output_folder_are_inputs(cohort, tmp_path):
    for resumed in (0, 1):
        result = preprocess([cohort], tmp_path, **GRID)
        assert result.manifest["volume"].tolist() == ["train_1_a_2.nii.gz"]
        assert result.resumed == resumed


def test_nothing_good_at_all(cohort, tmp_path):
    result = preprocess([cohort / "train_3_a_1.nii.gz"], tmp_path / "out", **GRID)
    assert result.manifest.empty
    assert result.manifest_path.read_text("utf-8").strip().split(",") == list(COLUMNS)
    assert len(result.quarantine) == 1


def test_what_may_not_be_read_is_quarantined(cohort, tmp_path, monkeypatch):
    closed = {cohort / "train_1_a_1.nii.gz", cohort / "series"}
    (cohort / "series").mkdir()

    def guarded(method):
        def call(path, *arguments, **options):
            if path in closed:
                raise PermissionError(13, "Permission denied", str(path))
            return method(path, *arguments, **options)

        return call

    # Permissions themselves would not stop a superuser who runs this test.
    for name in ("open", "iterdir"):
        monkeypatch.setattr(Path, name, guarded(getattr(Path, name)))
    result = preprocess([cohort], tmp_path / "out", metadata=METADATA, **GRID)
    assert result.manifest["volume"].tolist() == ["train_1_a_2.nii.gz"]
    reasons = dict(zip(result.quarantine["volume"], result.quarantine["reasons"], strict=True))
    for name in ("series.nii.gz", "train_1_a_1.nii.gz"):
        assert "cannot be read: [Errno 13] Permission denied" in reasons[name]


def test_every_wrong_path_is_named_at_once(cohort, tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        preprocess([cohort, tmp_path / "notes.txt", tmp_path / "empty", tmp_path / "no.nii"], tmp_path, **GRID)
    assert [problem.split()[0].rsplit("/")[-1] for problem in caught.value.problems] == ["notes.txt", "empty", "no.nii"]


def test_a_tilted_gantry_does_not_stop_the_others(cohort, tmp_path, phantom, save_foreign):
    shear = np.eye(4)
    shear[1, 2] = 0.2
    save_foreign(cohort / "tilted.nii.gz", phantom.hu.astype(np.int16), shear @ phantom.affine)
    result = preprocess([cohort], tmp_path / "out", metadata=METADATA, format="mha", **GRID)
    assert len(result.manifest) == 2
    reasons = dict(zip(result.quarantine["volume"], result.quarantine["reasons"], strict=True))
    assert reasons["tilted.mha"] == "MetaImage cannot hold a sheared affine (tilted gantry); use .nii.gz"


def test_detached_headers_are_keyed_on_their_voxels(phantom, tmp_path):
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(phantom.hu.astype(np.int16).transpose(2, 1, 0))
    image.SetSpacing(phantom.spacing_mm)
    sitk.WriteImage(image, str(tmp_path / "in.mhd"))
    assert preprocess([tmp_path / "in.mhd"], tmp_path / "out", **GRID).resumed == 0
    assert preprocess([tmp_path / "in.mhd"], tmp_path / "out", **GRID).resumed == 1
    (raw,) = tmp_path.glob("in.*raw")
    raw.write_bytes((phantom.hu + 1).astype(np.int16).tobytes(order="F"))
    assert preprocess([tmp_path / "in.mhd"], tmp_path / "out", **GRID).resumed == 0


def test_the_three_real_volumes(shared, tmp_path):
    workspace = Workspace(tmp_path / "ws")
    result = preprocess([shared / "real/volumes"], workspace.path / "real", workspace=workspace, format="mha")
    assert result.manifest["volume"].tolist() == [
        "chest_cta_crop_1.5mm.mha",
        "chest_full_4mm.mha",
        "chest_full_dicom.mha",
    ]
    assert result.quarantine.empty
    nrrd, dicom = (read(workspace.resolve("workspace", path)) for path in result.manifest["path"][1:])
    assert np.abs(nrrd.hu - dicom.hu).mean() < 3
    assert nrrd.spacing_mm == (5, 5, 5)


def test_metadata_of_ct_rate(cohort, tmp_path):
    (tmp_path / "metadata.csv").write_text(
        "VolumeName,XYSpacing,RescaleIntercept,RescaleSlope,ZSpacing\n"
        'train_1_a_1.nii.gz,"[10.0, 12.0]",-1024,1,14\n'
        'train_1_a_2.nii.gz,"[10.0, 12.0]",-8192,1,14\n'
    )
    result = preprocess([cohort], tmp_path / "out", metadata=tmp_path / "metadata.csv", **GRID)
    assert len(result.manifest) == 2


def test_volumes_written_manifest_is_valid(cohort, tmp_path):
    result = preprocess([cohort], tmp_path / "out", metadata=METADATA, **GRID)
    write_manifest(result.manifest, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == result.manifest_path.read_bytes()
