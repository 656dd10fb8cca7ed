"""``recode``: an existing cache in another encoding, without its teachers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.pipeline.encoding_option import parse_encoding
from frame.pipeline.encodings import Trial, settle
from frame.pipeline.sample import sample_cache
from frame.pipeline.store import Cache, open_cache
from frame.pipeline.store.codecs import decode
from frame.pipeline.store.columns import Column
from frame.pipeline.store.export import chosen_meta, copy_units
from frame.pipeline.store.layout import META, CacheMeta, StoreKind
from frame.pipeline.store.objects import StorePath
from frame.pipeline.store.receipts import moments_of
from frame.pipeline.store.writer import UnitData
from frame.pipeline.teach import feature_encoding, scales_of
from frame.pipeline.teachers import encode

_BATCH = 64  # rows at a time: a unit's features in float32 would be twice a unit


@dataclass(frozen=True, kw_only=True, slots=True)
class Recoding:
    """What a recoding will write, and what was tried to settle it (nothing where the destination has it settled)."""

    meta: CacheMeta
    trials: tuple[Trial, ...]


def plan_recoding(
    source: Cache, destination: StorePath, encoding: str, *, to: StoreKind | None, progress: Progress
) -> Recoding:
    """Settle the encoding of every column, on a sample of what ``source`` holds.

    A destination that was begun keeps the steps it has. Raises ``InputError`` for an encoding that makes no sense.
    """
    asked = parse_encoding(encoding)
    copied = chosen_meta(source, to or source.meta.store, None, None)
    build = {**copied.build, "encoding": encoding, "recoded_from": source.meta.build.get("encoding")}
    if (destination / META).exists():
        begun = open_cache(destination).meta
        if begun.build == build:
            columns = {**copied.columns, **{name: c for name, c in begun.columns.items() if name in copied.columns}}
            return Recoding(meta=replace(copied, build=build, columns=columns), trials=())
    features = {name: column for name, column in copied.columns.items() if column.teacher is not None}
    sample = sample_cache(source, features, progress) if asked.needs_sample else {}
    if asked.needs_sample and not all(sample.values()):
        raise InputError(
            what="There are no features to take a sample of.",
            where=str(source.path),
            why="none of the chosen clips has all of its frames in this cache",
            fix="--encoding float16 or int8, which need no sample.",
        )
    columns, trials = settle(copied.columns, asked, sample)
    return Recoding(meta=replace(copied, build=build, columns=columns), trials=tuple(trials))


def recode(source: Cache, destination: StorePath, recoding: Recoding, *, tick: Callable[[], None]) -> Cache:
    """Write ``source`` to ``destination`` as planned. Raises as ``export`` does."""

    def change(data: UnitData) -> UnitData:
        return recode_unit(data, source.columns, recoding.meta.columns)

    return copy_units(source, destination, recoding.meta, change=change, tick=tick)


def recode_unit(data: UnitData, old: Mapping[str, Column], new: Mapping[str, Column]) -> UnitData:
    """The same features in the encoding of the ``new`` columns. Raises ``InputError`` for a value that has no place."""
    values, loss, moments = dict(data.values), dict(data.loss), dict(data.moments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in data.software:
        if new[name].teacher is None or new[name] == replace(old[name], part=new[name].part):
            continue
        features = decode(old[name], data.values)
        for spec in old[name].arrays(1):
            del values[spec.name]
        made, cosines, decoded = _encode(features, new[name], data.unit, device)
        values |= made
        if len(features):
            loss[name] = _joined(data.loss.get(name), cosines)
            moments[name] = moments_of(decoded)
    return replace(data, values=values, loss=loss, moments=moments)


def _encode(
    features: np.ndarray, column: Column, unit: int, device: str
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Its arrays by name, the tokens' cosines, and what comes back of it."""
    scales = scales_of(column.steps, device) if column.steps else None
    arrays: dict[str, list[np.ndarray]] = {spec.name: [] for spec in column.arrays(1)}
    cosines, decoded = [], []
    for start in range(0, max(len(features), 1), _BATCH):
        part = torch.from_numpy(features[start : start + _BATCH]).to(device).float()
        made = encode(part, feature_encoding(column), scales)
        if not bool(made.finite.all()):
            raise InputError(
                what=f"Features of {column.name} are too large for {column.encoding}.",
                where=f"unit {unit}",
                why="a value lies more than 32,767 steps from its channel's mean",
                fix="A larger step (residual:STEP), or --encoding int8.",
            )
        arrays[column.name].append(made.values.cpu().numpy())
        if made.scale is not None:
            scale = made.scale.cpu().numpy()
            arrays[f"{column.name}.scale"].append(scale if scale.ndim > 1 else scale[:, None])
        cosines.append(made.cosine.cpu().numpy())
        decoded.append(made.decoded.cpu().numpy())
    joined = {name: np.concatenate(parts) for name, parts in arrays.items()}
    return joined, np.concatenate(cosines), np.concatenate(decoded)


def _joined(before: Mapping[str, Any] | None, cosines: np.ndarray) -> dict[str, float]:
    """The loss against the teacher, of features that had lost something before: mean losses add up, and the worst token
    of the one may be that of the other, in the same direction."""
    mean, worst = float(cosines.astype(np.float64).mean()), float(cosines.min())
    if not before:
        return {"mean_cosine": mean, "worst_cosine": worst}
    angle = sum(math.acos(min(max(value, -1.0), 1.0)) for value in (worst, before["worst_cosine"]))
    return {
        "mean_cosine": mean + before["mean_cosine"] - 1,
        "worst_cosine": math.cos(min(angle, math.pi)),
    }
