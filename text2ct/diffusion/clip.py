"""3D CLIP: a report and a CT volume into one space (Text2CT, arXiv 2506.00633, section on 3D CLIP).

The text tower is transformers' CLIP text model with 512 positions. It yields one pooled vector per text, and,
for packs that condition on a sequence, a short sequence of learnt queries over the text's token states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from text2ct.diffusion.ctvit import CTViT, CTViTConfig
from text2ct.diffusion.info import Layers

# A finding is one sentence among many: cosine attention that begins sharp finds it soonest.
START_TEMPERATURE = 12.0


class TextConfig(BaseModel):
    """Sizes of the text tower; the defaults are CLIP ViT-L/14's with 512 positions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: Layers = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 512
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    bos_token_id: int = 49406
    eos_token_id: int = 49407
    queries: int = Field(default=0, ge=0, description="learnt queries over the token states; 0 for none")


class ClipConfig(BaseModel):
    """Configuration of the pack component ``clip3d``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: TextConfig = TextConfig()
    vision: CTViTConfig = CTViTConfig()
    projection_dim: int = 768


@dataclass(frozen=True)
class TextFeatures:
    """What the text tower says of a batch of texts.

    Attributes:
        embedding: (n, projection) unit vectors.
        states: (n, length, hidden) token states after the last normalisation.
        mask: (n, length) bool, true up to and including the end-of-text token.
        queries: (n, queries, projection) or None.
    """

    embedding: Tensor
    states: Tensor
    mask: Tensor
    queries: Tensor | None

    def context(self, conditioning: Literal["pooled", "tokens"]) -> Tensor:
        """The UNet's cross-attention context, (n, tokens, projection).

        ``pooled`` is the unit vector as one token, as released. ``tokens`` puts the learnt queries beside the
        pooled vector, which is scaled to the queries' unit variance.
        """
        pooled = self.embedding.unsqueeze(1)
        if conditioning == "pooled":
            return pooled
        if self.queries is None:
            raise ValueError("conditioning 'tokens' needs a text tower with queries; this one has none")
        return torch.cat([pooled * math.sqrt(pooled.shape[-1]), self.queries], dim=1)


class TokenQueries(nn.Module):
    """Learnt queries that each read one thing from a text's token states (one attention layer, one MLP)."""

    def __init__(self, queries: int, hidden: int, out: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(queries, out))
        self.temperature = nn.Parameter(torch.tensor(START_TEMPERATURE))
        self.to_q = nn.Linear(out, out, bias=False)
        self.to_kv = nn.Linear(hidden, 2 * out, bias=False)
        self.to_out = nn.Linear(out, out)
        self.mlp = nn.Sequential(nn.LayerNorm(out), nn.Linear(out, 2 * out), nn.GELU(), nn.Linear(2 * out, out))
        self.norm = nn.LayerNorm(out)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(n, length, hidden) states and their (n, length) mask to (n, queries, out)."""

        def split(tensor: Tensor) -> Tensor:
            return tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        base = self.query.expand(states.shape[0], -1, -1)
        key, value = (split(part) for part in self.to_kv(states).chunk(2, dim=-1))
        query = F.normalize(split(self.to_q(base)), dim=-1) * self.temperature
        key = F.normalize(key, dim=-1)
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None], scale=1.0)
        x = base + self.to_out(read.transpose(1, 2).flatten(2))
        return self.norm(x + self.mlp(x))


class TextTower(nn.Module):
    """The text half of :class:`Clip3D`, all that generation needs: 0.12 of 0.79 G parameters at the released size.

    Args:
        config: Sizes; :class:`ClipConfig`.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        text, dim = config.text, config.projection_dim
        sizes = text.model_dump(exclude={"queries"})
        model = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, projection_dim=dim, pad_token_id=text.eos_token_id))
        self.text_model = model.text_model
        self.text_projection = model.text_projection
        # Positions are given with each call: a buffer outside the state dict would stay empty in a module that is
        # built without memory.
        self.text_model.embeddings.position_ids = None
        if text.queries:
            self.text_queries = TokenQueries(text.queries, text.hidden_size, dim, text.num_attention_heads)

    def encode_text(self, token_ids: Tensor) -> TextFeatures:
        """Read token ids.

        Args:
            token_ids: (n, length) int64, start token first, end-of-text after the text and as padding.
        """
        positions = torch.arange(token_ids.shape[1], device=token_ids.device)[None]
        states = self.text_model(input_ids=token_ids, position_ids=positions).last_hidden_state
        is_end = token_ids == self.config.text.eos_token_id
        end = is_end.int().argmax(dim=1)
        mask = torch.arange(token_ids.shape[1], device=token_ids.device)[None] <= end[:, None]
        pooled = states[torch.arange(len(states), device=states.device), end]
        embedding = F.normalize(self.text_projection(pooled), dim=-1)
        queries = self.text_queries(states, mask) if self.config.text.queries else None
        return TextFeatures(embedding, states, mask, queries)


class Clip3D(TextTower):
    """Both towers, their projections and the learnt temperature; names as in the released checkpoint.

    Args:
        config: Sizes; :class:`ClipConfig`.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__(config)
        self.vision_model = CTViT(config.vision)
        _, height, width = config.vision.grid
        # Tokens are averaged over depth, so the projection reads one (h, w, dim) plane: 604 M parameters at the
        # released size.
        self.visual_projection = nn.Linear(height * width * config.vision.dim, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_volume(self, volume: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) intensities in [0, 1] to (B, projection) unit vectors."""
        plane = self.vision_model(volume).mean(dim=1)
        return F.normalize(self.visual_projection(plane.flatten(1)), dim=-1)
