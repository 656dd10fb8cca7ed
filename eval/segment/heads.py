"""Heads that turn a frame's patch tokens into class scores.

B batch, D width, C classes, h w grid, H W pixels.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from frame.manifests.errors import InputError

HeadName = Literal["linear", "unet"]

_INIT_STD = 0.01  # of the classifier's weights, as in the segmentation toolbox that DINOv2's recipe is for
_UNET = 128  # channels at the grid's own resolution


class LinearHead(nn.Module):
    """Batch norm, then one linear map a token: DINOv2's linear segmentation (BNHead, dropout 0)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.classify = nn.Conv2d(width, classes, kernel_size=1)

    def forward(self, features_BDhw: Tensor) -> Tensor:
        """Class scores [B, C, h, w]."""
        scores: Tensor = self.classify(self.norm(features_BDhw))
        return scores


class UNetHead(nn.Module):
    """A small U-Net over the grid: no linear probe, it sees neighbours and adds capacity of its own (1.3 M parameters
    at width 384).

    Batch norm and a 1 x 1 convolution to 128 channels; two 3 x 3 convolutions; halved (max pooling) to 256 channels and
    two 3 x 3 convolutions; back up (bilinear) beside what was there before, two 3 x 3 convolutions; then twice the
    grid's resolution with 64 channels; a linear classifier. Every 3 x 3 convolution is followed by batch norm and ReLU.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, _UNET, kernel_size=1))
        self.level = _convolutions(_UNET, _UNET)
        self.below = _convolutions(_UNET, 2 * _UNET)
        self.merge = _convolutions(3 * _UNET, _UNET)
        self.fine = _convolutions(_UNET, _UNET // 2)
        self.classify = nn.Conv2d(_UNET // 2, classes, kernel_size=1)

    def forward(self, features_BDhw: Tensor) -> Tensor:
        """Class scores [B, C, 2h, 2w]."""
        level = self.level(self.reduce(features_BDhw))
        # Rounded up, so that a grid with one row is still one row below.
        below = self.below(functional.max_pool2d(level, kernel_size=2, ceil_mode=True))
        back = upsampled(below, (level.shape[2], level.shape[3]))
        merged = self.merge(torch.cat([level, back], dim=1))
        fine = self.fine(upsampled(merged, (2 * level.shape[2], 2 * level.shape[3])))
        scores: Tensor = self.classify(fine)
        return scores


def make_head(name: HeadName, width: int, classes: int, seed: int) -> LinearHead | UNetHead:
    """A fresh head: the same for the same seed. Raises InputError for another name."""
    if name not in get_args(HeadName):
        raise InputError(what="There is no such head.", where=f"--head {name}", fix="use linear or unet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = LinearHead(width, classes) if name == "linear" else UNetHead(width, classes)
        nn.init.normal_(head.classify.weight, std=_INIT_STD)
        if head.classify.bias is not None:
            nn.init.zeros_(head.classify.bias)
    return head


def upsampled(scores_BChw: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners not aligned: [B, C, *size].

    As two matrix products, one a side: twice as fast as torch's own, forwards and backwards, on a CPU.
    """
    down_hH, across_wW = (
        _bilinear(own, wanted).to(scores_BChw) for own, wanted in zip(scores_BChw.shape[2:], size, strict=True)
    )
    return down_hH.T @ scores_BChw @ across_wW


@cache
def _bilinear(own: int, wanted: int) -> Tensor:
    """How much each of ``own`` places gives to each of ``wanted``: [own, wanted], torch's own weights."""
    return functional.interpolate(torch.eye(own)[None], size=wanted, mode="linear", align_corners=False)[0]


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
