"""NIfTI through nibabel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from text2ct.volumes.readers.stored import HU_MARK, Stored


class Nifti:
    """``.nii`` and ``.nii.gz``: affine from sform, else qform, else the voxel sizes."""

    name = "NIfTI"
    looks_like = ".nii, .nii.gz"

    def accepts(self, path: Path) -> bool:
        """Whether the name ends in ``.nii`` or ``.nii.gz``."""
        return path.name.lower().endswith((".nii", ".nii.gz")) and not path.is_dir()

    def load(self, path: Path) -> Stored:
        """Read stored voxels, without the header's scale, and the header."""
        import nibabel as nib

        image = nib.nifti1.Nifti1Image.from_filename(path)
        header = image.header
        proxy: Any = image.dataobj
        zooms = np.array(header["pixdim"][1:4], dtype=np.float64)
        notes = []
        if not header["qform_code"] and not header["sform_code"]:
            notes.append("the header gives no orientation (qform and sform codes are 0); LAS is assumed")
        affine = np.array(image.affine, dtype=np.float64)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if np.isfinite(spacing).all() and not np.allclose(spacing, np.abs(zooms), rtol=0.01, atol=1e-3):
            notes.append(
                f"the header's voxel sizes ({_mm(zooms)}) disagree with its affine ({_mm(spacing)}), "
                "which is used"
            )
        return Stored(
            voxels=np.asanyarray(proxy.get_unscaled()),
            affine=affine,
            slope=float(proxy.slope),
            intercept=float(proxy.inter),
            marked_hu=header["descrip"].item().decode("latin-1").startswith(HU_MARK),
            notes=tuple(notes),
        )


def _mm(values: np.ndarray) -> str:
    return " x ".join(f"{value:g}" for value in values) + " mm"
