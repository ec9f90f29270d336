"""Attention whose memory does not grow with the square of the positions, on every device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.blocks.crossattention import CrossAttentionBlock
from monai.networks.blocks.selfattention import SABlock
from torch import Tensor, nn

# Rows of queries whose scores stay in a core's cache while they are used.
BLOCK = 256


class Attention(nn.Module):
    """MONAI's self- or cross-attention block, computed through torch's fused kernel.

    MONAI offers that kernel only where CUDA is present and otherwise holds the whole matrix of scores: 2 GB a
    block for the released UNet at full size. Parameters, their names and the result stay.

    Args:
        block: The block whose layers are taken over.
    """

    def __init__(self, block: SABlock | CrossAttentionBlock) -> None:
        super().__init__()
        self.heads, self.scale = block.num_heads, block.scale
        self.to_q, self.to_k, self.to_v, self.out_proj = block.to_q, block.to_k, block.to_v, block.out_proj

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, n, channels) queries, reading themselves or a (B, m, width) context."""
        source = x if context is None else context
        if source.shape[1] == 1 and not torch.is_grad_enabled():
            # Softmax over one token is 1, whatever the query.
            return self.out_proj(self.to_v(source)).expand(-1, x.shape[1], -1)

        def split(tensor: Tensor) -> Tensor:
            return tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = split(self.to_q(x)), split(self.to_k(source)), split(self.to_v(source))
        read = attend(query, key, value, self.scale)
        return self.out_proj(read.transpose(1, 2).flatten(2))


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(scale · query keyᵀ) value, of (B, heads, n, width) queries and (B, heads, m, width) keys and values.

    torch's fused CPU kernel multiplies bfloat16 matrices without the processor's bfloat16 instructions unless it
    has AMX; blocks of plain products use them, at twice the speed.
    """
    blocks = (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and not torch.is_grad_enabled()
        and not torch.cpu._is_amx_tile_supported()
        and query.shape[2] > BLOCK
    )
    if not blocks:
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    for sample, head in torch.cartesian_prod(torch.arange(query.shape[0]), torch.arange(query.shape[1])).tolist():
        keys = (key[sample, head] * scale).T.contiguous()
        values = value[sample, head].contiguous()
        for start in range(0, query.shape[2], BLOCK):
            rows = slice(start, start + BLOCK)
            scores = query[sample, head, rows].contiguous() @ keys
            torch.mm(scores.softmax(dim=-1), values, out=out[sample, head, rows])
    return out
