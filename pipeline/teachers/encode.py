"""Features to what the store keeps, made and measured on the device: float16, int8 with a float16 scale a token, or the
levels of a step a channel, whose differences in time the store packs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Encoding = Literal["float16", "int8", "residual"]

_INT8_MAX = 127.0
_INT16_MAX = 32767.0
_TINIEST = 2.0**-24  # the smallest positive float16


@dataclass(frozen=True, kw_only=True, slots=True)
class Scales:
    """What a level of each channel means: ``mean`` + ``step`` x level; float32 [width] both, ``step`` above 0."""

    step: Tensor
    mean: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """``values`` float16, int8 or int16, of the features' shape; ``scale`` float16 [rows] or [rows, tokens], None but
    for int8. ``decoded`` float32: what comes back, before it is rounded to float16.

    ``finite`` is bool [rows]: False where a value of the row was not finite or too large for the encoding; such rows
    hold zeros and must not be stored. ``cosine`` is float32 [rows] or [rows, tokens], of each token with its original.
    """

    values: Tensor
    scale: Tensor | None
    decoded: Tensor
    finite: Tensor
    cosine: Tensor

    def loss(self) -> tuple[float, float]:
        """(mean, worst) cosine over the tokens of the finite rows; (1, 1) if there are none."""
        kept = self.cosine[self.finite].double()
        return (float(kept.mean()), float(kept.min())) if kept.numel() else (1.0, 1.0)


def encode(features: Tensor, encoding: Encoding, scales: Scales | None = None) -> Encoded:
    """Encode float32 features [rows, tokens, width] or [rows, width] on the device they are on; ``scales``, on the same
    device, are those of ``residual``."""
    finite = _row_all(torch.isfinite(features))
    finite &= _row_all(features.abs() <= _limit(encoding))
    if encoding == "residual":
        assert scales is not None
        finite &= _row_all(((features - scales.mean) / scales.step).abs() <= _INT16_MAX)
    clean = torch.where(finite.reshape(-1, *[1] * (features.ndim - 1)), features, torch.zeros_like(features))
    scale = None
    if encoding == "float16":
        values = encode_float16(clean)
        decoded = values.float()
    elif encoding == "int8":
        values, scale = encode_int8(clean)
        decoded = decode_int8(values, scale)
    else:
        assert scales is not None
        values = encode_levels(clean, scales)
        decoded = decode_levels(values, scales)
    return Encoded(values=values, scale=scale, decoded=decoded, finite=finite, cosine=cosine(clean, decoded))


def encode_levels(features: Tensor, scales: Scales) -> Tensor:
    """float32 [..., width] to the nearest levels, int16. ``encode`` reports rows with a value beyond the last level,
    which this would clip: 32,767 steps from the mean, where features stray by some ten standard deviations."""
    levels = ((features - scales.mean) / scales.step).round()
    return levels.clamp(-_INT16_MAX, _INT16_MAX).to(torch.int16)


def decode_levels(values: Tensor, scales: Scales) -> Tensor:
    """int16 [..., width] back to float32 [..., width]."""
    return values.float() * scales.step + scales.mean


def encode_float16(features: Tensor) -> Tensor:
    """float32 to float16, rounded to nearest. Values beyond 65504 become infinite: ``encode`` reports such rows."""
    return features.to(torch.float16)


def encode_int8(features: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [..., width] to (int8 [..., width], float16 scale [...]), with values = int8 * scale.

    The scale is a token's absolute maximum over 127, rounded up to a float16: rounded down, the largest value would
    be clipped. It is zero for a token of zeros only. Tokens whose largest value is below some 4e-6 lose precision,
    because float16 has no smaller scales; ``Encoded.cosine`` shows it.
    """
    largest = features.abs().amax(dim=-1)
    exact = largest / _INT8_MAX
    nearest = exact.to(torch.float16)
    scale = torch.where(nearest.float() < exact, _next_up(nearest), nearest)
    scale = torch.where(largest > 0, scale.clamp(min=_TINIEST), torch.zeros_like(scale))
    divisor = torch.where(scale > 0, scale.float(), 1.0).unsqueeze(-1)
    values = (features / divisor).round().clamp(-_INT8_MAX, _INT8_MAX).to(torch.int8)
    return values, scale


def decode_int8(values: Tensor, scale: Tensor) -> Tensor:
    """int8 [..., width] and float16 [...] back to float32 [..., width]."""
    return values.float() * scale.float().unsqueeze(-1)


def cosine(original: Tensor, decoded: Tensor) -> Tensor:
    """float32 [...]: the cosine of [..., width] pairs; 1 for two tokens of zeros, 0 if just one of them is.

    From the distance of the two directions, ``1 - |a - b|^2 / 2``: a dot product in float32 could not tell the losses
    of float16 from none, and one in float64 would cost as much as a layer of the teacher.
    """
    a, b = (functional.normalize(x, dim=-1, eps=torch.finfo(x.dtype).tiny) for x in (original, decoded))
    value = 1.0 - 0.5 * (a - b).square().sum(dim=-1)
    lost = original.any(dim=-1) != decoded.any(dim=-1)
    return torch.where(lost, 0.0, value)


def _limit(encoding: Encoding) -> float:
    """The largest value that comes back finite: readers give float16, and the int8 scale may be rounded up."""
    largest = float(torch.finfo(torch.float16).max)
    return largest * (1 - 2.0**-8) if encoding == "int8" else largest


def _row_all(mask: Tensor) -> Tensor:
    return mask.flatten(1).all(dim=1)


def _next_up(x: Tensor) -> Tensor:
    """The next float16 above each non-negative finite one: its bits, plus one."""
    return (x.view(torch.int16) + 1).view(torch.float16)
