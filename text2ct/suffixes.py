"""The endings of volumes' file names: the one list that readers, writers, tables and manifests go by."""

from __future__ import annotations

# The files that `text2ct.volumes.read` opens, but for RAD-ChestCT's .npz: an .npz may hold anything.
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".zarr")
# What else tables put behind a volume's name.
_OTHER_SUFFIXES = (".dcm", ".npz", ".npy")


def without_suffix(name: str) -> str:
    """A file name without the ending that says its format; other dots belong to the name.

    Example:
        >>> without_suffix("train_1_a_2.nii.gz"), without_suffix("case.v2")
        ('train_1_a_2', 'case.v2')
    """
    lower = name.lower()
    ending = next((ending for ending in VOLUME_SUFFIXES + _OTHER_SUFFIXES if lower.endswith(ending)), "")
    return name[: len(name) - len(ending)]
