"""``--encoding``: what was asked for, tried on a sample of features, and settled for each column.

The steps of a ``residual`` column and the choice of ``auto`` come from a sample that is taken once, when a cache is
planned, and are part of its metadata from then on: units stay independent of each other, and a resumed build encodes
as it began.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from frame.manifests.errors import InputError
from frame.pipeline.encoding_option import LEAST_STEP, MOST_STEP, STEP, Asked
from frame.pipeline.store import packing
from frame.pipeline.store.columns import PACKED_ROWS, Column, Encoding, Steps
from frame.pipeline.store.receipts import merge_moments, moments_of
from frame.pipeline.teach import feature_encoding, scales_of
from frame.pipeline.teachers import encode

_STEPS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4)  # that `auto` tries, besides the largest that will do
# Levels reach 32,767 steps, and a channel that hardly moves in the sample may move later: no step is smaller than this
# share of the middle one, so that every channel has room for 800 of the usual deviations.
_LEAST_SHARE = 0.25
# The sample's cosine is not the data's: `auto` asks it for a fiftieth less of a loss.
_MARGIN = 0.98

Sample = Sequence[np.ndarray]
"""Features of one column, float32 ``[n_i, *shape]``: consecutive frames of a clip each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One encoding of a column, tried on the sample: ``bits`` a value; ``step`` in standard deviations (residual)."""

    column: str
    encoding: Encoding
    step: float
    bits: float
    mean_cosine: float
    worst_cosine: float
    chosen: bool = False

    @property
    def name(self) -> str:
        """As one would ask for it."""
        return f"residual:{self.step:.4g}" if self.encoding == "residual" else self.encoding


def settle(
    columns: Mapping[str, Column], asked: Asked, sample: Mapping[str, Sample]
) -> tuple[dict[str, Column], list[Trial]]:
    """The columns with the encoding that each gets, and what was tried for it. ``columns`` without a teacher stay."""
    settled, trials = dict(columns), []
    for name, column in columns.items():
        if column.teacher is None:
            continue
        if not asked.needs_sample:
            settled[name] = replace(column, encoding="int8" if asked.kind == "int8" else "float16", steps=None)
            continue
        spread = spread_of(sample[name])
        tried = _trials(column, asked, sample[name], spread)
        best = _best(tried, asked)
        settled[name] = encoded_as(column, best.encoding, best.step, spread)
        trials += [replace(trial, chosen=trial is best) for trial in tried]
    return settled, trials


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Mean and standard deviation of every channel over a sample, float64 ``[width]``."""

    mean: np.ndarray
    deviation: np.ndarray


def spread_of(sample: Sample) -> Spread:
    """Of all finite tokens of a sample. Raises ``InputError`` where there is none."""
    width = sample[0].shape[-1]
    parts = [moments_of(tokens[np.isfinite(tokens).all(axis=1)]) for tokens in (x.reshape(-1, width) for x in sample)]
    count, mean, variance = merge_moments(parts, width)
    if not count:
        raise InputError(
            what="Not one feature of the sample is finite.",
            where="--encoding",
            fix="--precision float32, or --encoding float16 to see which clips fail.",
        )
    return Spread(mean=mean, deviation=np.sqrt(variance))


def encoded_as(column: Column, encoding: Encoding, step: float, spread: Spread) -> Column:
    """``column`` in this encoding; of ``residual``, with steps of so many standard deviations."""
    return replace(column, encoding=encoding, steps=_steps(spread, step) if encoding == "residual" else None)


def try_out(column: Column, sample: Sample, *, step: float = 0.0) -> Trial:
    """Encode the sample as ``column`` says, and measure what it takes and what it loses."""
    scales = scales_of(column.steps, "cpu") if column.steps else None
    total = worst = 0.0
    tokens, levels = 0, []
    for features in sample:
        made = encode(torch.from_numpy(features), feature_encoding(column), scales)
        kept = made.cosine[made.finite].double()
        if kept.numel():
            worst = min(worst, float(kept.min()) - 1)
            total += float(kept.sum())
            tokens += kept.numel()
        if column.steps:
            levels += [part.numpy() for part in torch.split(made.values, PACKED_ROWS)]
    return Trial(
        column=column.name,
        encoding=column.encoding,
        step=step,
        bits=8 * sum(map(len, packing.pack(levels))) / sum(map(np.size, sample)) if levels else _plain_bits(column),
        mean_cosine=total / max(tokens, 1),
        worst_cosine=1 + worst,
    )


def _plain_bits(column: Column) -> float:
    return 8 * column.row_bytes / math.prod(column.shape)


def _trials(column: Column, asked: Asked, sample: Sample, spread: Spread) -> list[Trial]:
    def trial(encoding: Encoding, step: float = 0.0) -> Trial:
        return try_out(encoded_as(column, encoding, step, spread), sample, step=step)

    others = [trial("float16"), trial("int8")]
    if asked.kind == "residual":
        return [*others, trial("residual", asked.number)]
    steps = sorted({*_STEPS, _fitting_step(asked.number, sample, spread)})
    return [*others, *(trial("residual", step) for step in steps)]


def _fitting_step(cosine: float, sample: Sample, spread: Spread) -> float:
    """About the largest step that loses no more than it may, three digits of it. The loss goes with its square."""
    step, allowed = STEP, _MARGIN * (1 - cosine)
    for _ in range(3):
        scales = scales_of(_steps(spread, step), "cpu")
        made = [encode(torch.from_numpy(features), "residual", scales) for features in sample]
        lost = 1 - float(torch.cat([item.cosine[item.finite].flatten().double() for item in made]).mean())
        step = min(max(step * math.sqrt(allowed / max(lost, 1e-9)), LEAST_STEP), MOST_STEP)
    return max(math.floor(step * 995) / 1000, LEAST_STEP)


def _reaches(mean_cosine: float, cosine: float) -> bool:
    return 1 - mean_cosine <= _MARGIN * (1 - cosine)


def _best(tried: Sequence[Trial], asked: Asked) -> Trial:
    if asked.kind == "residual":
        return tried[-1]
    good = [trial for trial in tried if _reaches(trial.mean_cosine, asked.number)]
    if not good:
        best = max(tried, key=lambda trial: trial.mean_cosine)
        raise InputError(
            what=f"No encoding of {best.column} reaches a mean cosine of {asked.number}.",
            where="--encoding",
            why=f"{best.name} comes closest, with {best.mean_cosine:.7f}",
            fix="--encoding float16, or ask for less.",
        )
    return min(good, key=lambda trial: trial.bits)


def _steps(spread: Spread, step: float) -> Steps:
    """``step`` standard deviations of each channel, and each channel's mean, as float32 has them."""
    floor = max(_LEAST_SHARE * float(np.median(spread.deviation)), 1e-6)
    sizes = np.maximum(step * np.maximum(spread.deviation, floor), np.finfo(np.float32).tiny).astype(np.float32)
    return Steps(step=tuple(map(float, sizes)), mean=tuple(map(float, spread.mean.astype(np.float32))))
