"""How fast a teacher's features change: the cosine distance of frames that are so many rows apart, from a cache alone.

FRAME, appendix C.1: the mean over a clip's frames first, then over clips; patches are compared place by place and
averaged. Nothing is decoded, no model is loaded.

T rows of a clip, P tokens of a row, D width, K deltas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frame.eval.result import PICTURES, Result
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.model.files import replacing
from frame.pipeline.store import Cache, open_cache
from frame.pipeline.store.files import sha256_bytes
from frame.train.spans import cuts_between

Floats = NDArray[np.floating[Any]]

PRESET = "native"  # every row of the cache, no other resampling
_CHUNK = 64 << 20  # bytes of tokens, as float32, that are looked at together
_RISING = 1.02  # a last distance that much above the one at three quarters of the range is no plateau


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """``distance`` [K + 1] by delta, 0 to K, the mean over clips of each clip's mean; nan where no clip is long
    enough. ``clips`` [K + 1]: how many clips there are in it."""

    distance: NDArray[np.float64]
    clips: NDArray[np.int64]


def evaluate(data: Path, *, out: Path, columns: Sequence[str], most: int, progress: Progress) -> Result:
    """The curves of ``columns`` (empty: all that teachers made) of the cache at ``data``, for deltas 0 to ``most``.

    Writes the plot to ``out``. Raises InputError for a column of pictures and a cache without two frames in a row,
    ``CacheError`` for one that is damaged or not finished.
    """
    if most < 1:
        raise InputError(what="There is nothing to compare.", where=f"--max {most}", fix="give 1 or more")
    cache = open_cache(data)
    names = _columns(cache, columns)
    curves = measure(cache, names, most, progress)
    if not any(curve.clips[1] for curve in curves.values()):
        raise InputError(
            what="No clip has two frames in a row.", where=str(data), why=f"columns {', '.join(names)}",
            fix="build a cache with more than one frame a clip",
        )  # fmt: skip
    picture = f"{PICTURES}/deltas.png"
    plot(curves, out / picture)
    return Result(
        task="deltas", preset=PRESET, encoder=_teachers(cache, names), scores=_scores(curves), items=_items(curves),
        data=_data(cache, data), options={"max": most, "columns": names, "sampling": cache.meta.sampling},
        notes=_notes(cache, curves), pictures=[picture],
    )  # fmt: skip


def _columns(cache: Cache, asked: Sequence[str]) -> list[str]:
    made = [name for name, column in cache.columns.items() if column.teacher is not None]
    for name in asked:
        if name in cache.columns and name not in made:
            raise InputError(
                what="This column holds pictures, not features.",
                where=f"--columns {name}",
                fix=f"use {', '.join(made)}",
            )
        cache.read(name, 0, 0)  # says that there is no such column
    names = list(dict.fromkeys(asked)) or sorted(made)
    if not names:
        raise InputError(what="The cache has no features.", where=str(cache.path), fix="add a teacher to it")
    return names


def measure(cache: Cache, columns: Sequence[str], most: int, progress: Progress) -> dict[str, Curve]:
    """The curve of each column. Memory does not grow with the length of clips or the size of the cache."""
    clips = cache.index.num_rows
    curves = {}
    with progress.bar("deltas", total=clips * len(columns), unit="clips") as tick:
        for name in columns:
            means = []
            for position in range(clips):
                means.append(clip_mean(cache, name, position, most))
                tick()
            curves[name] = _mean_over_clips(np.array(means).reshape(-1, most + 1))
    return curves


def _mean_over_clips(means: NDArray[np.float64]) -> Curve:
    known = ~np.isnan(means)
    clips = known.sum(axis=0)
    total = np.where(known, means, 0.0).sum(axis=0)
    return Curve(distance=np.where(clips > 0, total / np.maximum(clips, 1), np.nan), clips=clips)


def clip_mean(cache: Cache, column: str, position: int, most: int) -> NDArray[np.float64]:
    """Mean distance [K + 1] by delta of the clip in row ``position`` of the index; nan for deltas it is too short for.

    Only frames between the same two cuts are compared.
    """
    total, count = np.zeros(most + 1), np.zeros(most + 1, dtype=np.int64)
    for start, stop in _unbroken(cache, column, position):
        for summed, pairs in _by_delta(_chunks(cache, column, start, stop), most):
            total += summed
            count += pairs
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _unbroken(cache: Cache, column: str, position: int) -> Iterator[tuple[int, int]]:
    """The runs of rows of a clip that can be read and that no cut interrupts."""
    clip = cache.index.slice(position, 1).to_pylist()[0]
    first, end, size = clip["first_row"], clip["first_row"] + clip["n_frames"], cache.meta.rows_per_unit
    if first == end:
        return
    expected = set(cache.expected_units)
    units = range(first // size, -(-end // size))
    known = [cache.readable(column, unit) if unit in expected else np.zeros(size, dtype=bool) for unit in units]
    readable = np.concatenate(known)[first - units[0] * size : end - units[0] * size]
    cuts = cuts_between(np.array(clip["timestamps"]))
    gaps = np.flatnonzero(readable[1:] != readable[:-1]) + 1
    for start, stop in pairwise(sorted({0, *cuts.tolist(), *gaps.tolist(), len(readable)})):
        if readable[start]:
            yield first + start, first + stop


def _asked_rate(cache: Cache) -> float | None:
    """Frames a second that the cache was resampled to; None for the videos' own."""
    fps = cache.meta.sampling.get("fps")
    return float(fps) if isinstance(fps, (int, float)) else None


