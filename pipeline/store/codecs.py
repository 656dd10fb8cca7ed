"""From stored arrays back to features."""

from __future__ import annotations

import numpy as np

from frame.pipeline.store.layout import Column


def decode(column: Column, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The column's values ``[rows, *shape]``: float16 features, uint8 frames.

    int8: value = integer x scale of its token; the product is taken in float32 and rounded once.
    """
    values = arrays[column.name]
    if column.encoding != "int8":
        return values
    scale = arrays[f"{column.name}.scale"].astype(np.float32)
    if len(column.shape) > 1:
        scale = scale[..., None]
    return np.multiply(values, scale, dtype=np.float32).astype(np.float16)
