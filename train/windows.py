"""Which segments of frames a run sees, in which order: a pure function of the seed, with nothing to save or restore.

A segment is a run of rows, at some stride, from which neighbouring windows are cut: a row that several windows look
at is read, and encoded, once. The stream of segments is endless and the same for any number of workers and ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from frame.train.spans import Span, SpanTable, find_spans

__all__ = ["Segment", "Span", "SpanTable", "WindowPlan", "WindowShape", "find_spans", "fitting"]

_ORDER, _PLACE = 0, 1  # what bits are drawn for: they are two streams


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowShape:
    """What a segment spans, in steps: ``windows`` current frames, ``past`` frames before the first of them, and
    ``future``, how far the farthest target lies ahead of its current frame."""

    windows: int
    past: int
    future: int

    def __post_init__(self) -> None:
        if self.windows < 1 or self.past < 0 or self.future < 0:
            raise ValueError(f"impossible shape of a window: {self}")

    @property
    def reach(self) -> int:
        """Steps from the first current frame to the last frame that is needed."""
        return self.windows - 1 + self.future


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """``windows`` current frames: rows ``first``, ``first + stride`` … of one clip in one unit of one cache.

    Rows are numbered through the cache; ``floor`` is the first row of the span that the segment lies in, and rows
    before it are another clip's, another unit's, or on the other side of a cut.
    """

    cache: int
    clip: str
    unit: int
    first: int
    stride: int
    floor: int
    windows: int

    def row(self, step: int) -> int:
        """The row of a step: 0 is the first current frame, negative ones are the past."""
        return self.first + step * self.stride

    def present(self, step: int) -> bool:
        """Whether that row is there: the past of a span's first frames is absent."""
        return self.row(step) >= self.floor


def fitting(spans: Sequence[Span], shape: WindowShape) -> SpanTable:
    """Those of ``spans`` that admit a whole segment at stride 1: all current frames and all futures."""
    table = SpanTable.of(spans)
    return table.take(table.stop - table.start > shape.reach)


class WindowPlan:
    """An endless stream of segments, numbered from 0; ``per_epoch`` of them are an epoch.

    Within an epoch every span is visited ``visits`` times, in an order drawn from ``seed`` and the epoch. The stride
    of a visit, 1 to ``max_stride`` but only such as fit into the span, and its first row are drawn from ``seed``, the
    epoch, the span's number and the visit. The first current frame may be the span's first one, whose past is then
    absent; all futures lie inside the span.

    Only raw bits of Philox are used: NumPy guarantees this stream for ever, and not what ``Generator`` makes of it.
    Cheap to pickle; safe in several processes and threads.
    """

    def __init__(self, spans: Sequence[Span], shape: WindowShape, seed: int, max_stride: int, visits: int = 1) -> None:
        """``ValueError`` for no span at all, for one that does not fit (see ``fitting``), and for a seed that is
        negative or takes more than 64 bits."""
        table = SpanTable.of(spans)
        if not len(table) or len(fitting(table, shape)) < len(table):
            raise ValueError(f"{len(table)} spans, of which {len(fitting(table, shape))} admit a segment of {shape}")
        if not 0 <= seed < 1 << 64 or max_stride < 1 or visits < 1:
            raise ValueError(f"impossible seed {seed}, max_stride {max_stride} or visits {visits}")
        self.spans, self.shape, self.seed, self.max_stride, self.visits = table, shape, seed, max_stride, visits
        self._latest: tuple[int, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_latest": None}

    @property
    def per_epoch(self) -> int:
        """Segments of an epoch."""
        return len(self.spans) * self.visits

    def batch(self, step: int, size: int) -> list[Segment]:
        """The ``size`` segments of a step. Batches may straddle epochs, so that none is left out."""
        return self.segments(step * size, (step + 1) * size)

    def segments(self, start: int, stop: int) -> list[Segment]:
        """Segments ``start`` to ``stop - 1`` of the stream."""
        return [self.segment(position) for position in range(start, stop)]

    def segment(self, position: int) -> Segment:
        """Segment number ``position`` of the stream."""
        epoch, place = divmod(position, self.per_epoch)
        number, visit = divmod(int(self._order(epoch)[place]), self.visits)
        span = self.spans[number]
        bits = self._bits(_PLACE, epoch, number, visit, count=2)
        length, reach = span.stop - span.start, self.shape.reach
        fit = min(self.max_stride, (length - 1) // reach) if reach else self.max_stride
        stride = 1 + _below(int(bits[0]), fit)
        first = span.start + _below(int(bits[1]), length - reach * stride)
        return Segment(
            cache=span.cache,
            clip=span.clip,
            unit=span.unit,
            first=first,
            stride=stride,
            floor=span.start,
            windows=self.shape.windows,
        )

    def _order(self, epoch: int) -> np.ndarray:
        """Span x visits + visit for every place in an epoch, int64 [per_epoch]; the last epoch asked for is kept."""
        latest = self._latest
        if latest is None or latest[0] != epoch:
            bits = self._bits(_ORDER, epoch, 0, 0, count=self.per_epoch)
            # A stable sort: the order is the same whatever sorts it.
            latest = self._latest = (epoch, np.argsort(bits, kind="stable"))
        return latest[1]

    def _bits(self, stream: int, epoch: int, number: int, visit: int, *, count: int) -> np.ndarray:
        """``count`` random words, uint64: a pure function of the seed and these numbers."""
        # The generator itself counts in the first word, which leaves the other three.
        counter = np.array([0, visit, number, epoch], dtype=np.uint64)
        philox = np.random.Philox(key=np.array([self.seed, stream], dtype=np.uint64), counter=counter)
        bits: np.ndarray = philox.random_raw(count)
        return bits


def _below(bits: int, count: int) -> int:
    """64 random bits as a number from 0 to ``count - 1``."""
    return bits * count >> 64
