"""Decoding of hostile video from a process that must not die: a request can be killed, and takes no other along."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frame.manifests.errors import InputError
from frame.pipeline.decode.errors import ClipError
from frame.pipeline.decode.limits import Limits
from frame.pipeline.decode.probe import FOLDER_RATE, Probe
from frame.pipeline.decode.process import COMMAND, Child, ChildDeathError
from frame.pipeline.decode.shared import Pool

DECODERS = ("decord", "pyav", "torchcodec")

Frames = NDArray[np.uint8]


class DecodeCage:
    """Probes and decodes one source at a time in a child process with a deadline and a memory limit.

    A source that hangs, crashes or bloats its decoder costs itself only: the child is killed, the next request gets
    a fresh one. The child is started by the first request, by the thread that makes it, and dies with that thread.
    Not for use by two threads at once. ``command`` is the child to start, which tests replace.
    """

    def __init__(self, *, limits: Limits | None = None, command: Sequence[str] = COMMAND) -> None:
        self.limits = limits or Limits()
        self.used = ""
        """The decoder of the last frames handed over: the one asked for, or "pyav" where that was not to be trusted."""
        self.complaints = ""
        """What native libraries wrote about the last source, for a person who looks into it. Differs between runs."""
        self._command = tuple(command)
        self._child: Child | None = None
        self._open: object | None = None
        self._pool = Pool()

    def check(self, decoder: str) -> None:
        """Raise InputError unless ``decoder`` can be used on this machine. To be called once, before a build."""
        if decoder not in DECODERS:
            raise InputError(
                what=f"There is no decoder {decoder!r}.", where="--decoder", fix=f"Use one of: {', '.join(DECODERS)}."
            )
        try:
            self._ask({"do": "check", "decoder": decoder}, seconds=300.0)
        except ChildDeathError as death:
            raise _unusable(decoder, f"loading it ends in {death.how}") from None

    def probe(
        self, path: Path, *, start: float | None = None, end: float | None = None, frame_rate: float | None = None
    ) -> Probe:
        """What the source at ``path`` holds; raises ClipError.

        ``start`` and ``end`` select the pictures of the half-open segment [start, end), in seconds from the start
        of the file as a player counts them. ``frame_rate`` is the clock of a folder of pictures (default 24).
        """
        request = {"do": "probe", "path": str(path.absolute()), "start": start, "end": end}
        request["frame_rate"] = frame_rate or FOLDER_RATE
        seconds = self.limits.deadline(size=_weight(path))
        for last in (False, True):
            try:
                answer = self._ask(request, seconds=seconds)
            except ChildDeathError as death:
                if last or death.late:
                    raise _failure(death) from None
            else:
                return Probe(**(answer | {"timestamps": tuple(answer["timestamps"])}))
        raise AssertionError("unreachable")

    def decode(
        self,
        path: Path,
        timestamps: Sequence[float],
        *,
        height: int,
        width: int,
        decoder: str = "decord",
        sha256: str | None = None,
        frame_rate: float | None = None,
    ) -> Frames:
        """The frames of all ``timestamps``, uint8 RGB [n, height, width, 3]; see `decode_pieces`."""
        pieces = self.decode_pieces(
            path,
            timestamps,
            height=height,
            width=width,
            decoder=decoder,
            sha256=sha256,
            frame_rate=frame_rate,
            piece=len(timestamps),
        )
        return next(pieces)

    def decode_pieces(
        self,
        path: Path,
        timestamps: Sequence[float],
        *,
        height: int,
        width: int,
        decoder: str = "decord",
        sha256: str | None = None,
        frame_rate: float | None = None,
        piece: int = 32,
    ) -> Iterator[Frames]:
        """The frames of ``timestamps``, ``piece`` at a time, each array uint8 RGB [<= piece, height, width, 3].

        ``timestamps``, ``height`` and ``width`` are those of the probe, or some of its timestamps, increasing. A
        frame is the one whose presentation time the timestamp is, exactly; where one cannot be had, ClipError is
        raised, perhaps after some pieces were handed over, and the whole clip has failed. ``sha256`` refuses a
        source whose bytes are not those probed. The arrays are the shared memory that the child wrote into: no
        copy is made, and the memory is used again once no view of the array is left. The source is read once from
        front to back, however many pieces there are. Pieces end with the next request for something else.
        """
        times = [float(timestamp) for timestamp in timestamps]
        if not times or any(a >= b for a, b in pairwise(times)):
            raise ValueError("timestamps must be increasing, and at least one")
        if decoder not in DECODERS or piece < 1:
            raise ValueError(f"no decoder {decoder!r}, or a piece of {piece} frames")
        request: dict[str, Any] = {"do": "open", "path": str(path.absolute()), "timestamps": times, "sha256": sha256}
        request |= {"height": height, "width": width, "frame_rate": frame_rate or FOLDER_RATE}
        seconds = self.limits.deadline(
            seconds=times[-1] - times[0], pixels=len(times) * height * width, size=_weight(path)
        )
        return self._pieces(request, (height, width, 3), decoder, piece, seconds)

    def close(self) -> None:
        """End the child. The next request would start another."""
        self._open = None
        self._pool = Pool()
        if self._child is not None:
            self._child.kill()
            self._child = None

    def __enter__(self) -> DecodeCage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pieces(
        self, request: dict[str, Any], shape: tuple[int, int, int], decoder: str, piece: int, seconds: float
    ) -> Iterator[Frames]:
        count, given, deaths = len(request["timestamps"]), 0, 0
        token: object | None = None
        while given < count:
            if token is not None and token is not self._open:
                raise RuntimeError("another source was asked for before this one was read to its end")
            try:
                if token is None:
                    self._ask(request | {"decoder": decoder, "given": given}, seconds=seconds)
                    token = self._open = object()
                frames = self._read(min(piece, count - given), shape, seconds)
            except ChildDeathError as death:
                # A decoder that dies or hangs says nothing about the file: PyAV is asked before the clip is given up.
                if deaths or (death.late and decoder == "pyav"):
                    raise _failure(death) from None
                deaths, decoder, token = deaths + 1, "pyav", None
            else:
                given += len(frames)
                yield frames

    def _read(self, count: int, shape: tuple[int, int, int], seconds: float) -> Frames:
        pool = self._pool
        place = pool.take(count * math.prod(shape))
        request = {"do": "read", "count": count, "arena": place.arena.number, "start": place.start}
        try:
            answer = self._ask(request | {"live": pool.live()}, seconds=seconds, descriptor=place.arena.fileno())
        except BaseException:
            pool.put_back(place)
            raise
        self.used = answer["decoder"]
        return pool.lend(place, (count, *shape))

    def _ask(self, request: dict[str, Any], *, seconds: float, descriptor: int | None = None) -> dict[str, Any]:
        if request["do"] != "read":
            self._open = None
        child = self._ready(request["do"] == "read")
        child.complaints()
        try:
            answer = child.ask(request | {"limits": asdict(self.limits)}, seconds=seconds, descriptor=descriptor)
        finally:
            self.complaints = child.complaints()
        if "unusable" in answer:
            raise _unusable(request["decoder"], answer["unusable"])
        if "clip" in answer:
            if answer["clip"][0] == "out-of-memory":
                # Who has once failed to get memory is not trusted with the next source.
                self.close()
            raise ClipError(*answer["clip"])
        ok: dict[str, Any] = answer["ok"]
        return ok

    def _ready(self, in_the_middle: bool) -> Child:
        """The child, a new one if need be. One that died while nothing was asked of it has lost what was open."""
        if self._child is None or not self._child.alive():
            self.close()
            if in_the_middle:
                raise ChildDeathError("nobody asking")
            self._child = Child(self._command)
        return self._child


def _failure(death: ChildDeathError) -> ClipError:
    if death.late:
        return ClipError("decoder-timeout", f"no answer within {death.seconds:.0f} seconds")
    return ClipError("decoder-crashed", f"the decode process ended with {death.how}, twice")


def _unusable(decoder: str, why: str) -> InputError:
    fix = "Use --decoder pyav."
    if decoder == "torchcodec":
        fix = "pip install 'frame-encoder[torchcodec]', and FFmpeg's shared libraries; or use --decoder pyav."
    return InputError(what=f"The decoder {decoder} cannot be used here.", where="--decoder", why=why, fix=fix)


def _weight(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 where nobody can tell, for then the child says why."""
    with suppress(OSError):
        if path.is_dir():
            with os.scandir(path) as entries:
                return sum(entry.stat().st_size for entry in entries if entry.is_file())
        return path.stat().st_size
    return 0
