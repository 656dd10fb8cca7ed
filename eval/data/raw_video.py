"""A raw video, or a folder of its frames, read by frame numbers: the true past of a labelled still.

H W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from frame.eval.encoder import Picture
from frame.eval.propagate.images import read_picture
from frame.manifests.errors import InputError

_VIDEOS = (".avi", ".mxf", ".mp4", ".mov", ".mkv", ".m4v", ".mpg")
_FRAMES = (".png", ".jpg", ".jpeg")
_NEAR = 5  # frames on either side among which a still must match its own number best
_MOST_DIFFERENT = 12.0  # grey levels between a still and its own frame, on thumbnails: compression and scaling only
_TIE = 0.5  # grey levels: where the camera stands still, neighbours look alike
_THUMBNAIL = (64, 48)


class RawVideo:
    """Frames of one video by their raw numbers: of a file its frames counted from ``first``, of a folder the numbers in
    the names. ``first`` None is 0; a folder has none, and raises InputError for one that is given.
    """

    def __init__(self, path: Path, first: int | None = None) -> None:
        if path.is_dir() and first is not None:
            raise InputError(
                what="The frames of a folder are numbered by their names.", where=f"--first {path.name}={first}",
                why=f"{path} is a folder", fix="leave the option out, or name the frames by their raw numbers",
            )  # fmt: skip
        self.path = path
        self._named = _numbered(path) if path.is_dir() else {}
        self._first = first or 0
        self.numbers: Sequence[int] = (
            sorted(self._named) if self._named else range(self._first, self._first + _count_frames(path))
        )
        self._frames: Iterator[Picture] = iter(())
        self._next = -1

    @property
    def first(self) -> int | None:
        """The raw number of a file's first frame; None of a folder."""
        return None if self._named else self._first

    @property
    def files(self) -> list[Path]:
        """What the frames are read from."""
        return list(self._named.values()) or [self.path]

    def pictures(self, numbers: Sequence[int]) -> Iterator[Picture]:
        """RGB frames of ascending numbers. A file is read from its beginning where it has to go back: never sought,
        since a wrong seek is a wrong frame. Raises InputError for a frame that is not there.
        """
        for number in numbers:
            if self._named:
                yield read_picture(self._named[number])
            else:
                yield self._forward_to(number)

    def check_still(self, number: int, still_HW3: Picture, where: str) -> None:
        """Raises InputError unless the frame of this number is the still, and its neighbours are less so."""
        near = [one for one in self.numbers_near(number, _NEAR) if number in self.numbers]
        if not near:
            raise InputError(
                what="The video does not have a labelled frame.",
                where=f"{self.path}, frame {number}",
                why=f"it holds frames {self.numbers[0]} to {self.numbers[-1]}" if self.numbers else "it is empty",
                fix=f"give the whole video, or {self._hint()}",
            )
        wanted = _thumbnail(still_HW3)
        differences = {
            one: float(np.abs(_thumbnail(picture) - wanted).mean())
            for one, picture in zip(near, self.pictures(near), strict=True)
        }
        best = min(differences, key=differences.__getitem__)
        if differences[number] > _MOST_DIFFERENT or differences[number] > differences[best] + _TIE:
            raise InputError(
                what="The frames of a video are not those that its labels are numbered by.",
                where=f"{self.path}, frame {number}, against {where}",
                why=f"{differences[number]:.1f} grey levels apart; of frames {near[0]} to {near[-1]} number {best} is "
                f"nearest ({differences[best]:.1f})",
                fix=f"give the video without a frame dropped, or {self._hint()}",
            )

    def _hint(self) -> str:
        if self._named:
            return "name the frames of the folder by their raw numbers"
        return "with --first NAME=N the raw number of its first frame"

    def numbers_near(self, number: int, reach: int) -> list[int]:
        """The numbers at hand at most ``reach`` away."""
        held = set(self.numbers) if self._named else self.numbers
        return [one for one in range(number - reach, number + reach + 1) if one in held]

    def _forward_to(self, number: int) -> Picture:
        if not self._first <= self._next <= number:
            self._frames, self._next = _decoded(self.path), self._first
        picture: Picture | None = None
        while self._next <= number:
            picture = next(self._frames, None)
            if picture is None:
                raise InputError(
                    what="The video ends before a frame that is needed.", where=f"{self.path}, frame {number}",
                    why=f"its last readable frame is {self._next - 1}", fix="give the whole video",
                )  # fmt: skip
            self._next += 1
        assert picture is not None
        return picture


def find_video(folder: Path, name: str) -> Path:
    """``FOLDER/NAME`` with the frames, or a video file ``FOLDER/NAME.*``. Raises InputError where there is not one."""
    if not folder.is_dir():
        raise InputError(what="There is no such folder of raw videos.", where=f"--videos {folder}")
    found = [
        path
        for path in sorted(folder.iterdir())
        if (path.is_dir() and path.name == name)
        or (path.is_file() and path.stem == name and path.suffix.lower() in _VIDEOS)
    ]
    if len(found) != 1:
        raise InputError(
            what=f"The raw video {name} is {'there twice' if found else 'missing'}.",
            where=str(folder),
            why=", ".join(path.name for path in found),
            fix=f"put it there as {name}.avi (or .mxf, .mp4, …) or as a folder {name} of numbered frames",
        )
    return found[0]


def _numbered(folder: Path) -> dict[int, Path]:
    """Frames by the last number in their names."""
    paths: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        number = re.search(r"(\d+)$", path.stem)
        if path.suffix.lower() not in _FRAMES or number is None:
            continue
        if int(number[1]) in paths:
            raise InputError(
                what="Two frames of a video have one number.", where=str(folder),
                why=f"{paths[int(number[1])].name} and {path.name}",
            )  # fmt: skip
        paths[int(number[1])] = path
    if not paths:
        raise InputError(what="The folder holds no numbered frames.", where=str(folder), fix="name them 000001.png, …")
    return paths


def _count_frames(path: Path) -> int:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(what="The file holds no video.", where=str(path))
            return sum(1 for packet in container.demux(video=0) if packet.size)
    except (av.error.FFmpegError, OSError) as error:
        raise _unreadable(path, error) from error


def _decoded(path: Path) -> Iterator[Picture]:
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    except (av.error.FFmpegError, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(what="The video cannot be read.", where=str(path), why=str(error))


def _thumbnail(picture_HW3: Picture) -> NDArray[np.float32]:
    small = cv2.resize(picture_HW3, _THUMBNAIL, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.float32)
