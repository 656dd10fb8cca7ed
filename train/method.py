"""What the loop asks of a method. FRAME's two stages are two methods; the loop knows nothing more of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from frame.model import FrameEncoder
from frame.train.batches import Steps
from frame.train.windows import WindowShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a method's forward pass gives the loop.

    ``losses`` are the raw losses by name, scalars with a gradient. ``measures`` are scalars to report only (cosines).
    ``tokens`` is what all losses are computed from: gradient balancing measures each loss's pull on it.
    """

    losses: dict[str, Tensor]
    measures: dict[str, Tensor]
    tokens: Tensor


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to train: FRAME's two stages are two of them.

    ``module(batch)`` gives ``Terms``; ``weights`` are the base weights of its losses by name; ``encoder`` is what is
    exported; ``shape`` are the windows it wants, ``columns`` the steps of each column that they are read from.
    """

    module: nn.Module
    encoder: FrameEncoder
    weights: Mapping[str, float]
    shape: WindowShape
    columns: Mapping[str, Steps]
