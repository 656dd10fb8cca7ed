"""The memory of past frames: what is kept of each, and how the current frame reads it (FRAME 3.2).

B batch, S segments, F frames of a segment, P past frames, N tokens (1 CLS + patches), D width, M memory width,
h w grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from frame.model.attention import MemoryAttention
from frame.model.config import MemoryConfig

# In cells of the grid: the shortest wave tells neighbours apart, the longest the two ends of a large frame.
_WAVES = (4.0, 64.0)
# How loudly places speak. At 3 a head begins by looking at the same place of the past frames and around it. FRAME says
# "2-D sine" and no more; with SAM 2's (scaled to the grid, temperature 10000) neighbours differ by less than 2 % and a
# fresh head looks everywhere. On 8 x 8 grids, trained for future patches alone (2.264 without memory), that one came to
# 2.270, 2.241 and 2.237 after 100, 300 and 700 steps, this one to 2.228 after 100 and 2.212 after 300.
_LOUDNESS = 3.0


def sine_positions(h: int, w: int, dim: int, *, device: torch.device | None = None) -> Tensor:
    """Where each patch is, [h x w, dim] float32: half of the channels for its row, half for its column.

    Of each half, sines of so many waves and then their cosines, the waves from 4 to 64 cells long in geometric steps.
    Two patches a few cells apart are related in the same way wherever they are, and whatever the size of the frame.
    """
    shortest, longest = map(math.log, _WAVES)
    turns = 2 * math.pi / torch.linspace(shortest, longest, dim // 4, device=device).exp()
    axes = []
    for length in (h, w):
        angle = torch.arange(length, device=device)[:, None] * turns
        axes.append(torch.cat([angle.sin(), angle.cos()], dim=1))
    rows, columns = axes
    both = [rows[:, None].expand(h, w, dim // 2), columns[None].expand(h, w, dim // 2)]
    return _LOUDNESS * torch.cat(both, dim=2).flatten(0, 1)


def past_windows(x: Tensor, past: int) -> Tensor:
    """The ``past`` frames before each frame: [S, F, ...] to [S, F - past, past, ...], newest (age 1) first.

    The first frame that has a whole past is the one at index ``past``. Raises ValueError where there is none.
    """
    frames = x.shape[1]
    if frames <= past:
        raise ValueError(f"{frames} frames hold no frame with {past} before it")
    return torch.stack([x[:, past - age : frames - age] for age in range(1, past + 1)], dim=2)


class Memory(nn.Module):
    """``down`` to what is stored, an ``age`` vector for each step back, ``up`` to the width, attention ``layers``."""

    def __init__(self, config: MemoryConfig, *, width: int, heads: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, config.dim)
        self.age = nn.Parameter(torch.empty(config.frames, config.dim))
        self.up = nn.Linear(config.dim, width)
        self.layers = nn.ModuleList(MemoryAttention(width, heads) for _ in range(config.layers))
        # What comes back up begins as what went down, seen through 64 numbers, so that likeness means something.
        nn.init.orthogonal_(self.down.weight)
        with torch.no_grad():
            self.up.weight.copy_(self.down.weight.T)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)
        nn.init.trunc_normal_(self.age, std=0.02)  # as SAM 2's maskmem_tpos_enc

    @property
    def frames(self) -> int:
        """How many past frames can be told apart by their age."""
        return self.age.shape[0]

    def store(self, tokens_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        """What is kept of a frame: its tokens, smaller, with their places [B, N, M]. CLS has no place."""
        stored_BNM: Tensor = self.down(tokens_BND)
        return stored_BNM + self._places(grid, stored_BNM)

    def attend(
        self,
        tokens_BND: Tensor,
        stored_BPNM: Tensor,
        grid: tuple[int, int],
        present_BP: Tensor | None = None,
        age_BP: Tensor | None = None,
    ) -> Tensor:
        """The current tokens [B, N, D] after looking at the past; they are on the grid that is stored, too.

        ``present_BP`` is False for past frames that do not exist, which have no influence whatever they hold; None: all
        are there. On the CPU it costs no wait for an accelerator. ``age_BP`` is 1 for the frame just before, up to
        ``frames``; None: 1, 2, ... P. The order of past frames does not matter, their ages do.
        """
        mask_BP = _mask(present_BP, stored_BPNM.device)
        if mask_BP is not None:
            # Not only unseen but gone: a number that is not finite would get through a weight of zero.
            stored_BPNM = stored_BPNM.masked_fill(~mask_BP[:, :, None, None], 0.0)
        age_PM = self.age[: stored_BPNM.shape[1]] if age_BP is None else self.age[age_BP - 1]
        stored_BKM = (stored_BPNM + age_PM[..., None, :]).flatten(1, 2)
        places_NM = self._places(grid, stored_BPNM)
        mask_BK = None if mask_BP is None else mask_BP.repeat_interleave(stored_BPNM.shape[2], dim=1)
        for layer in self.layers:
            tokens_BND = layer(tokens_BND, stored_BKM, places_NM, self.up, mask_BK)
        return tokens_BND

    def _places(self, grid: tuple[int, int], like: Tensor) -> Tensor:
        """Of a frame's tokens, [N, M]. CLS has none."""
        places = sine_positions(*grid, self.down.out_features, device=like.device)
        return functional.pad(places, (0, 0, 1, 0)).to(like.dtype)


def _mask(present_BP: Tensor | None, device: torch.device) -> Tensor | None:
    """A mask only where it is needed: without one, attention takes its fastest kernels.

    A program that is being traced cannot look at its values, and always has the mask.
    """
    if present_BP is None or (not torch.compiler.is_compiling() and bool(present_BP.all())):
        return None
    return present_BP.to(device, non_blocking=True)
