"""One battery for every format: what goes in comes out, where it was, or the reason is said."""

from __future__ import annotations

import gzip
import locale
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import zarr
from nibabel import orientations
from zarr.storage import ZipStore

from text2ct.errors import UserError
from text2ct.volumes import FORMATS, Volume, read, write
from text2ct.volumes.readers import READERS
from text2ct.volumes.readers.itk import quiet_itk
from text2ct.volumes.readers.zarr import write_array

WITHOUT_AFFINE = ("RAD-ChestCT",)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def to_itk(volume):
    image = sitk.GetImageFromArray(volume.hu.astype(np.int16).transpose(2, 1, 0))
    lps = LPS @ volume.affine
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)).ravel().tolist())
    return image


def write_dicom(volume, folder, series="1.2.3.1", modality="CT", tilt_mm=0.0, leave_out=()):
    folder.mkdir(exist_ok=True)
    image = to_itk(volume)
    direction = image.GetDirection()
    cosines = [direction[k] for k in (0, 3, 6, 1, 4, 7)]
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(image.GetDepth()):
        if k in leave_out:
            continue
        x, y, z = image.TransformIndexToPhysicalPoint((0, 0, k))
        piece = image[:, :, k]  # ITK stores it by the inverse of the rescale tags
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{series}.{k + 1}",
            "0008|0060": modality,
            "0020|000d": "1.2.3",
            "0020|000e": series,
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{value:.6f}" for value in (x, y + k * tilt_mm, z)),
            "0020|0037": "\\".join(f"{value:.6f}" for value in cosines),
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for key, value in tags.items():
            piece.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{series}-{99 - k:03d}.dcm"))
        with quiet_itk():
            writer.Execute(piece)
    return folder


def write_rad_chestct(volume, path, **more):
    """Voxels alone, turned as the data set has them: slices from superior, rows from anterior, columns from right."""
    wanted = orientations.axcodes2ornt("IPL")
    turn = orientations.ornt_transform(orientations.io_orientation(volume.affine), wanted)
    np.savez_compressed(path, ct=orientations.apply_orientation(volume.hu, turn).astype(np.int16), **more)
    return path


def assert_placed(reader, volume, affine):
    """The affine came back, or the one that is stated of a format that holds none."""
    if reader in WITHOUT_AFFINE:
        affine = np.diag([0.8, 0.8, 0.8, 1.0])
        affine[:3, 3] = -0.4 * (np.array(volume.size) - 1)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-3)


def write_as(reader, volume, folder):
    """A volume as a foreign file of a registered format."""
    match reader:
        case "NIfTI":
            path = folder / "ct.nii.gz"
            nib.save(nib.Nifti1Image(volume.hu.astype(np.int16), volume.affine), path)
        case "Zarr":
            path = folder / "ct.zarr"
            write_array(path, volume.hu.astype(np.int16), volume.affine)
        case "DICOM":
            return write_dicom(volume, folder / "series")
        case "RAD-ChestCT":
            return write_rad_chestct(volume, folder / "trn00001.npz")
        case _:
            path = folder / {"MetaImage": "ct.mhd", "NRRD": "ct.nrrd"}[reader]
            sitk.WriteImage(to_itk(volume), str(path))
    return path


