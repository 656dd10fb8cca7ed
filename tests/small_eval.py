"""An encoder for evaluations whose answers are known: what it sees is said by the red of a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from frame.eval.encoder import IMAGENET_MEAN, IMAGENET_STD, EncoderInfo, Frame, Triple
from frame.model import Tokens


class IdentityEncoder:
    """A patch's token is the one-hot of the red of its middle pixel: the same thing has the same token everywhere."""

    def __init__(self, *, patch: int) -> None:
        self.device = torch.device("cpu")
        self.info = EncoderInfo(
            name="perfect", kind="timm", model="identity", patch=patch, width=256, mean=IMAGENET_MEAN,
            std=IMAGENET_STD, memory=0, weights="random", digest="0" * 64,
        )  # fmt: skip

    def stream(self, frames: Iterable[Frame], *, std: Triple | None = None) -> Iterator[Tokens]:
        """See ``Encoder.stream``."""
        del std
        patch = self.info.patch
        for frame in frames:
            red = torch.from_numpy(np.round(frame[patch // 2 :: patch, patch // 2 :: patch, 0]).astype(np.int64))
            patches = functional.one_hot(red, 256).float()
            yield Tokens(cls=patches.mean(dim=(0, 1)), patches=patches)

    def semantic(self, cls_TD: Tensor) -> Tensor:
        """See ``Encoder.semantic``."""
        return cls_TD
