"""Where segments of frames may lie: runs of a cache's rows that show one clip without a break.

Plain arithmetic on the index and on what each unit holds; no feature is read here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from frame.pipeline.store import Cache, CacheError
from frame.pipeline.store.layout import INDEX

# Of a clip's median step. A doubled one is ordinary: 25 frames a second in a container of 30 leave out every sixth, and
# such clips, common in the wild, would have no window at all. Training itself looks at every fourth frame.
_LONGEST_STEP = 2.5
_SLACK = 1e-6  # seconds that timestamps may be off by rounding
_BLOCK = 4096  # clips whose timestamps are looked at together


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Rows ``[start, stop)``, numbered through the cache, of one clip in one unit, that no cut interrupts.

    ``cache`` is the number that the cache has in this run.
    """

    cache: int
    clip: str
    unit: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SpanTable(Sequence[Span]):
    """Spans as arrays [n]: a million of them are 30 MB and their clips' names, in memory and in a pickle.

    ``clip`` numbers the names; the name of clip ``i`` is ``names[ends[i - 1]:ends[i]]``.
    """

    cache: np.ndarray
    clip: np.ndarray
    unit: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    names: str
    ends: np.ndarray

    @classmethod
    def of(cls, spans: Iterable[Span]) -> SpanTable:
        """The table of these spans, in their order; a table itself is handed back."""
        if isinstance(spans, SpanTable):
            return spans
        known: dict[str, int] = {}
        rows = [(s.cache, known.setdefault(s.clip, len(known)), s.unit, s.start, s.stop) for s in spans]
        columns = np.array(rows, dtype=np.int64).reshape(-1, 5).T
        return cls.build(*columns, clips=list(known))

    @classmethod
    def build(
        cls,
        cache: np.ndarray,
        clip: np.ndarray,
        unit: np.ndarray,
        start: np.ndarray,
        stop: np.ndarray,
        *,
        clips: Sequence[str],
    ) -> SpanTable:
        """From columns, where ``clip`` counts in ``clips``."""
        return cls(
            cache=cache.astype(np.int32),
            clip=clip.astype(np.int32),
            unit=unit.astype(np.int32),
            start=start.astype(np.int64),
            stop=stop.astype(np.int64),
            names="".join(clips),
            ends=np.cumsum([len(name) for name in clips], dtype=np.int64),
        )

    @classmethod
    def joined(cls, tables: Sequence[SpanTable]) -> SpanTable:
        """All spans of ``tables``, one table after the other: those of the caches of a run."""
        if not tables:
            return cls.of([])
        clips = np.cumsum([0, *(len(table.ends) for table in tables)])
        letters = np.cumsum([0, *(len(table.names) for table in tables)])
        return cls(
            cache=np.concatenate([table.cache for table in tables]),
            clip=np.concatenate([table.clip + np.int32(n) for table, n in zip(tables, clips, strict=False)]),
            unit=np.concatenate([table.unit for table in tables]),
            start=np.concatenate([table.start for table in tables]),
            stop=np.concatenate([table.stop for table in tables]),
            names="".join(table.names for table in tables),
            ends=np.concatenate([table.ends + n for table, n in zip(tables, letters, strict=False)]),
        )

    def __len__(self) -> int:
        return len(self.start)

    @overload
    def __getitem__(self, index: int) -> Span: ...
    @overload
    def __getitem__(self, index: slice) -> SpanTable: ...
    def __getitem__(self, index: int | slice) -> Span | SpanTable:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        clip = int(self.clip[index])
        return Span(
            cache=int(self.cache[index]),
            clip=self.names[int(self.ends[clip - 1]) if clip else 0 : int(self.ends[clip])],
            unit=int(self.unit[index]),
            start=int(self.start[index]),
            stop=int(self.stop[index]),
        )

    def __iter__(self) -> Iterator[Span]:
        return (self[index] for index in range(len(self)))

    def take(self, chosen: np.ndarray) -> SpanTable:
        """The spans that ``chosen`` names, by a mask or by their numbers."""
        columns = (column[chosen] for column in (self.cache, self.clip, self.unit, self.start, self.stop))
        cache, clip, unit, start, stop = columns
        return SpanTable(
            cache=cache, clip=clip, unit=unit, start=start, stop=stop, names=self.names, ends=self.ends
        )  # fmt: skip