def _chunks(cache: Cache, column: str, start: int, stop: int) -> Iterator[Floats]:
    """The rows' tokens [n, P, D] at unit length, a chunk at a time."""
    row = int(np.prod(cache.columns[column].shape)) * np.dtype(np.float32).itemsize
    step = max(_CHUNK // row, 1)
    for low in range(start, stop, step):
        values = cache.read(column, low, min(low + step, stop)).astype(np.float32)
        tokens_TPD = values.reshape(len(values), -1, values.shape[-1])
        yield tokens_TPD / np.maximum(np.linalg.norm(tokens_TPD, axis=-1, keepdims=True), 1e-12)


def _by_delta(chunks: Iterator[Floats], most: int) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """For each chunk the summed distances and the number of pairs by delta, [K + 1] each, of the pairs whose later
    frame is in it."""
    past_TPD: Floats | None = None
    for new_TPD in chunks:
        held_TPD = new_TPD if past_TPD is None else np.concatenate([past_TPD, new_TPD])
        old = len(held_TPD) - len(new_TPD)
        total, count = np.zeros(most + 1), np.zeros(most + 1, dtype=np.int64)
        for delta in range(min(most, len(held_TPD) - 1) + 1):
            later = max(old, delta)  # the first frame here that has one so far before it
            total[delta] = distances(held_TPD[later - delta : len(held_TPD) - delta], held_TPD[later:]).sum()
            count[delta] = len(held_TPD) - later
        yield total, count
        past_TPD = held_TPD[-most:]


def distances(one_TPD: Floats, other_TPD: Floats) -> NDArray[np.float64]:
    """Cosine distance [T] of frames' tokens of unit length, averaged over places.

    Half the squared distance of unit vectors is 1 - cos, and exactly 0 for equal ones, which 1 - cos is not.
    """
    gaps = one_TPD - other_TPD
    return np.asarray(np.einsum("tpd,tpd->t", gaps, gaps, dtype=np.float64) / (2 * gaps.shape[1]))


def suggest(curve: Curve) -> int | None:
    """The delta to train with: the largest one up to which the distance stays within half of its highest value.

    There a frame still says much of the other, and yet differs from it. 1 where even the next frame is further away;
    None where nothing changes at all.
    """
    known = curve.distance[~np.isnan(curve.distance)]
    half = float(known.max(initial=0.0)) / 2
    if half == 0:
        return None
    beyond = np.flatnonzero(known > half)
    return max(int(beyond[0]) - 1, 1)


def rises(curve: Curve) -> bool:
    """Whether the distance still grows at the end of the range, so that its highest value is not known yet."""
    known = curve.distance[~np.isnan(curve.distance)]
    return bool(known[-1] > _RISING * known[(3 * (len(known) - 1)) // 4])


def plot(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw the curves, with a mark at the suggested delta of each, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        best = suggest(curve)
        label = f"{name} (suggests {best})" if best else name
        axes.plot(curve.distance, marker=".", color=f"C{number}", label=label.replace("$", r"\$"))
        if best:
            axes.plot(best, curve.distance[best], marker="o", markersize=11, fillstyle="none", color=f"C{number}")
    axes.set_xlabel("delta, in rows of the cache")
    axes.set_ylabel("cosine distance, 1 - cos")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=130)


def _scores(curves: Mapping[str, Curve]) -> dict[str, float]:
    means = {name: float(np.nanmean(curve.distance[1:])) for name, curve in curves.items() if curve.clips[1]}
    found = {f"{name}: suggested delta": suggest(curve) for name, curve in curves.items()}
    return means | {name: float(delta) for name, delta in found.items() if delta}


def _items(curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    length = len(next(iter(curves.values())).distance)
    rows = []
    for delta in range(length):
        row = {"name": f"delta {delta}", "delta": delta}
        row |= {f"{name}: clips": int(curve.clips[delta]) for name, curve in curves.items()}
        row |= {name: float(curve.distance[delta]) for name, curve in curves.items() if curve.clips[delta]}
        rows.append(row)
    return [row for row in rows if any(row[f"{name}: clips"] for name in curves)]


def _teachers(cache: Cache, columns: Sequence[str]) -> dict[str, Any]:
    """The cache's teachers in the place of an encoder."""
    names = sorted({cache.columns[name].teacher or "" for name in columns})
    records = [cache.meta.teachers[name] for name in names]
    weights = [str(record["weights"]["origin"]) for record in records]
    return {
        "name": ", ".join(names),
        "kind": "cache",
        "model": ", ".join(str(record.get("model", "")) for record in records),
        "weights": "random" if "random" in weights else ", ".join(sorted(set(weights))),
        "digest": sha256_bytes("\n".join(sorted(cache.meta.teacher_id(name) for name in columns)).encode()),
    }


def _data(cache: Cache, root: Path) -> dict[str, Any]:
    """The index names every source by the digest of its content, and every frame by its time."""
    frames = int(np.sum(cache.index.column("n_frames").to_numpy()))
    return {"root": str(root), "digest": cache.meta.index_sha256, "clips": cache.index.num_rows, "frames": frames}


def _notes(cache: Cache, curves: Mapping[str, Curve]) -> list[str]:
    fps, rates = _asked_rate(cache), cache.index.column("fps").to_numpy()
    known = sorted({round(float(rate), 2) for rate in rates if rate > 0})
    natural = (
        f"the videos' own frames, {known[0]:g}" + (f" to {known[-1]:g}" if len(known) > 1 else "") if known else ""
    )
    rate = f"resampled to {fps:g}" if fps else natural
    notes = [
        f"A delta is counted in rows of the cache: {rate or 'frames at an unknown number of'} a second.",
        "A column's total is the mean over deltas 1 to the largest. Its suggested delta is the largest one up to which "
        "the distance stays within half of its highest value here.",
    ]
    if rising := [name for name, curve in curves.items() if rises(curve)]:
        notes.append(f"Still rising at the largest delta, so that a larger --max suggests more: {', '.join(rising)}.")
    if uneven := [curve.clips for curve in curves.values() if curve.clips[-1] < curve.clips[1]]:
        low, high = min(int(clips[-1]) for clips in uneven), max(int(clips[1]) for clips in uneven)
        notes.append(f"Short clips have no part in large deltas: {high:,} clips at delta 1, {low:,} at the largest.")
    if still := [name for name, curve in curves.items() if suggest(curve) is None]:
        notes.append(f"Nothing changes over time, so no delta is suggested: {', '.join(still)}.")
    if failed := cache.failed():
        notes.append(f"{len(failed):,} clips failed when the cache was built and are left out.")
    return notes
