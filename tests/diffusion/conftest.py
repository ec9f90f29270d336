from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from text2ct.diffusion import Pack, init_pack
from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.init import PRESETS
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.training import Encoded, encode
from text2ct.diffusion.training.cases import Cases, CaseText, write_cases
from text2ct.diffusion.vae import SpaceToDepthVae
from text2ct.findings import FINDINGS

TINY = PRESETS["tiny"]

# The numeric fixtures lie beside a checkout in development; without them their tests are skipped.
PARITY = Path(__file__).parents[3] / "shared" / "parity"


@pytest.fixture(scope="session")
def parity() -> Path:
    if not PARITY.is_dir():
        pytest.skip("the parity fixtures are not on this machine")
    return PARITY


@pytest.fixture(scope="session")
def tiny_pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return init_pack(tmp_path_factory.mktemp("pack") / "random")


def stand_in_case(index: int) -> tuple[np.ndarray, CaseText]:
    rng = np.random.default_rng(index)
    labels = (rng.random(len(FINDINGS)) < 0.3).astype(np.float32)
    labels[0] = np.nan
    details = np.full((len(FINDINGS), 3), np.nan, dtype=np.float32)
    details[labels == 1] = rng.random((int(np.nansum(labels)), 3)).round(2)
    said = " ".join(f"{name} is seen." for name, label in zip(FINDINGS, labels, strict=True) if label == 1)
    hu = rng.integers(-1000, 1001, (16, 16, 16)).astype(np.int16)
    return hu, CaseText(f"case-{index}", said or "Normal.", "" if index % 2 else "See above.", labels, details)


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    folder = tmp_path_factory.mktemp("cases")
    return write_cases(folder, stand_in_case, 6, size=(16, 16, 16), spacing_mm=(20.0, 20.0, 20.0), source="stand-in")


@pytest.fixture(scope="session")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(["pleural effusion is seen", "normal"], TINY.clip.text.vocab_size)


@pytest.fixture(scope="session")
def encoded(cases: Cases, tokenizer: TextTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    torch.manual_seed(0)
    vae, clip = SpaceToDepthVae(TINY.vae), Clip3D(TINY.clip)
    out = tmp_path_factory.mktemp("encoded")
    return encode(cases, vae, clip, tokenizer, out, conditioning="tokens", text_length=32, device="cpu")
