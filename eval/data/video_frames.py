"""A few frames of each of many videos, cropped to squares: decoded in processes that can be killed, in order.

S side in pixels.
"""

from __future__ import annotations

import math
import queue
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from frame.eval.encoder import Picture
from frame.pipeline.decode import ClipError, DecodeCage
from frame.pipeline.teachers.geometry import MAX_ASPECT, stored_frames

Choose = Callable[[int], Sequence[int]]
# Pictures are left out between those wanted, which PyAV alone is trusted with: see ``frame.pipeline.decode.forward``.
_DECODER = "pyav"
_PIECE = 8  # full-size pictures held at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFrames:
    """Chosen frames of one video: RGB [S, S, 3] by number. ``count`` is how many frames the video has."""

    count: int
    pictures: Mapping[int, Picture]


def segment_centres(count: int, wanted: int) -> list[int]:
    """The centre of each of ``wanted`` equal segments of ``count`` frames: floor(i n / k + (n / k - 1) / 2), in range.

    ActionCLIP's test-time sampling. A video shorter than ``wanted`` has frames taken more than once.
    """
    segment = count / wanted
    centres = (math.floor(number * segment + (segment - 1) / 2) for number in range(wanted))
    return [min(max(centre, 0), count - 1) for centre in centres]


def read_videos(
    paths: Sequence[Path], choose: Choose, *, side: int, processes: int
) -> Iterator[VideoFrames | ClipError]:
    """For each path, in order, the frames whose numbers ``choose(count)`` gives, or why there are none.

    The short side is brought to ``side`` by bicubic, antialiased resizing, the centre cut out, and the result rounded
    to whole grey levels. ``processes`` videos are decoded at a time, and a few more held ready.
    """
    cages: queue.SimpleQueue[DecodeCage] = queue.SimpleQueue()
    for _ in range(processes):
        cages.put(DecodeCage())

    def read(path: Path) -> VideoFrames | ClipError:
        cage = cages.get()
        try:
            return _read(cage, path, choose, side)
        except ClipError as error:
            return error
        finally:
            cages.put(cage)

    with ThreadPoolExecutor(max_workers=processes) as pool:
        waiting: deque[Future[VideoFrames | ClipError]] = deque()
        try:
            for path in paths:
                waiting.append(pool.submit(read, path))
                if len(waiting) > 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            for _ in range(processes):
                cages.get().close()


def _read(cage: DecodeCage, path: Path, choose: Choose, side: int) -> VideoFrames:
    probe = cage.probe(path)
    if max(probe.height, probe.width) > MAX_ASPECT * min(probe.height, probe.width):
        raise ClipError("too-narrow", f"{probe.width} x {probe.height} pixels")
    count = len(probe.timestamps)
    numbers = sorted(set(choose(count)))
    pieces = cage.decode_pieces(
        path, [probe.timestamps[number] for number in numbers], height=probe.height, width=probe.width,
        decoder=_DECODER, sha256=probe.sha256, piece=_PIECE,
    )  # fmt: skip
    squares = [square.numpy() for piece in pieces for square in stored_frames(piece, side, "crop")]
    return VideoFrames(count=count, pictures=dict(zip(numbers, squares, strict=True)))
