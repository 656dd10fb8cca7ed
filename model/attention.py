"""One layer of memory attention: the current frame looks at the past and at itself (FRAME 3.2).

B batch, N tokens of the current frame, K tokens remembered (all past frames in a row), D width, M memory width,
A heads.
"""

from __future__ import annotations

import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from frame.model.weights import initialise


class MemoryAttention(nn.Module):
    """Cross-attention from the current tokens to [memory ; current], then a transformer block; both pre-norm, residual.

    FRAME's order is cross, then self; SAM 2's the other way round. The layer begins as the identity, exactly: stage 2
    starts where stage 1 ended.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.block = Block(width, heads, qkv_bias=True)
        self.apply(initialise)
        # Attention begins as likeness, of what is seen and of where: keys are made as queries are. With timm's 0.02 it
        # would begin as the plain mean of thousands of remembered tokens, and where to look would have to be learned
        # through a projection that begins at zero.
        nn.init.xavier_uniform_(self.query.weight)
        nn.init.xavier_uniform_(self.key_value.weight)
        with torch.no_grad():
            self.key_value.weight[:width] = self.query.weight
        for last in (self.proj, self.block.attn.proj, self.block.mlp.fc2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self, tokens_BND: Tensor, stored_BKM: Tensor, places_NM: Tensor, up: nn.Linear, mask_BK: Tensor | None
    ) -> Tensor:
        """The current tokens [B, N, D], changed.

        ``stored_BKM`` are remembered tokens, their places and ages added; ``places_NM`` where the current ones are.
        ``up`` brings both to the width. What the mask has False for is not looked at; None: all of it is.
        """
        here_BND = self.norm(tokens_BND) + functional.linear(places_NM, up.weight)
        tokens_BND = tokens_BND + self._cross(here_BND, self._remembered(stored_BKM, up), mask_BK)
        changed_BND: Tensor = self.block(tokens_BND)
        return changed_BND

    def _remembered(self, stored_BKM: Tensor, up: nn.Linear) -> Tensor:
        """Keys and values of remembered tokens, [B, K, 2 D]."""
        # ``key_value(up(stored))``: two linear maps in a row, multiplied first. Every window holds all tokens of five
        # frames, so this saves most of the work (for width 384, five sixths).
        weight = self.key_value.weight @ up.weight
        bias = functional.linear(up.bias, self.key_value.weight, self.key_value.bias)
        return functional.linear(stored_BKM, weight, bias)

    def _cross(self, here_BND: Tensor, remembered_BKE: Tensor, mask_BK: Tensor | None) -> Tensor:
        keys, values = torch.cat([remembered_BKE, self.key_value(here_BND)], dim=1).chunk(2, dim=-1)
        mask = None
        if mask_BK is not None:
            # The current frame is always seen, so that no softmax is over nothing.
            own = mask_BK.new_ones(here_BND.shape[:2])
            mask = torch.cat([mask_BK, own], dim=1)[:, None, None]
        attended_BAND = functional.scaled_dot_product_attention(
            self._split(self.query(here_BND)), self._split(keys), self._split(values), attn_mask=mask
        )
        mixed: Tensor = self.proj(attended_BAND.transpose(1, 2).flatten(2))
        return mixed

    def _split(self, x_BND: Tensor) -> Tensor:
        batch, count, width = x_BND.shape
        return x_BND.reshape(batch, count, self.heads, width // self.heads).transpose(1, 2)
