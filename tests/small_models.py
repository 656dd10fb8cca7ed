"""Encoders small enough for tests, with weights at which every part has a say."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from frame.model import FrameEncoder, MemoryConfig, ModelConfig

STAGE1 = ModelConfig(width=128, depth=2, patch=8, size=(32, 32), semantic_dim=12, spatial_dim=20)
STAGE2 = replace(STAGE1, memory=MemoryConfig(frames=3, dim=16, layers=2), anticipation=True)


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Every parameter and buffer drawn at random: fresh ones are zero where it matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in sorted(module.state_dict().items()):
        noise = torch.randn(value.shape, generator=generator) * 0.1
        value.copy_(1 + noise if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "std")) else noise)


def small_encoder(config: ModelConfig = STAGE2, seed: int = 0) -> FrameEncoder:
    """A randomised encoder in evaluation mode."""
    encoder = FrameEncoder(config).eval()
    randomise(encoder, seed)
    return encoder


def noise(*shape: int, seed: int = 0) -> Tensor:
    """uint8 frames [*shape, 3]."""
    return torch.randint(0, 256, (*shape, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Numbers around zero."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