def find_spans(
    cache: Cache, number: int, columns: Iterable[str], *, splits_wanted: str, share: float = 1.0, seed: int
) -> SpanTable:
    """The longest runs of rows of the split ``splits_wanted`` that can be read in every one of ``columns``, in order.

    A run ends where its clip ends, at a unit's edge, and at a cut in time: where the timestamps do not advance, or by
    more than 2.5 x the clip's median step (resampling to fewer frames a second at most doubles it). Clips that failed
    in one of ``columns`` have none. ``share``, above 0 and up to 1, takes that part of the split's clips, by a digest
    of ``seed`` and the clip's name: a larger share adds clips and leaves out none of the
    smaller one. ``number`` is what the spans will call this cache.

    Raises ``CacheError`` for an unknown column and for a unit that holds such clips and is not committed yet: a run
    must not depend on how far a build has come. Units that a partial export left out hold no spans.
    """
    names = list(columns)
    for name in names:
        cache.read(name, 0, 0)  # says that there is no such column
    chosen = _chosen_clips(cache, splits_wanted, share, seed)
    first = cache.index.column("first_row").to_numpy()[chosen]
    end = first + cache.index.column("n_frames").to_numpy()[chosen]
    good = _readable(cache, names, first, end)
    new = np.zeros(cache.meta.rows, dtype=bool)  # a run must begin here, if not before
    new[first] = new[:: cache.meta.rows_per_unit] = True
    new[_cuts(cache)] = True
    start = np.flatnonzero(good & (new | ~np.append(False, good[:-1])))
    stop = np.flatnonzero(good & np.append(new[1:] | ~good[1:], True)) + 1
    return SpanTable.build(
        np.full(len(start), number),
        np.searchsorted(first, start, side="right") - 1,
        start // cache.meta.rows_per_unit,
        start,
        stop,
        clips=cache.index.column("clip").take(chosen).to_pylist(),
    )


def _chosen_clips(cache: Cache, split: str, share: float, seed: int) -> np.ndarray:
    """Rows of the index of the clips that may be used, increasing: all that have rows, failed since or not, so that
    the choice does not depend on the columns."""
    if not 0 < share <= 1:
        raise ValueError(f"share {share} is not above 0 and at most 1")
    in_split = np.array(cache.index.column("split").to_pylist(), dtype=object) == split
    found = np.flatnonzero(in_split & (cache.index.column("n_frames").to_numpy() > 0))
    if share == 1:
        return found
    clips = cache.index.column("clip").take(found).to_pylist()
    digests = [int.from_bytes(hashlib.sha256(f"{seed} {clip}".encode()).digest()[:8]) for clip in clips]
    order = np.argsort(np.array(digests, dtype=np.uint64), kind="stable")
    return np.sort(found[order[: int(np.ceil(share * len(found) - 1e-9))]])


def _readable(cache: Cache, columns: Sequence[str], first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Rows of the clips ``[first, end)`` that can be read in all ``columns``, bool [rows of the cache]."""
    marks = np.zeros(cache.meta.rows + 1, dtype=np.int8)
    marks[first] += 1
    marks[end] -= 1
    good: np.ndarray = np.cumsum(marks[:-1], dtype=np.int8) > 0
    size, expected = cache.meta.rows_per_unit, set(cache.expected_units)
    cache.look_up(sorted(expected & set((np.flatnonzero(good) // size).tolist())))
    for unit in range(cache.units):
        part = good[unit * size : (unit + 1) * size]
        if unit not in expected:
            part[:] = False
        elif part.any():
            for column in columns:
                part &= cache.readable(column, unit)
    return good


def _cuts(cache: Cache) -> np.ndarray:
    """Rows of the cache whose frame does not follow the one before it in the same clip."""
    table = cache.index.select(["first_row", "n_frames", "timestamps"])
    found = [_cuts_of(table.slice(begin, _BLOCK), cache) for begin in range(0, len(table), _BLOCK)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *found])


def _cuts_of(clips: Any, cache: Cache) -> np.ndarray:
    first, count = (clips.column(name).to_numpy() for name in ("first_row", "n_frames"))
    times = np.concatenate([chunk.flatten().to_numpy() for chunk in clips.column("timestamps").chunks])
    if len(times) != count.sum():
        raise CacheError(
            what="The index has not a timestamp for every row.",
            where=str(cache.path / INDEX),
            why=f"{len(times):,} timestamps, {count.sum():,} rows",
            fix="Build the cache again: `frame-cache build CACHE`.",
        )
    ends = np.cumsum(count)
    some = np.flatnonzero(count)
    if not len(some):
        return some
    gaps = np.append(np.diff(times), np.nan)
    gaps[ends[some] - 1] = np.nan  # from one clip to the next
    least, most = (pick.reduceat(gaps, (ends - count)[some]) for pick in (np.fmin, np.fmax))
    # Nearly all clips are even, and so need no median; in a clip of one frame both are NaN.
    uneven = some[~((least > 0) & (most <= _LONGEST_STEP * least)) & (count[some] > 1)]
    cuts = [first[:0]]
    for clip in uneven:
        cuts.append(first[clip] + cuts_between(times[ends[clip] - count[clip] : ends[clip]]))
    return np.concatenate(cuts)


def cuts_between(times: np.ndarray) -> np.ndarray:
    """Numbers of the frames of one clip that do not follow the one before, int64. ``times`` [n] in seconds."""
    gaps = np.diff(times)
    longest = _LONGEST_STEP * float(np.median(gaps)) + _SLACK if len(gaps) else 0.0
    cuts: np.ndarray = np.flatnonzero(~((gaps > 0) & (gaps <= longest))) + 1
    return cuts
