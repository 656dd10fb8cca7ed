"""From segments to batches of tensors: rows read from the caches, in this process or in others.

Legend: S segments, L windows (current frames) of each. Steps count from a segment's first current frame, 0; negative
ones are the past, and those from L on are future targets.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.popen_forkserver import Popen
from multiprocessing.process import BaseProcess

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from frame.manifests.errors import InputError
from frame.pipeline.store import Cache, Column
from frame.pipeline.store.columns import PACKED_ROWS
from frame.train.signals import STOPS
from frame.train.windows import Segment, WindowPlan

# What torch says when a process that reads, or its way to this one, is gone.
_LOST = ("DataLoader worker (pid", "Pin memory thread exited", "Too many open files")


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """A range of steps of a segment, ``[first, stop)``: which rows of a column are read."""

    first: int
    stop: int

    def __post_init__(self) -> None:
        if self.first >= self.stop:
            raise ValueError(f"no steps from {self.first} to {self.stop}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """The rows of some segments, each of them once.

    ``columns`` hold [S, steps, *shape] as stored: uint8 frames, float16 features; zeros where a step is absent.
    ``present`` bool [S, past + L] says which of the steps from ``-past`` to ``L - 1`` are there, where ``past`` is the
    farthest that any column is read back.
    """

    columns: dict[str, Tensor]
    present: Tensor
    segments: tuple[Segment, ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same with its columns on another device; ``present`` stays, so that looking at it waits for nobody."""
        return self._with(
            {**self._tensors(), **{k: x.to(device, non_blocking=non_blocking) for k, x in self.columns.items()}}
        )

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, as ``DataLoader`` asks for it."""
        return self._with({name: x.pin_memory() for name, x in self._tensors().items()})

    def share_memory(self) -> Batch:
        """This batch, moved to memory that other processes see. ``InputError`` where there is not enough of it."""
        try:
            for x in self._tensors().values():
                x.share_memory_()  # type: ignore[no-untyped-call]
        except (RuntimeError, OSError) as error:
            raise InputError(
                what="A batch does not fit into the memory that processes share.",
                where="/dev/shm",
                why=str(error).splitlines()[0],
                fix="give the machine or the container more (`--shm-size`), use fewer --workers, or --workers 0",
            ) from error
        return self

    def rows(self) -> list[str]:
        """A line for each segment, for messages: the number of the cache, the clip, and the rows of its current frames,
        numbered through the cache."""
        return [
            f"{s.cache}/{s.clip} rows {s.first}..{s.row(s.windows - 1)} step {s.stride}" for s in self.segments
        ]  # fmt: skip

    def _tensors(self) -> dict[str, Tensor]:
        return {**self.columns, "": self.present}  # no column is called ""

    def _with(self, tensors: Mapping[str, Tensor]) -> Batch:
        return replace(self, columns={name: tensors[name] for name in self.columns}, present=tensors[""])


class SegmentReader:
    """Reads segments of some caches: of every column the steps that are wanted of it, each row once."""

    def __init__(self, caches: Sequence[Cache], columns: Mapping[str, Steps]) -> None:
        """``ValueError`` without caches or columns, ``InputError`` for columns that a cache lacks or has in another
        shape."""
        if not caches or not columns:
            raise ValueError("nothing to read")
        self.caches, self.columns = tuple(caches), dict(columns)
        self.past = max(0, -min(steps.first for steps in columns.values()))
        for cache in caches:
            for name in columns:
                _require_same(self.caches[0], cache, name)

    def read(self, segments: Sequence[Segment]) -> Batch:
        """The rows of ``segments``, in fresh memory; those of a segment must lie in its span. ``CacheError`` for
        damage."""
        if not segments:
            raise ValueError("no segments")
        present = [[s.present(step) for step in range(-self.past, s.windows)] for s in segments]
        return Batch(
            columns={name: torch.from_numpy(self._read(name, steps, segments)) for name, steps in self.columns.items()},
            present=torch.from_numpy(np.array(present)),
            segments=tuple(segments),
        )

    def _read(self, name: str, steps: Steps, segments: Sequence[Segment]) -> np.ndarray:
        column = self.caches[0].columns[name]
        out = np.empty((len(segments), steps.stop - steps.first, *column.shape), dtype=column.dtype)
        for segment, rows in zip(segments, out, strict=True):
            _read_segment(self.caches[segment.cache], column, steps, segment, rows)
        return out


def _read_segment(cache: Cache, column: Column, steps: Steps, segment: Segment, out: np.ndarray) -> None:
    """Fill ``out`` [steps, *shape] with a segment's rows."""
    first = steps.first
    while first < steps.stop and not segment.present(first):
        first += 1
    out[: first - steps.first] = 0
    wanted = out[first - steps.first :]
    if not len(wanted):
        return
    packed = cache.columns[column.name].steps is not None
    if segment.stride == 1 or (packed and segment.stride <= PACKED_ROWS):
        # Rows that are packed together are unpacked once for all that is wanted of them.
        rows = cache.read(column.name, segment.row(first), segment.row(steps.stop - 1) + 1)
        wanted[...] = rows[:: segment.stride]
        return
    for step, row in enumerate(wanted, start=first):
        row[...] = cache.read(column.name, segment.row(step), segment.row(step) + 1)[0]


def _require_same(first: Cache, cache: Cache, name: str) -> None:
    for each in (first, cache):
        each.read(name, 0, 0)  # says that there is no such column
    one, other = first.columns[name], cache.columns[name]
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        raise InputError(
            what=f"The column {name!r} differs between two caches.",
            where=str(cache.path),
            why=f"{other.dtype} {other.shape} there, {one.dtype} {one.shape} in {first.path}",
            fix="build both with the same --teachers and --size",
        )


