"""A folder of DICOM slices through SimpleITK (GDCM)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from text2ct.errors import UserError
from text2ct.volumes.readers.itk import itk_voxels, quiet_itk
from text2ct.volumes.readers.stored import Stored, lps_to_ras

_MODALITY, _POSITION = "0008|0060", "0020|0032"
# Localisers and single captures beside the scan have fewer slices than this.
_SCAN_SLICES = 10
# Slices are often named by number or UID; so many files of a folder are looked into.
_LOOK_INTO = 10
# A gap between slices may differ from the usual one by a tenth before slices must be missing.
_GAP_TOLERANCE = 0.1
# So many file names or gaps are named in a message.
_SHOWN = 5


class DicomFolder:
    """A folder with one CT series; GDCM sorts its slices by position and applies their rescale tags."""

    name = "DICOM"
    looks_like = "a folder of .dcm files"

    def accepts(self, path: Path) -> bool:
        """Whether it is a folder that holds DICOM files, by suffix or by their preamble."""
        if not path.is_dir():
            return False
        files = _slice_files(path)
        return any(file.suffix.lower() == ".dcm" for file in files) or any(map(_is_dicom, files[:_LOOK_INTO]))

    def load(self, path: Path) -> Stored:
        """Read the series; its slices must be evenly spaced, without gaps."""
        import SimpleITK as sitk

        with quiet_itk():
            files, notes = _series_files(path)
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(files)
            reader.MetaDataDictionaryArrayUpdateOn()
            image = reader.Execute()
        modality = _tag(reader, 0, _MODALITY)
        if modality != "CT":
            raise UserError(f"{path} holds a series of modality '{modality}'; expected CT")
        positions = np.array([_position(reader, index, path) for index in range(len(files))])
        return Stored(voxels=itk_voxels(image), affine=_affine(image, positions, path), notes=notes)


def _slice_files(path: Path) -> list[Path]:
    """The sorted files of a folder that may be slices; ``DICOMDIR`` is a disc's table of contents."""
    files = (file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    return sorted(file for file in files if file.name.upper() != "DICOMDIR")


def _is_dicom(file: Path) -> bool:
    """Whether a file of any name carries DICOM's preamble; one that cannot be opened does not show it."""
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _series_files(path: Path) -> tuple[list[str], tuple[str, ...]]:
    """The sorted files of the one CT series in a folder, and remarks."""
    import SimpleITK as sitk

    series = {
        uid: list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path), uid))
        for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
    }
    if not series:
        raise UserError(f"{path} holds no readable DICOM series")
    known = {Path(file).name for files in series.values() for file in files}
    unread = [
        file.name
        for file in _slice_files(path)
        if file.name not in known and (file.suffix.lower() == ".dcm" or _is_dicom(file))
    ]
    notes = (f"{len(unread)} unreadable DICOM file(s) left out: {', '.join(unread[:_SHOWN])}",) if unread else ()
    if len(series) == 1:
        return next(iter(series.values())), notes
    scans = {uid: files for uid, files in series.items() if len(files) >= _SCAN_SLICES}
    if len(scans) != 1:
        listed = [f"{uid}: {len(files)} files" for uid, files in series.items()]
        raise UserError(f"{path} holds {len(series)} DICOM series; give each a folder of its own", listed)
    return next(iter(scans.values())), (*notes, f"{len(series) - 1} short series in the folder left out")


def _tag(reader: Any, index: int, key: str) -> str:
    return reader.GetMetaData(index, key).strip() if reader.HasMetaDataKey(index, key) else ""


def _position(reader: Any, index: int, path: Path) -> list[float]:
    try:
        x, y, z = (float(number) for number in _tag(reader, index, _POSITION).split("\\"))
    except ValueError:
        raise UserError(f"{path} has a slice without a usable ImagePositionPatient (0020,0032)") from None
    return [x, y, z]


def _affine(image: Any, positions: np.ndarray, path: Path) -> np.ndarray:
    """RAS+ affine from the slices' own positions, which also hold the shear of a tilted gantry."""
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :2] = direction[:, :2] * np.array(image.GetSpacing())[:2]
    affine[:3, 3] = positions[0]
    if len(positions) > 1:
        along = (positions - positions[0]) @ direction[:, 2]
        gaps = np.diff(along)
        usual = float(np.median(gaps))
        uneven = np.flatnonzero(np.abs(gaps - usual) > _GAP_TOLERANCE * abs(usual))
        if usual == 0 or uneven.size:
            found = ", ".join(f"{gaps[k]:g} mm after slice {k + 1}" for k in uneven[:_SHOWN])
            raise UserError(
                f"{path} has missing or repeated slices: the usual gap is {usual:g} mm, but {found or 'it is 0'}"
            )
        affine[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    else:
        affine[:3, 2] = direction[:, 2] * image.GetSpacing()[2]
    return lps_to_ras(affine)
