"""The last frames of a stream, in a ring: constant memory on a video of any length.

B batch, P past frames, N tokens, M memory width.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Bank:
    """Room for ``frames`` stored frames, made at the first one and never again. Not for several threads at once."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.count = 0  # frames ever written
        self._ring_BPNM: Tensor | None = None

    def read(self, like_BNM: Tensor) -> tuple[Tensor, Tensor]:
        """The frames that are there [B, p, N, M], p at most ``frames``, and their ages [B, p]: 1 is the newest.

        ``like_BNM`` is the frame to be written next: the room is made for frames like it.
        """
        if self._ring_BPNM is None:
            batch, tokens, width = like_BNM.shape
            self._ring_BPNM = like_BNM.new_zeros(batch, self.frames, tokens, width)
        there = min(self.count, self.frames)
        # A number of Python's: nobody waits for the accelerator to learn it, and absent frames need no mask.
        slots = torch.arange(there, device=like_BNM.device)
        age_P = (self.count - 1 - slots) % self.frames + 1
        return self._ring_BPNM[:, :there], age_P.expand(len(like_BNM), there)

    def write(self, stored_BNM: Tensor) -> None:
        """Take in the newest frame; the oldest makes room. ``read`` comes first."""
        if self._ring_BPNM is None:
            raise ValueError("a bank is read before it is written")
        self._ring_BPNM[:, self.count % self.frames] = stored_BNM
        self.count += 1
