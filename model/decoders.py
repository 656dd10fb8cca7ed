"""From an encoder's tokens to a teacher's space (FRAME 3.1); the anticipators of stage 2 are decoders too (FRAME 3.3).

B batch, N tokens (1 CLS + patches), D width, C target width.

Decoders work on standardised targets: their output is multiplied by the target's standard deviation of each channel and
its mean is added, so that what comes out is always in the teacher's space. Both are kept with the weights.
"""

from __future__ import annotations

import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from frame.model.config import ModelConfig
from frame.model.weights import initialise


class _Standardised(nn.Module):
    """The target's statistics, for training to fill in. As they begin, zero and one, they change nothing."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def _restored(self, standardised: Tensor) -> Tensor:
        return standardised * self.std + self.mean


class SemanticDecoder(_Standardised):
    """One linear layer on CLS (FRAME 3.1)."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__(dim)
        self.head = _linear(width, dim)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """[B, N, D] to [B, C] in CLIP's joint space."""
        return self._restored(self.head(tokens_BND[:, 0]))


class SpatialDecoder(_Standardised):
    """Transformer blocks on the patch tokens, then norm and projection (FRAME 3.1: one block)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.spatial_dim)
        self.blocks = nn.Sequential(
            *(Block(config.width, config.heads, qkv_bias=True) for _ in range(config.spatial_depth))
        )
        self.norm = LayerNorm(config.width)
        self.head = _linear(config.width, config.spatial_dim)
        self.blocks.apply(initialise)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """[B, N, D] to [B, N - 1, C] in DINO's space of patches; the class token is not looked at."""
        return self._restored(self.head(self.norm(self.blocks(tokens_BND[:, 1:]))))


def _linear(width: int, dim: int) -> nn.Linear:
    layer = nn.Linear(width, dim)
    initialise(layer)
    return layer