class BatchDataset(Dataset["Batch | InputError"]):
    """The micro-batches of one rank, numbered from 0 and endless: number ``step * accumulation + a`` is part ``a`` of
    this rank's share of global batch ``step``, which holds ``size`` segments.

    Going through the parts, and in each through the ranks, gives the global batch in order. Cheap to pickle.
    """

    def __init__(
        self,
        *,
        plan: WindowPlan,
        reader: SegmentReader,
        size: int,
        rank: int = 0,
        ranks: int = 1,
        accumulation: int = 1,
    ) -> None:
        """``InputError`` when ``size`` is not a multiple of ``ranks * accumulation``; ``ValueError`` for columns read
        beyond the plan's windows, where rows of other clips lie."""
        shape = plan.shape
        for name, steps in reader.columns.items():
            if -steps.first > shape.past or steps.stop > shape.windows + shape.future:
                raise ValueError(f"{name}: {steps} do not lie within {shape}")
        if min(size, ranks, accumulation) < 1 or not 0 <= rank < ranks:
            raise ValueError(f"impossible size {size}, rank {rank} of {ranks} or accumulation {accumulation}")
        if size % (ranks * accumulation):
            raise InputError(
                what="The segments of a step cannot be shared out evenly.",
                where=f"a batch of {size} segments of {shape.windows} window(s)",
                why=f"{ranks} process(es) x {accumulation} part(s) each are {ranks * accumulation} shares",
                fix=f"choose batch size, windows of a segment, processes and accumulation such that {size} becomes a "
                f"multiple, for example {_next_multiple(size, ranks * accumulation)} segments",
            )
        self.plan, self.reader, self.size = plan, reader, size
        self.rank, self.ranks, self.accumulation = rank, ranks, accumulation

    def segments(self, micro: int) -> list[Segment]:
        """The segments of a micro-batch."""
        step, part = divmod(micro, self.accumulation)
        each = self.size // (self.ranks * self.accumulation)
        start = step * self.size + (part * self.ranks + self.rank) * each
        return self.plan.segments(start, start + each)

    def __getitem__(self, micro: int) -> Batch | InputError:
        """Micro-batch ``micro``, in shared memory if this is a process of a ``DataLoader``.

        An error that a person can mend is handed back, not raised: ``DataLoader`` would carry its text only.
        """
        try:
            batch = self.reader.read(self.segments(micro))
            # Here and not on the way out: out there, full memory would be a hang.
            return batch.share_memory() if get_worker_info() else batch
        except InputError as error:
            return error


def _next_multiple(size: int, of: int) -> int:
    return -(-size // of) * of


def batches(dataset: BatchDataset, start: int, stop: int, *, workers: int, pin: bool) -> Generator[Batch, None, None]:
    """Micro-batches ``start`` to ``stop - 1`` in their order, read ahead by ``workers`` processes (0: by this one).

    ``pin`` puts them into page-locked memory. Global random state is neither used nor changed. Raises ``InputError`` (a
    ``CacheError`` for damage) in its place in the order; and when a process was killed. The processes end with the
    iterator; they go on when they are asked to stop, as the one that began them does, so that it can finish its step.
    """
    if workers:
        _start_server()
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        pin_memory=pin,
        # A forked copy of a process with threads may hang; and children of its own would interrupt it when they die.
        multiprocessing_context=_Readers() if workers else None,
        worker_init_fn=_outlive_stops if workers else None,
        generator=torch.Generator(),
    )
    iterator = iter(loader)
    try:
        while (item := _next(iterator, workers)) is not None:
            if isinstance(item, InputError):
                raise item
            yield item
    finally:
        del iterator  # whoever keeps an error keeps this frame: the processes must not last as long


def _next(iterator: Iterator[Batch | InputError], workers: int) -> Batch | InputError | None:
    """The next item; None at the end. What has happened to a process is an item too."""
    try:
        return next(iterator, None)
    except (RuntimeError, OSError, EOFError) as error:
        # One that dies while it hands something over is noticed as a broken connection. What was raised in it, as a
        # mistake in the program would be, says so: "Caught … in DataLoader worker process".
        broken = workers and not isinstance(error, RuntimeError) and not str(error).startswith("Caught ")
        if not broken and not str(error).startswith(_LOST):
            raise
        return _lost(error, workers)


def _start_server() -> None:
    """Start the process that reading processes are forked from, deaf to requests to stop, which go to the whole group:
    they end with it. Does nothing if it runs."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        resource_tracker.ensure_running()  # unblocks two of them again
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Reader(ForkServerProcess):
    """A reading process. It is deaf to requests to stop, however often they come: a scheduler sends SIGTERM when the
    grace begins and again when it ends, and the step that is to be finished needs its batch. What does not end by
    itself is therefore killed."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Popen:  # noqa: N802
        popen = ForkServerProcess._Popen(process_obj)
        popen.terminate = popen.kill  # type: ignore[method-assign]
        return popen


class _Readers(ForkServerContext):
    Process = _Reader


def _outlive_stops(_worker: int) -> None:
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def _lost(error: Exception, workers: int) -> InputError:
    said = (str(error).splitlines() or [""])[0] or type(error).__name__
    return InputError(
        what="A process that reads the caches is gone.",
        where=f"--workers {workers}",
        why=f"{said}; most often the machine was out of memory, or /dev/shm was full",
        fix="give it more memory (a container: `--shm-size`), use fewer --workers, or --workers 0. "
        "`ulimit -n` bounds open files.",
    )
