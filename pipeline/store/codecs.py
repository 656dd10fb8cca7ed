"""From stored arrays back to features. torch takes seconds to import, and not every encoding needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from frame.pipeline.store.columns import Column, Steps
from frame.pipeline.store.packed_places import Part

# A block of this many values stays in the processor's cache, and torch does it in the calling thread: below 2**15 it
# wakes no others, which would quarrel with those of a data loader, and hang in a forked process.
_BLOCK = (1 << 15) - 1


def decode(column: Column, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The column's values ``[rows, *shape]``, float16 features or uint8 frames, from its stored arrays by name."""
    values = arrays[column.name]
    if column.encoding in ("raw", "float16"):
        return values
    out = np.empty(values.shape, dtype=np.float16)
    if column.steps:
        from_levels(values, column.steps, out)
    else:
        dequantise(values, arrays[f"{column.name}.scale"], out)
    return out


def dequantise(values: np.ndarray, scale: np.ndarray, out: np.ndarray) -> None:
    """``out`` float16 ``[..., width]`` = ``values`` int8 ``[..., width]`` x ``scale`` float16, one a token.

    The product is exact in float32 and rounded once. NumPy converts to float16 a value at a time; torch uses the
    processor's instructions, to the same bits.
    """
    import torch

    width = values.shape[-1]
    step = max(_BLOCK // width, 1)
    source = torch.split(torch.from_numpy(values.reshape(-1, width)), step)
    scales = torch.split(torch.from_numpy(scale.reshape(-1, 1).astype(np.float32)), step)
    target = torch.split(torch.from_numpy(out.reshape(-1, width)), step)
    scratch = torch.empty((step, width), dtype=torch.float32)
    for block, factor, result in zip(source, scales, target, strict=True):
        product = scratch[: len(block)].copy_(block).mul_(factor)
        result.copy_(product)


def from_levels(levels: np.ndarray, steps: Steps, out: np.ndarray) -> None:
    """``out`` float16 ``[..., width]`` = mean + step x ``levels`` int16 ``[..., width]``, a channel each.

    The product and the sum are rounded to float32, one after the other: joined in one instruction, as compilers like
    to, they would depend on where in a block a value stands.
    """
    _ladder(steps).climb(levels, out)


def unpack_into(parts: Sequence[Part], steps: Steps, out: np.ndarray) -> None:
    """The features of all ``parts``, one behind the other, into ``out`` float16 ``[rows, *shape]``.

    One after the other: in two threads they take as long, because each waits for the other's turn in the interpreter.
    Readers that have more to read are given more processes.
    """
    ladder = _ladder(steps)
    for part in parts:
        first = part.low - parts[0].low
        ladder.climb(part.levels(), out[first : first + part.high - part.low])


@lru_cache(maxsize=64)
def _ladder(steps: Steps) -> _Ladder:
    return _Ladder(steps)


class _Ladder:
    """From levels to features."""

    def __init__(self, steps: Steps) -> None:
        import torch

        self._step, self._mean = (torch.tensor(numbers, dtype=torch.float32) for numbers in (steps.step, steps.mean))

    def climb(self, levels: np.ndarray, out: np.ndarray) -> None:
        import torch

        width = levels.shape[-1]
        rows = max(_BLOCK // width, 1)
        source = torch.split(torch.from_numpy(levels.reshape(-1, width)), rows)
        target = torch.split(torch.from_numpy(out.reshape(-1, width)), rows)
        scratch = torch.empty(source[0].shape, dtype=torch.float32)
        for block, result in zip(source, target, strict=True):
            if block.shape != scratch.shape:  # the last
                scratch = scratch[: block.shape[0]]
            result.copy_(scratch.copy_(block).mul_(self._step).add_(self._mean))
