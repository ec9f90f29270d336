import base64
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2ct.reports import viewer, write_benchmark_report
from text2ct.volumes import HU_MAX, HU_MIN

from .conftest import make_result

WIDGET = (
    'var a=1,K=class{};console.log("Creating new Niivue instance");let o=g(),s=f(o);v=new K(s);export{w as default};\n'
)


def _decoded(encoded: viewer.Encoded) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(encoded.nifti)))


def test_a_small_volume_keeps_its_voxels(phantom: np.ndarray) -> None:
    encoded = viewer.encode_volume(phantom, (2.0, 1.0, 5.0), 100_000)
    image = _decoded(encoded)
    assert not encoded.shrunk
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(image.dataobj), phantom)
    np.testing.assert_allclose(image.header.get_zooms(), (2.0, 1.0, 5.0))
    centre = image.affine @ [*(np.array(phantom.shape) - 1) / 2, 1.0]
    np.testing.assert_allclose(centre[:3], 0.0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 24)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
    max_bytes=st.integers(900, 20_000),
)
def test_a_volume_fits_and_keeps_its_extent(
    size: tuple[int, int, int], spacing: tuple[float, float, float], max_bytes: int
) -> None:
    hu = np.random.default_rng(sum(size)).uniform(-3000, 3000, size)
    encoded = viewer.encode_volume(hu, spacing, max_bytes)
    image = _decoded(encoded)
    values, zooms = np.asarray(image.dataobj), np.array(image.header.get_zooms())
    assert len(encoded.nifti) <= max_bytes
    assert values.shape == encoded.size
    assert values.min() >= HU_MIN
    assert values.max() <= HU_MAX
    assert encoded.shrunk == (values.shape != size)
    lost = np.multiply(size, spacing) - values.shape * zooms
    assert (lost > -1e-3).all()
    assert (lost < zooms + 1e-3).all()


def test_blocks_are_averaged_from_the_finest_direction() -> None:
    hu = np.arange(16, dtype=float).reshape(4, 2, 2) * np.ones((4, 2, 2))
    np.testing.assert_array_equal(viewer._averaged(hu, np.array([2, 1, 1])), hu.reshape(2, 2, 2, 2).mean(axis=1))
    noise = np.random.default_rng(0).normal(0, 300, (40, 40, 10))
    assert viewer.encode_volume(noise, (0.5, 0.5, 5.0), 8_000).size[2] == 10


def test_the_class_is_taken_out_of_the_widget() -> None:
    script = viewer.niivue_script(WIDGET)
    assert script is not None
    assert "export" not in script
    assert "globalThis.Niivue = K;" in script
    assert viewer.niivue_script(WIDGET.replace("export{w as default};", "")) is None
    assert viewer.niivue_script(WIDGET.replace("Niivue instance", "viewer")) is None


@pytest.mark.parametrize("name", ["no-such-package", "numpy"])
def test_without_the_package_the_page_shows_stills(
    name: str, phantom: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(viewer, "_PACKAGE", name)
    monkeypatch.setattr(viewer, "bundle", viewer.bundle.__wrapped__)
    shown = [{"prompt": "A chest.", "labels": [], "seed": 0, "hu": phantom}]
    text = write_benchmark_report(make_result(), tmp_path, volumes=shown).read_text(encoding="utf-8")
    assert "still pictures only" in capsys.readouterr().err
    assert 'id="viewer"' not in text
    assert "data-nifti" not in text
    assert "data:image/png" in text


def test_a_page_stays_small_and_browses_a_dozen(tmp_path: Path) -> None:
    assert viewer.bundle() is not None
    noise = np.random.default_rng(0).normal(-300, 400, (96, 96, 96)).astype(np.float32)
    shown = [{"prompt": "Noise.", "labels": [], "seed": k, "hu": noise, "spacing_mm": (1, 1, 1)} for k in range(13)]
    page = write_benchmark_report(make_result(), tmp_path, volumes=shown)
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 15_000_000
    assert text.count("data-nifti=") == viewer.MAX_VOLUMES
    assert text.count('class="card volume"') == 13
    assert "voxels of 12 of 12 volumes were averaged in the viewer" in text
    assert "BSD 2-Clause" in text  # NiiVue's terms go with it