@pytest.mark.parametrize("reader", sorted(READERS))
class TestEveryReader:
    @pytest.mark.parametrize("degrees", [0, 20])
    def test_voxels_and_affine_survive(self, reader, degrees, phantom, rotated, tmp_path):
        placed = rotated(phantom, degrees)
        volume = read(write_as(reader, placed, tmp_path))
        np.testing.assert_array_equal(volume.hu, phantom.hu)
        assert_placed(reader, volume, placed.affine)
        if reader in WITHOUT_AFFINE:
            return
        assert volume.obliquity_deg == pytest.approx(degrees, abs=0.01)
        assert any("oblique: its axes are tilted by 20.0 degrees" in note for note in volume.notes) == bool(degrees)

    @pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
    def test_flips_commute_with_reading(self, reader, axes, phantom, tmp_path):
        if reader == "DICOM" and 2 in axes:
            axes = tuple(axis for axis in axes if axis != 2)  # slices are sorted by their position
        flip = np.eye(4)
        for axis in axes:
            flip[axis, axis], flip[axis, 3] = -1, phantom.size[axis] - 1
        stored = Volume(np.flip(phantom.hu, axes), phantom.affine @ flip)
        volume = read(write_as(reader, stored, tmp_path))
        np.testing.assert_array_equal(volume.hu, phantom.hu)
        assert_placed(reader, volume, phantom.affine)

    @pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1), (2, 1, 0)], ids=str)
    def test_permuted_axes_commute_with_reading(self, reader, order, phantom, tmp_path):
        permutation = np.eye(4)[:, [*order, 3]]
        stored = Volume(phantom.hu.transpose(order), phantom.affine @ permutation)
        volume = read(write_as(reader, stored, tmp_path))
        np.testing.assert_array_equal(volume.hu, phantom.hu)
        assert_placed(reader, volume, phantom.affine)

    def test_a_damaged_file_is_one_clear_error(self, reader, phantom, tmp_path):
        path = write_as(reader, phantom, tmp_path)
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
        with pytest.raises(UserError, match=path.name):
            read(path)


@pytest.mark.parametrize("suffix", FORMATS)
class TestEveryWriter:
    def test_round_trip(self, suffix, phantom, rotated, tmp_path):
        placed = rotated(phantom, 12)
        write(placed, tmp_path / f"ct.{suffix}")
        volume = read(tmp_path / f"ct.{suffix}")
        np.testing.assert_array_equal(volume.hu, phantom.hu)
        np.testing.assert_allclose(volume.affine, placed.affine, atol=1e-4)

    def test_the_same_bytes_each_time(self, suffix, phantom, tmp_path):
        first, second = tmp_path / f"a.{suffix}", tmp_path / "elsewhere" / f"b.{suffix}"
        write(phantom, first)
        write(replace(phantom, hu=phantom.hu + 0.3), second)
        assert first.read_bytes() == second.read_bytes()
        assert not list(tmp_path.rglob(".partial*"))

    def test_other_software_agrees(self, suffix, phantom, rotated, tmp_path):
        placed = rotated(phantom, 12)
        path = tmp_path / f"ct.{suffix}"
        write(placed, path)
        index = (3, 4, 5)
        if suffix == "zarr":
            with ZipStore(path, mode="r") as store:
                array = zarr.open_array(store, mode="r")
                assert array[index] == phantom.hu[index]
                assert array.attrs["affine_ras_mm"] == placed.affine.tolist()
            return
        image = sitk.ReadImage(str(path))
        assert image.GetPixel(index) == phantom.hu[index]
        world = placed.affine @ [*index, 1]
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), (LPS @ world)[:3], atol=1e-3)

    def test_what_cannot_be_written(self, suffix, phantom, tmp_path):
        hu = phantom.hu.copy()
        hu[0, 0, 0] = np.nan
        with pytest.raises(UserError, match="NaN or infinite"):
            write(replace(phantom, hu=hu), tmp_path / f"ct.{suffix}")
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="cannot write"):
            write(phantom, tmp_path / "file" / f"ct.{suffix}")


def test_nifti_header_says_where_and_what(phantom, tmp_path):
    write(phantom, tmp_path / "ct.nii.gz")
    header = nib.load(tmp_path / "ct.nii.gz").header
    assert header.get_data_dtype() == np.int16
    assert (header["qform_code"], header["sform_code"]) == (1, 1)
    np.testing.assert_allclose(header.get_qform(), phantom.affine, atol=1e-4)
    stored = nib.Nifti1Header(gzip.decompress((tmp_path / "ct.nii.gz").read_bytes())[:348])
    assert (stored["scl_slope"], stored["scl_inter"]) == (1, 0)
    assert header.get_xyzt_units()[0] == "mm"


