"""From stored arrays back to features."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from frame.pipeline.store.layout import Column

# A block of this many values stays in the processor's cache, and torch does it in the calling thread: below 2**15 it
# wakes no others, which would quarrel with those of a data loader, and hang in a forked process.
_BLOCK = (1 << 15) - 1


def decode(column: Column, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The column's values ``[rows, *shape]``, float16 features or uint8 frames, from its stored arrays by name."""
    values = arrays[column.name]
    if column.encoding != "int8":
        return values
    out = np.empty(values.shape, dtype=np.float16)
    dequantise(values, arrays[f"{column.name}.scale"], out)
    return out


def dequantise(values: np.ndarray, scale: np.ndarray, out: np.ndarray) -> None:
    """``out`` float16 ``[..., width]`` = ``values`` int8 ``[..., width]`` x ``scale`` float16, one a token.

    The product is exact in float32 and rounded once. NumPy converts to float16 a value at a time; torch uses the
    processor's instructions, to the same bits.
    """
    import torch  # it takes seconds, and only this encoding needs it

    width = values.shape[-1]
    step = max(_BLOCK // width, 1)
    source = torch.split(torch.from_numpy(values.reshape(-1, width)), step)
    scales = torch.split(torch.from_numpy(scale.reshape(-1, 1).astype(np.float32)), step)
    target = torch.split(torch.from_numpy(out.reshape(-1, width)), step)
    scratch = torch.empty((step, width), dtype=torch.float32)
    for block, factor, result in zip(source, scales, target, strict=True):
        product = scratch[: len(block)].copy_(block).mul_(factor)
        result.copy_(product)
