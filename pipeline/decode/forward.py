"""decord and torchcodec, read forwards, and believed only where their pictures are the demuxer's."""

from __future__ import annotations

import fcntl
import struct
import termios
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from frame.pipeline.decode.scan import Scan


class RefusedError(Exception):
    """This decoder is not to be trusted with this file; PyAV has to decide. The message says why."""


class Reader(Protocol):
    """What hands over the planned pictures of one open source, in order."""

    name: str

    def read(self, out: NDArray[np.uint8]) -> None:
        """Fill ``out`` uint8 [n, H, W, 3] with the next n pictures; raises ClipError, or `RefusedError`."""


def forward_reader(decoder: str, path: str, scan: Scan, wanted: Sequence[int]) -> Reader:
    """A reader of the pictures whose ticks are ``wanted``. Raises `RefusedError`."""
    if scan.doubt:
        raise RefusedError(scan.doubt)
    numbers = {tick: number for number, tick in enumerate(scan.ticks)}
    make: Callable[[str, Scan, list[int]], Reader] = DecordReader if decoder == "decord" else TorchcodecReader
    return make(path, scan, [numbers[tick] for tick in wanted])


class DecordReader:
    """decord, every picture from the first one on: never by its jumps, and never skipping, for both give wrong ones.

    decord hides damage: it hands the last good picture over again. It is told to give up instead, and whatever its
    FFmpeg writes on standard error counts as a reason to leave the file to PyAV.
    """

    name = "decord"

    def __init__(self, path: str, scan: Scan, numbers: list[int]) -> None:
        import decord

        self._muttered = _unread(2)
        # Below one picture in a billion pictures repeated: none.
        self._video: Any = _trying(lambda: decord.VideoReader(path, num_threads=1, fault_tol=1e-9))
        found = len(self._video)
        if found != len(scan.ticks):
            raise RefusedError(f"{found} pictures where the demuxer has {len(scan.ticks)}")
        _agree(self._video.get_frame_timestamp(range(found))[:, 0], scan)
        if numbers != list(range(len(numbers))):
            # Reading what nobody wants, to be sure of the rest, would cost more than PyAV does.
            raise RefusedError("pictures are left out")

    def read(self, out: NDArray[np.uint8]) -> None:
        """See `Reader.read`."""
        for slot in range(len(out)):
            picture = _trying(self._video.next)
            if picture.shape != out.shape[1:]:
                raise RefusedError("pictures of another shape")
            # Straight into the shared memory: `asnumpy` would make a copy to copy from.
            exported: Any = _Exported(picture.to_dlpack())
            out[slot] = np.from_dlpack(exported)
        if _unread(2) != self._muttered:
            raise RefusedError("its FFmpeg complains")


class _Exported:
    """A DLPack capsule in the wrapping that NumPy wants it in."""

    def __init__(self, capsule: object) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: object) -> object:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


class TorchcodecReader:
    """torchcodec in its exact mode, which gives each picture's time along."""

    name = "torchcodec"

    def __init__(self, path: str, scan: Scan, numbers: list[int]) -> None:
        from torchcodec.decoders import VideoDecoder

        self._video: Any = _trying(
            lambda: VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        )
        if len(self._video) != len(scan.ticks):
            raise RefusedError(f"{len(self._video)} pictures where the demuxer has {len(scan.ticks)}")
        self._numbers, self._scan, self._seconds = numbers, scan, np.array(scan.seconds())

    def read(self, out: NDArray[np.uint8]) -> None:
        """See `Reader.read`."""
        numbers, self._numbers = self._numbers[: len(out)], self._numbers[len(out) :]
        batch = _trying(lambda: self._video.get_frames_at(indices=numbers))
        if tuple(batch.data.shape) != out.shape:
            raise RefusedError("pictures of another shape")
        away = np.abs(batch.pts_seconds.numpy() - self._seconds[numbers]).max()
        if away > _tolerance(self._seconds):
            raise RefusedError(f"times {away:.3f} s away from the demuxer's")
        out[:] = batch.data.numpy()


def load(decoder: str) -> None:
    """Import the library of ``decoder``; raises whatever that raises."""
    if decoder == "decord":
        import decord  # noqa: F401
    elif decoder == "torchcodec":
        import torch
        import torchcodec.decoders  # noqa: F401

        torch.set_num_threads(1)


def _trying(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        raise RefusedError(f"it raises {type(error).__name__}") from None


def _agree(found: NDArray[np.float32], scan: Scan) -> None:
    """Raise `RefusedError` unless decord's times are the demuxer's. It counts from the first one, in 32-bit floats."""
    seconds = np.array(scan.seconds())
    away = np.abs((found.astype(np.float64) - found[0]) - (seconds - seconds[0])).max()
    if not away <= _tolerance(seconds):
        raise RefusedError(f"times {away:.3f} s away from the demuxer's")


def _tolerance(seconds: NDArray[np.float64]) -> float:
    """Half of half the shortest time between two pictures: no picture can be taken for its neighbour."""
    return float(np.diff(seconds).min()) / 4 if len(seconds) > 1 else 1e-3


def _unread(pipe: int) -> int:
    """Bytes waiting in a pipe; 0 for anything else, such as a terminal in a debugging session."""
    try:
        count: int = struct.unpack("=i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]
    except OSError:
        return 0
    return count
