"""The frame encoder: timm's vision transformer on frames as they are stored (FRAME 3.1).

B batch, H W pixels, h w grid, N tokens (1 CLS + h x w patches), D width.
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from frame.model.config import ModelConfig


class ViTEncoder(nn.Module):
    """Frames to tokens. Positions are interpolated to the real grid at each forward: any whole grid of patches will do.

    ``vit`` is the transformer; nothing else is in the state.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.vit = VisionTransformer(
            img_size=config.size, patch_size=config.patch, num_classes=0, global_pool="", embed_dim=config.width,
            depth=config.depth, num_heads=config.heads, class_token=True, dynamic_img_size=True,
        )  # fmt: skip
        shape = (1, 3, 1, 1)
        self.register_buffer("_mean", torch.tensor(config.pixel_mean).reshape(shape), persistent=False)
        self.register_buffer("_std", torch.tensor(config.pixel_std).reshape(shape), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.vit.cls_token.device  # type: ignore[no-any-return]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in a frame of so many pixels. Raises ValueError where part of a patch is left."""
        if height < self.patch or width < self.patch or height % self.patch or width % self.patch:
            near = [max(1, round(side / self.patch)) * self.patch for side in (height, width)]
            raise ValueError(
                f"frames of {height} x {width} pixels are no whole number of patches of {self.patch}: "
                f"resize them, for instance to {near[0]} x {near[1]}"
            )
        return height // self.patch, width // self.patch

    def forward(self, frames_BHW3: Tensor) -> Tensor:
        """Tokens [B, N, D] after the final norm, CLS first and patches row by row, of RGB frames.

        Frames are uint8, or float in 0..255, on the device of the weights. Raises ValueError for other shapes.
        """
        if frames_BHW3.ndim != 4 or frames_BHW3.shape[3] != 3:
            raise ValueError(f"frames are [batch, height, width, 3], not {list(frames_BHW3.shape)}")
        if frames_BHW3.dtype != torch.uint8 and not frames_BHW3.is_floating_point():
            raise ValueError(f"frames are uint8, or float in 0..255, not {frames_BHW3.dtype}")
        self.grid(frames_BHW3.shape[1], frames_BHW3.shape[2])
        # The order of these operations is that of the teachers: a cached column of tokens has the same bits.
        return self.tokens((frames_BHW3.permute(0, 3, 1, 2).float() / 255.0 - self._mean) / self._std)

    def tokens(self, pixels_B3HW: Tensor) -> Tensor:
        """Tokens [B, N, D] of pixels that are normalised already."""
        dtype = self.vit.cls_token.dtype
        tokens_BND: Tensor = self.vit.forward_features(pixels_B3HW.to(dtype))
        return tokens_BND