def test_sheared_volumes(phantom, tmp_path):
    shear = np.eye(4)
    shear[1, 2] = 0.2
    sheared = replace(phantom, affine=shear @ phantom.affine)
    write(sheared, tmp_path / "ct.nii.gz")
    np.testing.assert_allclose(read(tmp_path / "ct.nii.gz").affine, sheared.affine, atol=1e-4)
    assert nib.load(tmp_path / "ct.nii.gz").header["qform_code"] == 0
    with pytest.raises(UserError, match=r"sheared affine .* use \.nii\.gz"):
        write(sheared, tmp_path / "ct.mha")


def test_unknown_suffix(phantom, tmp_path):
    with pytest.raises(UserError, match=r"ends in \.nii\.gz, \.nii, \.mha, \.zarr"):
        write(phantom, tmp_path / "ct.png")


def test_dicom_tilted_gantry_is_kept_as_shear(phantom, tmp_path):
    volume = read(write_dicom(phantom, tmp_path / "series", tilt_mm=2.0))
    np.testing.assert_array_equal(volume.hu, phantom.hu)
    assert volume.affine[1, 2] == pytest.approx(-2.0, abs=1e-3)
    assert volume.obliquity_deg == pytest.approx(np.degrees(np.arctan2(2, 14)), abs=0.01)


def test_dicom_refusals(phantom, make_phantom, tmp_path):
    with pytest.raises(UserError, match="missing or repeated slices: the usual gap is 14 mm, but 28 mm after slice 5"):
        read(write_dicom(phantom, tmp_path / "gap", leave_out=(5,)))
    with pytest.raises(UserError, match="modality 'MR'; expected CT"):
        read(write_dicom(phantom, tmp_path / "mr", modality="MR"))
    write_dicom(phantom, tmp_path / "two")
    write_dicom(phantom, tmp_path / "two", series="1.2.3.2")
    with pytest.raises(UserError, match="holds 2 DICOM series; give each a folder of its own"):
        read(tmp_path / "two")


def test_dicom_localiser_is_left_out(phantom, make_phantom, tmp_path):
    write_dicom(make_phantom((24, 20, 3)), tmp_path / "series", series="1.2.3.9")
    volume = read(write_dicom(phantom, tmp_path / "series"))
    np.testing.assert_array_equal(volume.hu, phantom.hu)
    assert volume.notes == ("1 short series in the folder left out",)
    for file in (tmp_path / "series").iterdir():
        file.rename(file.with_suffix(""))  # DICOM files often have no suffix
    np.testing.assert_array_equal(read(tmp_path / "series").hu, phantom.hu)


def test_paths_that_are_no_volumes(tmp_path):
    with pytest.raises(UserError, match=r"absent\.nii does not exist"):
        read(tmp_path / "absent.nii")
    with pytest.raises(UserError, match=r"is a folder without \.dcm files; readable are NIfTI"):
        read(tmp_path)
    (tmp_path / "scan.png").touch()
    with pytest.raises(UserError, match=r"is a '\.png' file"):
        read(tmp_path / "scan.png")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 8), "single picture"),
        ((8, 8, 1), "single picture"),
        ((8, 8, 8, 3), "has 4 dimensions .* take one time point out"),
    ],
)
def test_not_one_3d_volume(tmp_path, save_foreign, shape, message):
    path = save_foreign(tmp_path / "ct.nii", np.zeros(shape, np.int16), np.eye(4))
    with pytest.raises(UserError, match=message):
        read(path)


def test_four_dimensions_of_one_time_point(tmp_path, save_foreign, phantom):
    path = save_foreign(tmp_path / "ct.nii", phantom.hu[..., None].astype(np.int16), phantom.affine)
    np.testing.assert_array_equal(read(path).hu, phantom.hu)


def test_every_structural_problem_is_named_at_once(tmp_path, save_foreign):
    affine = np.diag([1.0, 1.0, 0.0, 1.0])
    path = save_foreign(tmp_path / "ct.nii", np.zeros((8, 8, 8, 2), np.int16), affine, (1, 0))
    with pytest.raises(UserError, match="not a usable CT volume") as caught:
        read(path)
    assert ["dimensions" in caught.value.problems[0], "zero voxel spacing" in caught.value.problems[1]] == [
        True,
        True,
    ]


