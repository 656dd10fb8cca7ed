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
from frame.pipeline.teach import feature_encoding, scales_of
from frame.pipeline.teachers import encode

_STEPS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4)  # that `auto` tries, besides the largest that will do
# Levels reach 32,767 steps, and a channel that hardly moves in the sample may move later: no step is smaller than this
# share of the middle one, so that every channel has room for 800 of the usual deviations.
_LEAST_SHARE = 0.25
# The sample's cosine is not the data's: `auto` asks it for a twentieth less of a loss.
_MARGIN = 0.95

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
        tried = _trials(column, asked, sample[name])
        best = _best(tried, asked)
        settled[name] = encoded_as(column, best.encoding, best.step, sample[name])
        trials += [replace(trial, chosen=trial is best) for trial in tried]
    return settled, trials


def encoded_as(column: Column, encoding: Encoding, step: float, sample: Sample) -> Column:
    """``column`` in this encoding; of ``residual``, with the steps of the sample."""
    steps = _steps(sample, step) if encoding == "residual" else None
    return replace(column, encoding=encoding, steps=steps)


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


def _trials(column: Column, asked: Asked, sample: Sample) -> list[Trial]:
    def trial(step: float) -> Trial:
        return try_out(encoded_as(column, "residual", step, sample), sample, step=step)

    plain: tuple[Encoding, ...] = ("float16", "int8")
    others = [try_out(encoded_as(column, encoding, 0.0, sample), sample) for encoding in plain]
    if asked.kind == "residual":
        return [*others, trial(asked.number)]
    return [*others, *map(trial, sorted({*_STEPS, _fitting_step(asked.number, sample)}))]


def _fitting_step(cosine: float, sample: Sample) -> float:
    """About the largest step that loses no more than it may, three digits of it. The loss goes with its square."""
    step, allowed = STEP, _MARGIN * (1 - cosine)
    for _ in range(3):
        scales = scales_of(_steps(sample, step), "cpu")
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


def _steps(sample: Sample, step: float) -> Steps:
    """``step`` standard deviations of each channel over the sample, and each channel's mean, as float32 has them."""
    width = sample[0].shape[-1]
    tokens = np.concatenate([features.reshape(-1, width) for features in sample]).astype(np.float64)
    tokens = tokens[np.isfinite(tokens).all(axis=1)]
    if not len(tokens):
        raise InputError(
            what="Not one feature of the sample is finite.",
            where="--encoding",
            fix="--precision float32, or --encoding float16 to see which clips fail.",
        )
    deviation = tokens.std(axis=0)
    floor = max(_LEAST_SHARE * float(np.median(deviation)), 1e-6)
    sizes = np.maximum(step * np.maximum(deviation, floor), np.finfo(np.float32).tiny).astype(np.float32)
    return Steps(step=tuple(map(float, sizes)), mean=tuple(map(float, tokens.mean(axis=0).astype(np.float32))))
