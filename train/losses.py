"""The losses, and how several of them become one number to minimise.

Shapes: B frames, N patches, C width of a target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

ClsLoss = Literal["cosine", "mse"]
Scaling = Literal["mean", "gradient", "none"]

_EMA = 0.99
_MAGNIFIED = 1024.0
_TINY = 1e-12  # a term that has reached zero must not become infinitely heavy


def patch_loss(predicted_BNC: Tensor, target_BNC: Tensor, std_C: Tensor) -> Tensor:
    """Mean squared error of patch features, in units of ``std_C`` a channel (ones: plain MSE). FRAME 3.1."""
    return ((predicted_BNC.float() - target_BNC.float()) / std_C).square().mean()


def cls_loss(predicted_BC: Tensor, target_BC: Tensor, kind: ClsLoss) -> Tensor:
    """Cosine embedding loss, 1 - cos of each pair, averaged (FRAME 3.1); ``mse`` is the paper's ablation."""
    predicted_BC, target_BC = predicted_BC.float(), target_BC.float()
    if kind == "mse":
        return functional.mse_loss(predicted_BC, target_BC)
    return 1.0 - functional.cosine_similarity(predicted_BC, target_BC, dim=-1).mean()


def mean_cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """Cosine of [..., C] pairs, averaged: what is reported beside the losses. Has no gradient."""
    return functional.cosine_similarity(predicted.detach().float(), target.float(), dim=-1).mean()


@dataclass(kw_only=True, slots=True)
class RunningMeans:
    """Running means by name: of the first hundred values all alike, then exponential with 0.99.

    They are what raw losses are divided by («mean scaling»: FRAME 3.1 names it, the numbers are ours), so that every
    term pulls alike whatever its unit. Python floats: a checkpoint holds them exactly.
    """

    means: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def update(self, values: Mapping[str, float]) -> None:
        """Take in the values of one step."""
        self.count += 1
        keep = min(_EMA, 1.0 - 1.0 / self.count)
        for name, value in values.items():
            self.means[name] = keep * self.means.get(name, value) + (1.0 - keep) * value


def weights(
    measured: Mapping[str, float], means: RunningMeans, *, scaling: Scaling, base: Mapping[str, float]
) -> dict[str, float]:
    """The constant factor of each raw loss: its ``base`` weight over its running mean.

    ``measured`` stands in for the means on the very first step. It holds raw losses for ``mean`` scaling, gradient
    norms for ``gradient``; with ``none`` only the base weights count.
    """
    if scaling == "none":
        return dict(base)
    known = {**measured, **means.means}
    return {name: weight / max(known[name], _TINY) for name, weight in base.items()}


def gradient_norms(losses: Mapping[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """How strongly each raw loss pulls on the tokens that all are computed from: the norm of its gradient there."""
    found = {}
    for name, loss in losses.items():
        # Magnified on the way back: half precision has no room for the gradient of a mean over millions.
        (gradient,) = torch.autograd.grad(loss * _MAGNIFIED, tokens, retain_graph=True)
        found[name] = gradient.float().norm().detach() / _MAGNIFIED
    return found


def kept_terms(names: list[str], *, share_dropped: float, seed: int, step: int) -> dict[str, float]:
    """Loss dropout: 0 for a term left out of this step, 1 for the others. A pure function of (seed, step).

    Each term is left out with probability ``share_dropped``; if all would be, one drawn at random stays.
    """
    raw = np.random.Philox(key=[seed, step]).random_raw(len(names) + 1)
    keep = [float(int(value) >> 11) * 2.0**-53 >= share_dropped for value in raw[:-1]]
    if not any(keep):
        keep[int(raw[-1]) % len(names)] = True
    return {name: float(kept) for name, kept in zip(names, keep, strict=True)}


def not_finite(values: Mapping[str, float]) -> list[str]:
    """Names of the values that are infinite or no number."""
    return [name for name, value in values.items() if not math.isfinite(value)]
