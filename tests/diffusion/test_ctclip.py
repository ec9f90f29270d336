"""CT-CLIP: official names, weights mapped from a file, both towers as their parts say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from text2ct.diffusion.ctclip import CtClip, CtClipConfig, load_ctclip, load_report_tokenizer
from text2ct.diffusion.ctvit import CTViTConfig
from text2ct.errors import UserError

CONFIG = CtClipConfig(
    vision=CTViTConfig(
        image_size=(20, 20, 20), patch_size=10, temporal_patch_size=10, dim=8, spatial_depth=1, temporal_depth=1,
        heads=2, dim_head=4, codebook_size=8,
    ),
    latent_dim=6, vocab_size=30, text_hidden_size=8, text_layers=1, text_heads=2, text_intermediate_size=16,
)  # fmt: skip

# As old versions of transformers stored them.
POSITIONS = "text_transformer.embeddings.position_ids"


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, CtClip]:
    torch.manual_seed(0)
    module = CtClip(CONFIG).eval()
    torch.save(module.state_dict() | {POSITIONS: torch.arange(512)[None]}, tmp_path / "ctclip.pt")
    return tmp_path / "ctclip.pt", module


@torch.inference_mode()
def test_a_loaded_model_reads_as_the_one_that_was_saved(checkpoint: tuple[Path, CtClip]) -> None:
    path, saved = checkpoint
    loaded = load_ctclip(path, CONFIG)
    assert not any(value.is_meta for value in (*loaded.parameters(), *loaded.buffers()))
    ids, mask = torch.randint(0, 30, (2, 7)), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    volume = torch.rand(2, 1, 20, 20, 20) * 2 - 1
    text, image = loaded.encode_text(ids, mask), loaded.encode_volume(volume)
    torch.testing.assert_close(text, saved.encode_text(ids, mask))
    torch.testing.assert_close(image, saved.encode_volume(volume))
    for embedding in (text, image):
        torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(2))


@torch.inference_mode()
def test_what_is_masked_or_unused_does_not_count(checkpoint: tuple[Path, CtClip]) -> None:
    _, model = checkpoint
    ids, mask = torch.randint(0, 30, (1, 6)), torch.tensor([[1, 1, 1, 0, 0, 0]])
    changed = torch.cat([ids[:, :3], (ids[:, 3:] + 1) % 30], dim=1)
    torch.testing.assert_close(model.encode_text(ids, mask), model.encode_text(changed, mask))
    first = model.text_transformer(input_ids=ids, attention_mask=mask, position_ids=torch.arange(6)[None],
                                   token_type_ids=torch.zeros_like(ids)).last_hidden_state[:, 0]  # fmt: skip
    torch.testing.assert_close(model.encode_text(ids, mask), F.normalize(model.to_text_latent(first), dim=-1))


def test_position_ids_may_lack_and_other_differences_are_named(checkpoint: tuple[Path, CtClip]) -> None:
    path, saved = checkpoint
    torch.save(saved.state_dict(), path)
    load_ctclip(path, CONFIG)
    state = saved.state_dict()
    state["to_text_latent.bias"] = state.pop("temperature")
    torch.save(state, path)
    with pytest.raises(UserError, match=r"is not CT-CLIP(.|\n)*temperature: missing\n.*to_text_latent\.bias: not a"):
        load_ctclip(path, CONFIG)


def test_a_folder_without_a_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_report_tokenizer(tmp_path)
