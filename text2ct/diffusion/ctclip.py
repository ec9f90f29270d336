"""CT-CLIP (Hamamci et al. 2024, arXiv 2403.17834): volumes and reports in one space, as its authors' weights have it.

The same CT-ViT at other sizes, and CXR-BERT for the text. Text2CT's own 3D CLIP conditions the generator, so a
judge of how well volumes fit their reports has to be another network: this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel

from text2ct.diffusion.checkpoints import check_state, drop_position_ids, read_checkpoint, state_of
from text2ct.diffusion.ctvit import CTViT, CTViTConfig
from text2ct.diffusion.weights import shapes
from text2ct.errors import UserError


class CtClipConfig(BaseModel):
    """Sizes of CT-CLIP; the defaults are the official model's, its text tower BERT-base."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vision: CTViTConfig = CTViTConfig(image_size=(480, 480, 240), patch_size=20, temporal_patch_size=10, dim=512)
    latent_dim: int = 512
    vocab_size: int = 30522
    text_hidden_size: int = 768
    text_layers: int = 12
    text_heads: int = 12
    text_intermediate_size: int = 3072


class CtClip(nn.Module):
    """Both towers and their projections; names as in the official checkpoint, unused ones included.

    Args:
        config: Sizes; :class:`CtClipConfig`.
    """

    def __init__(self, config: CtClipConfig) -> None:
        super().__init__()
        self.config = config
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.text_transformer = BertModel(
            BertConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.text_hidden_size,
                num_hidden_layers=config.text_layers,
                num_attention_heads=config.text_heads,
                intermediate_size=config.text_intermediate_size,
            )
        )
        # Given with each call: buffers outside the state dict would stay empty in a module built without memory.
        embeddings: Any = self.text_transformer.embeddings
        embeddings.position_ids = embeddings.token_type_ids = None
        self.visual_transformer = CTViT(config.vision)
        _, height, width = config.vision.grid
        plane = height * width * config.vision.dim
        self.to_text_latent = nn.Linear(config.text_hidden_size, config.latent_dim, bias=False)
        self.to_visual_latent = nn.Linear(plane, config.latent_dim, bias=False)
        self.to_text_latent_extra = nn.Linear(config.text_hidden_size, config.latent_dim, bias=False)
        self.to_visual_latent_extra = nn.Linear(plane, config.latent_dim, bias=False)

    def encode_text(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(n, length) int64 ids and their 0/1 mask to (n, latent) unit vectors: the first token's state, projected."""
        positions = torch.arange(token_ids.shape[1], device=token_ids.device)[None]
        states = self.text_transformer(
            input_ids=token_ids,
            attention_mask=attention_mask,
            position_ids=positions,
            token_type_ids=torch.zeros_like(token_ids),
        ).last_hidden_state
        return F.normalize(self.to_text_latent(states[:, 0]), dim=-1)

    def encode_volume(self, volume: Tensor) -> Tensor:
        """(B, 1, H, W, D) float, HU / 1000 in [-1, 1], to (B, latent) unit vectors."""
        plane = self.visual_transformer(volume).mean(dim=1)
        return F.normalize(self.to_visual_latent(plane.flatten(1)), dim=-1)


def load_ctclip(path: Path, config: CtClipConfig | None = None) -> CtClip:
    """Open CT-CLIP's official checkpoint, in evaluation mode; its weights are mapped and read when first used.

    Args:
        path: The ``.pt`` file, a state dict.
        config: Sizes; the official ones if None.

    Raises:
        UserError: The file is damaged, holds code, or is not of this network, key by key.
    """
    state = drop_position_ids(state_of(path, read_checkpoint(path)))
    with torch.device("meta"):
        module = CtClip(config or CtClipConfig())
    check_state(path, state, shapes(module.state_dict()), "CT-CLIP")
    module.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return module.eval().requires_grad_(False)


def load_report_tokenizer(folder: Path) -> Any:
    """CXR-BERT's tokenizer from a local folder; nothing is downloaded.

    Raises:
        UserError: The folder holds no tokenizer.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no tokenizer of CT-CLIP's text tower: {error}") from error
