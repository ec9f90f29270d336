"""One registry of file formats; each reader opens a path and hands over what the file says."""

from __future__ import annotations

from pathlib import Path

from text2ct.errors import UserError
from text2ct.volumes.readers.dicom import DicomFolder
from text2ct.volumes.readers.itk import MetaImage, Nrrd
from text2ct.volumes.readers.nifti import Nifti
from text2ct.volumes.readers.rad_chestct import RadChestCT
from text2ct.volumes.readers.stored import HU_MARK, Reader, Stored
from text2ct.volumes.readers.zarr import Zarr

READERS: dict[str, Reader] = {
    reader.name: reader for reader in (Nifti(), MetaImage(), Nrrd(), Zarr(), DicomFolder(), RadChestCT())
}


def find_reader(path: Path) -> Reader:
    """The reader of a path's format.

    Raises:
        UserError: The path does not exist, or no reader knows its format.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    for reader in READERS.values():
        if reader.accepts(path):
            return reader
    kinds = "; ".join(f"{reader.name} ({reader.looks_like})" for reader in READERS.values())
    what = "a folder without .dcm files" if path.is_dir() else f"a '{path.suffix}' file"
    raise UserError(f"{path} is {what}; readable are {kinds}")


__all__ = ["HU_MARK", "READERS", "Reader", "Stored", "find_reader"]
