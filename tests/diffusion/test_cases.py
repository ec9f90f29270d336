"""Volumes, reports and patients become cases, latents and contexts; whatever was interrupted goes on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.training import Encoded, VaeTraining, encode, train_vae
from text2ct.diffusion.training.cases import Cases, render_patients, write_cases
from text2ct.diffusion.training.linear import fit_linear_blocks, sample_blocks
from text2ct.diffusion.training.vae import unit_tensor
from text2ct.diffusion.vae import LinearBlocksConfig, SpaceToDepthVae
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.simulation.cohort import COHORT_VERSION
from text2ct.simulation.patients import PACK_PATIENTS

from .conftest import TINY, stand_in_case


@pytest.mark.parametrize("finished", [0, 1])
def test_interrupted_encoding_goes_on_to_the_same_numbers(
    finished: int, cases: Cases, tokenizer: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At full size a batch is one volume: all but the one in flight are kept."""
    # By its module: the package gives the function of the same name.
    monkeypatch.setattr(sys.modules[encode.__module__], "BATCH", 2)
    torch.manual_seed(0)
    vae, clip = SpaceToDepthVae(TINY.vae), Clip3D(TINY.clip)
    kind: dict[str, Any] = {"conditioning": "tokens", "text_length": 32, "device": "cpu"}
    whole = encode(cases, vae, clip, tokenizer, tmp_path / "whole", **kind)
    encode_volume, calls = vae.encode, []

    def stop_after(x: torch.Tensor) -> Any:
        calls.append(len(x))
        if len(calls) == finished + 1:
            raise KeyboardInterrupt
        return encode_volume(x)

    monkeypatch.setattr(vae, "encode", stop_after)
    with pytest.raises(KeyboardInterrupt):
        encode(cases, vae, clip, tokenizer, tmp_path / "parts", **kind)
    calls.clear()
    monkeypatch.setattr(vae, "encode", lambda x: (calls.append(len(x)), encode_volume(x))[1])
    parts = encode(cases, vae, clip, tokenizer, tmp_path / "parts", **kind)
    assert calls == [2] * (3 - finished)
    assert np.array_equal(whole.latents, parts.latents)
    assert np.array_equal(whole.contexts, parts.contexts)
    assert whole.info == parts.info
    assert whole.info["std"] == pytest.approx(float(whole.latents.astype(np.float64).std()))
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [
        "contexts.npy",
        "encoded.json",
        "latents.npy",
    ]


def test_interrupted_reading_of_volumes_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("text2ct.diffusion.training.cases.CHUNK_OF_FILES", 2)
    form: dict[str, Any] = {"size": (16, 16, 16), "spacing_mm": (1.0, 1.0, 1.0), "source": "stand-in"}
    read: list[int] = []

    def case(number: int, stop: int = 3) -> Any:
        read.append(number)
        if number == stop:
            raise KeyboardInterrupt
        return stand_in_case(number)

    with pytest.raises(KeyboardInterrupt):
        write_cases(tmp_path, case, 5, **form)
    with pytest.raises(UserError, match="lacks 2 of its 3 chunks"):
        Cases(tmp_path)
    cases = write_cases(tmp_path, lambda number: case(number, stop=9), 5, **form)
    assert read == [0, 1, 2, 3, 2, 3, 4]
    assert [text.id for text in cases.texts] == [f"case-{number}" for number in range(5)]
    assert all(np.array_equal(cases.volume_hu(number), stand_in_case(number)[0]) for number in range(5))


def test_what_an_impression_leaves_out_is_kept(tmp_path: Path) -> None:
    form: dict[str, Any] = {"size": (16, 16, 16), "spacing_mm": (1.0, 1.0, 1.0), "source": "stand-in"}
    hu, plain = stand_in_case(0)
    partial = replace(plain, unsaid=(FINDINGS[3], FINDINGS[5]))
    before, cases = (
        write_cases(tmp_path / name, lambda _, text=text: (hu, text), 1, **form)
        for name, text in (("plain", plain), ("partial", partial))
    )
    assert "unsaid" not in (tmp_path / "plain" / "chunk-00000" / "cases.json").read_text("utf-8")
    assert before.texts[0].told(1).all()
    assert cases.digest != before.digest
    assert cases.texts[0].unsaid == partial.unsaid
    assert [FINDINGS[row] for row in np.flatnonzero(~cases.texts[0].told(1))] == list(partial.unsaid)
    assert cases.texts[0].told(0).all()
    assert cases.texts[0].told(2).all()


def test_patients_of_two_simulators_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form: Any = {"size": (16, 16, 16), "spacing_mm": (12.0, 12.0, 12.0), "workers": 1}
    cases = render_patients(tmp_path, PACK_PATIENTS.start, 1, **form)
    assert cases.info["cohort_version"] == COHORT_VERSION
    with pytest.raises(UserError, match=r"other settings \(chunks: 1 then, 2 now; count: 1 then, 101 now\)"):
        render_patients(tmp_path, PACK_PATIENTS.start, 101, **form)
    monkeypatch.setattr("text2ct.simulation.cohort.COHORT_VERSION", COHORT_VERSION + 1)
    message = rf"other settings \(cohort_version: {COHORT_VERSION} then, {COHORT_VERSION + 1} now\); choose another"
    with pytest.raises(UserError, match=message):
        render_patients(tmp_path, PACK_PATIENTS.start, 1, **form)


def test_encoding_maps_back(encoded: Encoded, cases: Cases) -> None:
    assert encoded.latents.shape == (len(cases), 4, 4, 4, 4)
    assert encoded.contexts.shape == (len(cases), 3, 1 + TINY.clip.text.queries, TINY.clip.projection_dim)
    assert encoded.info["std"] > 0


def test_linear_blocks_with_every_component_are_the_identity(cases: Cases, tmp_path: Path) -> None:
    vae = fit_linear_blocks(cases, LinearBlocksConfig(factor=2, latent_channels=8, decoder_kernel=1))
    assert sample_blocks(cases, 2).shape == (6 * 8**3, 8)
    unit = torch.rand(1, 1, 8, 8, 8)
    mean, deviation = vae.encode(unit)
    assert mean.shape == (1, 8, 4, 4, 4)
    assert not deviation.any()
    torch.testing.assert_close(vae.decode(mean), unit, atol=1e-2, rtol=0)
    with pytest.raises(UserError, match="fitted in closed form, not trained"):
        train_vae(cases, vae, VaeTraining(steps=1, patch=8), tmp_path, device="cpu")  # type: ignore[arg-type]


def test_neighbouring_blocks_help_the_linear_decoder(tmp_path: Path) -> None:
    """On a smooth volume two components and the neighbours beat two components alone."""
    axis = np.linspace(0, 3, 16)
    made = []
    for index in range(4):
        hu = 900 * np.sin(axis[:, None, None] + index) * np.cos(axis[None, :, None] * 2 + index) * np.ones(16)
        made.append((hu.astype(np.int16), stand_in_case(index)[1]))
    smooth = write_cases(tmp_path, made.__getitem__, 4, size=(16, 16, 16), spacing_mm=(1.0, 1.0, 1.0), source="smooth")
    unit = unit_tensor(smooth.volume_hu(0))[None, None]
    errors = []
    for kernel in (1, 3):
        vae = fit_linear_blocks(smooth, LinearBlocksConfig(factor=4, latent_channels=2, decoder_kernel=kernel))
        errors.append(float((vae.decode(vae.encode(unit)[0]) - unit).square().mean()))
    assert errors[1] < 0.5 * errors[0]
