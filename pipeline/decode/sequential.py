"""PyAV, front to back: the decoder that decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from frame.pipeline.decode.container import open_container, out_of_memory, says, video_stream
from frame.pipeline.decode.errors import ClipError
from frame.pipeline.decode.limits import Limits
from frame.pipeline.decode.scan import Scan, disorder
from frame.pipeline.decode.source import Source

FAR_SECONDS = 20.0
"""Pictures that begin so far into a file are reached by a jump; nearer ones by decoding from the first."""

RUN_UP_SECONDS = 2.0
"""A jump lands on a key picture at least so long before the first one wanted: not every key picture stands alone."""
LATE = 16
"""Pictures looked at behind a missing one: no codec keeps more of them back."""


class PyavReader:
    """Hands over the pictures whose ticks are ``wanted``, from the one at ``given`` on.

    Where decoding starts depends on the file and on ``wanted[0]`` alone, never on ``given``: a clip that is taken up
    again in the middle has the same bytes as one that was not interrupted.
    """

    name = "pyav"

    def __init__(self, source: Source, scan: Scan, limits: Limits, wanted: Sequence[int], given: int) -> None:
        self._source, self._scan, self._limits = source, scan, limits
        self._left = list(wanted[given:])
        self._rgb = VideoReformatter()
        self._key = landing(scan, wanted[0])
        self._pictures = self._decode(self._key)

    def read(self, out: NDArray[np.uint8]) -> None:
        """Fill ``out`` uint8 [n, H, W, 3] with the next n pictures. Raises ClipError; ``out`` is then worthless."""
        wanted, self._left = self._left[: len(out)], self._left[len(out) :]
        for slot, tick in enumerate(wanted):
            frame = self._find(tick)
            if frame is None and self._key is not None:
                # The jump did not bring what was promised. From the first picture, nothing can be missed.
                self._key = None
                self._pictures = self._decode(None)
                frame = self._find(tick)
            if frame is None:
                when = tick * float(self._scan.time_base)
                raise ClipError("frames-missing", f"the decoder has no picture for {when:.3f} s")
            self._put(frame, out[slot])

    def _find(self, wanted: int) -> VideoFrame | None:
        """The picture of that tick, or None when the decoder is past it."""
        for tick, frame in self._pictures:
            if tick == wanted:
                return frame
            if tick > wanted:
                # Should it come after all, the file contradicts itself, and the pictures' order is what is refused.
                for _ in islice(self._pictures, LATE):
                    pass
                return None
        return None

    def _put(self, frame: VideoFrame, out: NDArray[np.uint8]) -> None:
        if (frame.width, frame.height) != (self._scan.width, self._scan.height):
            was, now = f"{self._scan.width} x {self._scan.height}", f"{frame.width} x {frame.height}"
            raise ClipError("size-changes", f"from {was} to {now}")
        np.copyto(out, self._scan.orientation.apply(_rgb(self._rgb, frame)))

    def _decode(self, key: tuple[int, int] | None) -> Iterator[tuple[int, VideoFrame]]:
        """Pictures with their ticks as the decoder gives them, from ``key`` (see `Scan.keys`) or from the first."""
        with open_container(self._source, self._limits) as container:
            stream = video_stream(container, self._limits)
            count, last = 0, None
            try:
                for packet in _packets(container, stream, key):
                    for frame in packet.decode():
                        tick = self._tick(frame, count)
                        if last is not None and tick <= last:
                            raise disorder(tick * float(self._scan.time_base))
                        yield tick, frame
                        count, last = count + 1, tick
            except av.error.FFmpegError as error:
                if out_of_memory(error):
                    raise ClipError("out-of-memory", "decoding it takes more memory than the limit") from None
                raise ClipError("decoder-error", f"after {count} pictures: {says(error)}") from None

    def _tick(self, frame: VideoFrame, count: int) -> int:
        if not self._scan.numbered:
            if frame.pts is None:
                raise ClipError("timestamps-missing", f"picture {count} comes without a time")
            return int(frame.pts)
        if count >= len(self._scan.ticks):
            raise ClipError("frames-differ", f"more than the {count} pictures that its packets promise")
        return self._scan.ticks[count]


def landing(scan: Scan, first: int) -> tuple[int, int] | None:
    """The key picture to jump to when ``first`` is the first tick wanted; None to decode from the beginning."""
    base = float(scan.time_base)
    if (first - scan.ticks[0]) * base < FAR_SECONDS:
        return None
    before = [key for key in scan.keys if (first - key[0]) * base >= RUN_UP_SECONDS]
    return max(before, default=None)


def _packets(
    container: InputContainer, stream: VideoStream, key: tuple[int, int] | None
) -> Iterator[Packet[VideoStream]]:
    if key is None:
        yield from container.demux(stream)
        return
    container.seek(key[1], stream=stream)
    packets = container.demux(stream)
    first = next(packets)
    if not first.is_keyframe or first.pts is None or first.pts > key[0]:
        # Too late, or not where decoding can begin. An empty hand makes the reader start again from the first picture.
        return
    yield first
    yield from packets


def _rgb(reformatter: VideoReformatter, frame: VideoFrame) -> NDArray[np.uint8]:
    """The picture as 8-bit RGB, a view [H, W, 3]: the same bytes as PyAV's ``frame.to_ndarray(format="rgb24")``.

    The colour matrix and range are the file's own; where it names none, BT.601 and limited range, as in FFmpeg. High
    dynamic range is not tone-mapped.
    """
    try:
        picture = reformatter.reformat(frame, format="rgb24", threads=1)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if out_of_memory(error):
            raise ClipError("out-of-memory", "its pictures take more memory than the limit") from None
        kind = f"{frame.format.name}, colour matrix {int(frame.colorspace)}"
        raise ClipError("picture-unsupported", f"{kind}: {says(error)}") from None
    plane = picture.planes[0]
    height, width, stride = picture.height, picture.width, plane.line_size
    rows = np.frombuffer(memoryview(plane), np.uint8, height * stride).reshape(height, stride)
    return rows[:, : width * 3].reshape(height, width, 3)