def nifti_header(path, **fields):
    """Overwrite header fields of an uncompressed NIfTI file."""
    content = path.read_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        if isinstance(value, dict):
            for index, number in value.items():
                header[name][index] = number
        else:
            header[name] = value
    path.write_bytes(header.binaryblock + content[348:])
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pixdim": {3: 0}}, "voxel sizes are 10 x 12 x 0 mm; expected three numbers above 0"),
        ({"pixdim": {3: -14}, "sform_code": 0}, "voxel sizes are 10 x 12 x -14 mm"),
        ({"pixdim": {1: np.nan}}, "voxel sizes are nan x 12 x 14 mm"),
        ({"srow_y": {1: np.nan}}, "affine has NaN or infinite entries"),
        ({"srow_y": {1: 0}}, "zero voxel spacing: 10 x 0 x 14 mm"),
        ({"scl_slope": np.inf}, "slope is inf and intercept"),
    ],
    ids=str,
)
def test_impossible_nifti_headers_are_not_mended(foreign, capfd, fields, message):
    with pytest.raises(UserError, match=message):
        read(nifti_header(foreign("ct.nii"), **fields))
    assert capfd.readouterr().err == ""


META = "NDims = 3\nDimSize = 24 20 16\nElementSpacing = {}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 24 20 16\nspacings: {}\nendian: little\nencoding: raw\n\n"


@pytest.mark.parametrize(("name", "header"), [("ct.mha", META), ("ct.nrrd", NRRD)])
def test_impossible_itk_headers_are_not_mended(phantom, tmp_path, name, header):
    voxels = phantom.hu.astype("<i2").tobytes(order="F")
    path = tmp_path / name
    path.write_bytes(header.format("10 -12 14").encode() + voxels)
    with pytest.raises(UserError, match="voxel sizes are '10 -12 14'; expected three numbers above 0"):
        read(path)
    for spacing in ("10 0 14", "10 nan 14", "10 x 14"):
        path.write_bytes(header.format(spacing).encode() + voxels)
        with pytest.raises(UserError, match=name):
            read(path)
    path.write_bytes(header.format("10 12 14").encode() + voxels)
    assert read(path).spacing_mm == phantom.spacing_mm
    assert [("LPS is assumed" in note) for note in read(path).notes] == ([True] if name == "ct.nrrd" else [])


def test_empty_and_short_files(foreign, tmp_path):
    (tmp_path / "empty.nii.gz").touch()
    with pytest.raises(UserError, match="it is empty"):
        read(tmp_path / "empty.nii.gz")
    path = foreign("ct.nii")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="could the file be damaged"):
        read(path)


def test_colour_is_refused(tmp_path):
    colour = np.zeros((8, 8, 8), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "ct.nii")
    with pytest.raises(UserError, match="expected one number each"):
        read(tmp_path / "ct.nii")


def test_header_remarks(foreign):
    path = nifti_header(foreign("ct.nii"), pixdim={3: 3})
    (note,) = read(path).notes
    assert "(10 x 12 x 3 mm) disagree with its affine (10 x 12 x 14 mm), which is used" in note
    (note,) = read(nifti_header(path, sform_code=0, qform_code=0)).notes
    assert "no orientation (qform and sform codes are 0); LAS is assumed" in note


def test_metadata_spacing_is_for_the_first_generation(foreign, phantom):
    wanted = (10.0, 12.0, 7.0)
    first = read(foreign("v1.nii", lambda hu: hu + 1024), slope=1, intercept=-1024, spacing_mm=wanted)
    assert first.spacing_mm == wanted
    assert first.notes == ("the header says 10 x 12 x 14 mm, the metadata 10 x 12 x 7 mm, which is used",)
    second = read(foreign("v2.nii"), slope=1, intercept=-1024, spacing_mm=wanted)
    assert second.spacing_mm == phantom.spacing_mm
    assert second.notes == ("the metadata says 10 x 12 x 7 mm, the header 10 x 12 x 14 mm, which is used",)
    assert read(foreign("v3.nii"), spacing_mm=(10, 12, 14)).notes == ()


