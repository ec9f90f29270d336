"""CT-CLIP as a judge: its folder, what it reads, and that it is no generator's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertTokenizer

from text2ct.diffusion.ctclip import CtClip, CtClipConfig
from text2ct.diffusion.ctvit import CTViTConfig
from text2ct.errors import UserError
from text2ct.evaluation.generator import Measures, evaluate, scorers
from text2ct.evaluation.generator.provenance import conditioned_by
from text2ct.evaluation.generator.scorers import CtClipScorer, PackScorer

from .evaluated_sets import CPU, SETTINGS, N
from .volumes import stand_in

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "report", "of", "test", "##0", "##1", "##2", "."]
CONFIG = CtClipConfig(
    vision=CTViTConfig(
        image_size=(20, 20, 20), patch_size=10, temporal_patch_size=10, dim=8, spatial_depth=1, temporal_depth=1,
        heads=2, dim_head=4, codebook_size=8,
    ),
    latent_dim=6, vocab_size=len(WORDS), text_hidden_size=8, text_layers=1, text_heads=2, text_intermediate_size=16,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "ct-clip"
    (path / "tokenizer").mkdir(parents=True)
    torch.save(CtClip(CONFIG).eval().state_dict(), path / "CT-CLIP.pt")
    BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(path / "tokenizer")
    return path


def test_volumes_and_texts_become_unit_vectors(folder: Path) -> None:
    scorer = CtClipScorer(folder, CPU, CONFIG)
    assert scorer.grid.size == (20, 20, 20)
    assert scorer.grid.spacing_mm == (0.75, 0.75, 1.5)
    volume = stand_in(0, 20)
    images, texts = scorer.volumes([volume]), scorer.texts(["report of test1.", "report of test2."])
    for table in (images, texts):
        assert np.allclose(np.linalg.norm(table, axis=1), 1, atol=1e-5)
    assert not np.array_equal(texts[0], texts[1])
    turned = torch.from_numpy(np.ascontiguousarray(volume[::-1, ::-1]) / 1000.0).float()[None, None]
    assert np.allclose(images[0], scorer._network.encode_volume(turned)[0].numpy(), atol=1e-6), "from right to left"


def test_it_scores_sets_and_conditioned_none(
    folder: Path, sets, workspace, tiny_pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "_CTCLIP_SPACING_MM", (16.0, 16.0, 16.0))
    scorer = CtClipScorer(folder, CPU, CONFIG)
    settings = SETTINGS.model_copy(update={"metrics": ("alignment",)})
    found = evaluate(*sets, workspace, settings, Measures(scorer=scorer, device="cpu"))
    assert found["clip_score"]["clip"] == scorer.name
    assert found["clip_score"]["pairs"] == N
    record = workspace.path / "synthetic" / "r" / "pack.json"
    for one, expected in ((scorer, False), (PackScorer(tiny_pack, CPU), True)):
        own = json.loads(record.read_text("utf-8")) | {
            "files": {"clip/model.safetensors": PackScorer(tiny_pack, CPU).weights}
        }
        record.write_text(json.dumps(own))
        made = sets[1].assign(pack_sha256="")
        assert conditioned_by(made, one, workspace) is expected


def test_folders_that_lack_something_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds 0 \.pt files"):
        CtClipScorer(tmp_path / "nowhere", CPU, CONFIG)
    (folder / "other.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds 2 \.pt files"):
        CtClipScorer(folder, CPU, CONFIG)
