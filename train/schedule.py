"""The learning rate as a pure function of the epoch: linear warm-up, then a cosine with warm restarts."""

from __future__ import annotations

import math

_START = 0.01
_GROWTH = 2.0


def lr_factor(epoch: float, *, warmup: float, cycle: float) -> float:
    """The factor of the learning rate at ``epoch``, in 0..1.

    From 0.01 to 1 over the first ``warmup`` epochs, then half cosines from 1 to 0 of ``cycle``, 2 x ``cycle``,
    4 x ``cycle`` … epochs (SGDR, T0 and T_mult = 2). FRAME names both a warm-up and restarts; one before the other is
    the reading in which both hold.
    """
    if epoch < warmup:
        return _START + (1.0 - _START) * epoch / warmup
    into, length = epoch - warmup, cycle
    while into >= length:
        into -= length
        length *= _GROWTH
    return 0.5 * (1.0 + math.cos(math.pi * into / length))