def test_a_placeholder_of_1_mm_gives_way_to_the_metadata(foreign, phantom, tmp_path, save_foreign):
    ones = save_foreign(tmp_path / "ones.nii", phantom.hu.astype("<i2"), np.eye(4))
    stated = {"slope": 1, "intercept": -1024, "spacing_mm": (10, 12, 14)}
    volume = read(ones, size=phantom.size, **stated)
    assert volume.spacing_mm == (10, 12, 14)
    assert volume.notes == ("the header says 1 x 1 x 1 mm, a placeholder, the metadata 10 x 12 x 14 mm, which is used",)
    # Of another number of voxels it is a scan resampled to 1 mm.
    for size in (None, (240, 240, 224)):
        volume = read(ones, size=size, **stated)
        assert volume.spacing_mm == (1, 1, 1)
        assert volume.notes == ("the metadata says 10 x 12 x 14 mm, the header 1 x 1 x 1 mm, which is used",)
    # Other sizes are no placeholders, and no placeholder is mended with another.
    assert read(foreign("v2.nii"), size=phantom.size, spacing_mm=(1, 1, 1)).spacing_mm == phantom.spacing_mm
    assert read(ones, size=phantom.size, spacing_mm=(0, 12, 14)).spacing_mm == (1, 1, 1)


def test_metadata_spacing_holds_the_first_stored_voxel_in_place(foreign, phantom, tmp_path, save_foreign):
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    flip[:3, 3] = (80, 90, -300)
    stored = phantom.hu[::-1, ::-1].astype(np.int16)
    second = read(save_foreign(tmp_path / "v2.nii", stored, flip @ np.diag([10.0, 12.0, 14.0, 1.0])))
    first = save_foreign(tmp_path / "v1.nii", stored + 1024, flip)
    volume = read(first, slope=1, intercept=-1024, spacing_mm=(10, 12, 14))
    np.testing.assert_allclose(volume.affine, second.affine, atol=1e-4)
    np.testing.assert_array_equal(volume.hu, second.hu)


def test_gzip_checksum_is_checked(foreign):
    path = foreign()
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    with pytest.raises(UserError, match="it ends early or is damaged"):
        read(path)


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
def test_contents_of_another_format(phantom, tmp_path, name):
    write(phantom, tmp_path / "ct.mha")
    content = (tmp_path / "ct.mha").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(UserError, match="contents are not NIfTI-1; is its name's ending the right one"):
        read(tmp_path / name)


def test_dicom_files_that_are_no_slices(phantom, tmp_path):
    folder = write_dicom(phantom, tmp_path / "series")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert read(folder).notes == ()
    last = max(folder.glob("*.dcm"), key=lambda file: sitk.ReadImage(str(file)).GetOrigin()[2])
    last.write_bytes(last.read_bytes()[:300])
    volume = read(folder)
    assert volume.size[2] == phantom.size[2] - 1
    assert volume.notes == (f"1 unreadable DICOM file(s) left out: {last.name}",)


def test_the_three_real_volumes(shared, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(shared / "real/volumes", folder)
    nrrd, dicom = read(folder / "chest_full_4mm.nrrd"), read(folder / "chest_full_dicom")
    crop = read(folder / "chest_cta_crop_1.5mm.nii.gz")
    np.testing.assert_array_equal(nrrd.hu, dicom.hu)
    np.testing.assert_allclose(nrrd.affine, dicom.affine, atol=1e-3)
    assert crop.size == (122, 102, 112)
    for volume in (nrrd, dicom, crop):
        assert volume.intensity.startswith("HU as stored")
        assert volume.hu[volume.hu < -950].mean() == pytest.approx(-985, abs=25)
    # Upright: the spine's bone lies in the back half, and the lungs above the liver.
    chest = nrrd.hu
    assert (chest[24:40, :32] > 200).sum() > 3 * (chest[24:40, 32:] > 200).sum()
    assert (chest[..., 45:60] < -700).mean() > (chest[..., :10] < -700).mean()


def test_gdcm_leaves_no_other_locale_behind(phantom, tmp_path):
    """Writing DICOM sets it to C, in which Python takes every text for ASCII."""
    before = locale.setlocale(locale.LC_CTYPE)
    read(write_dicom(phantom, tmp_path / "series"))
    assert locale.setlocale(locale.LC_CTYPE) == before
