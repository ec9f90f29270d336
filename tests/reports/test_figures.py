import io

import numpy as np
import pytest
from PIL import Image

from text2ct.reports import slice_montage
from text2ct.reports.figures import upright


@pytest.mark.parametrize(
    ("plane", "position", "bright", "marks"),
    [
        ("axial", 1.0, "top left", "RL"),  # anterior up, the patient's right on the left
        ("coronal", 1.0, "top left", "RL"),  # superior up
        ("sagittal", 1.0, "top left", "AP"),  # superior up, anterior on the left
    ],
)
def test_slices_hang_upright(phantom: np.ndarray, plane: str, position: float, bright: str, marks: str) -> None:
    piece = upright(phantom, (1.0, 1.0, 1.0), plane, position)
    height, width = piece.image.shape
    quarters = {
        "top left": piece.image[: height // 2, : width // 2],
        "top right": piece.image[: height // 2, width // 2 :],
        "bottom left": piece.image[height // 2 :, : width // 2],
        "bottom right": piece.image[height // 2 :, width // 2 :],
    }
    assert max(quarters, key=lambda name: float(quarters[name].mean())) == bright
    assert piece.left + piece.right == marks


def test_extent_is_in_millimetres(phantom: np.ndarray) -> None:
    spacing = (2.0, 1.0, 5.0)
    assert upright(phantom, spacing, "axial", 0.5).extent_mm == (40.0, 24.0)
    assert upright(phantom, spacing, "coronal", 0.5).extent_mm == (40.0, 80.0)
    assert upright(phantom, spacing, "sagittal", 0.5).extent_mm == (24.0, 80.0)


def test_montage_is_true_to_scale(phantom: np.ndarray) -> None:
    png = slice_montage(phantom, (2.0, 1.0, 5.0), axial=(0.9,), height_px=200)
    image = Image.open(io.BytesIO(png))
    # widths 40 + 40 + 24 mm and two gaps of 1.6 mm, over 80 mm of height
    assert image.height == 200
    assert image.width == pytest.approx(200 * 107.2 / 80, abs=1)
    grey = np.asarray(image.convert("L"))
    axial = grey[:, : int(40 / 80 * 200)]
    rows, columns = np.nonzero(axial > 250)
    assert columns.max() < 40 / 80 * 200 / 2  # the block is on the left
    assert rows.max() < 100
    assert rows.min() > 65  # centred: 28 mm of black above 24 mm of axial slice


def test_montage_is_repeatable(phantom: np.ndarray) -> None:
    first = slice_montage(phantom, (5, 5, 5), "soft_tissue")
    assert first == slice_montage(phantom, (5, 5, 5), "soft_tissue")
    assert first != slice_montage(phantom, (5, 5, 5), "lung", axial=(0.5,))
