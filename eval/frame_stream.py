"""FRAME's own encoder: memory inside, empty at the start of each sequence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from frame.eval.encoder import IMAGENET_STD, EncoderInfo, Frame, Triple, batched
from frame.model import FrameEncoder, Tokens, weights_digest


class FrameStream:
    """A run's encoder, of stage 1 or 2. The decoders to the teachers' spaces are not used, except for text."""

    def __init__(self, name: str, device: torch.device) -> None:
        self._encoder = FrameEncoder.from_pretrained(name).to(device)
        self.device, self._streams = device, 0
        config = self._encoder.config
        self.info = EncoderInfo(
            name=name, kind="frame", model=config.name, patch=config.patch, width=config.width,
            mean=config.pixel_mean, std=config.pixel_std, memory=config.memory.frames if config.memory else 0,
            weights="run", digest=weights_digest(self._encoder.state_dict()),
        )  # fmt: skip

    def stream(self, frames: Iterable[Frame], *, std: Triple | None = None) -> Iterator[Tokens]:
        """See ``Encoder.stream``."""
        self._streams += 1
        mine = self._streams
        self._encoder.reset()
        for frames_BHW3 in batched(frames, self.device):
            for frame_HW3 in self._shifted(frames_BHW3, std):
                if mine != self._streams:
                    raise RuntimeError("an encoder has one memory: one stream at a time")
                yield self._encoder.step(frame_HW3)

    def semantic(self, cls_TD: Tensor) -> Tensor:
        """See ``Encoder.semantic``: FRAME's decoder to CLIP's space."""
        with torch.inference_mode():
            projected: Tensor = self._encoder.semantic(cls_TD[:, None])
        return projected

    def _shifted(self, frames_BHW3: Tensor, std: Triple | None) -> Tensor:
        """Pictures that the encoder's own normalisation turns into what ``std`` would have made of these."""
        if std is None or self.info.std != IMAGENET_STD or std == IMAGENET_STD:
            return frames_BHW3
        mean, own, asked = (torch.tensor(triple, device=self.device) for triple in (self.info.mean, self.info.std, std))
        return 255.0 * (mean + (frames_BHW3.float() / 255.0 - mean) * own / asked)
