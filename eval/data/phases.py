"""Penn Action, Pouring and FineGym in the layout of CARL: lists of videos with one label a frame.

The reference keeps its lists as pickles, which can run code when they are opened and are therefore not read here. The
same content is read as JSON, a list of videos:

    [{"name": "0001_baseball_pitch", "video_file": "videos/0001.mp4", "frame_label": [0, 0, 1, 1, …]}, …]

``video_file`` is relative to the folder of the list. ``frame_label`` has one whole number a frame, -1 where there is
none. Other keys are left alone. Penn Action's list stands in a pair with the video numbers of each of its 13
actions: [[{…}, …], [[0, 4, …], …]].
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frame.eval.encoder import Picture
from frame.manifests.errors import InputError
from frame.pipeline.decode import ClipError, DecodeCage

# The actions of Penn Action in the reference's order, with how many phases each has.
PENN_PHASES = {
    "baseball_pitch": 4, "baseball_swing": 3, "bench_press": 2, "bowl": 3, "clean_and_jerk": 6, "golf_swing": 3,
    "jumping_jacks": 4, "pushup": 2, "pullup": 2, "situp": 2, "squat": 4, "tennis_forehand": 3, "tennis_serve": 4,
}  # fmt: skip
POURING_PHASES = 5
SIDE = 224

_CONVERT = (
    'python -c "import json, pickle, sys; p = sys.argv[1]; '
    "json.dump(pickle.load(open(p, 'rb')), open(p[:-4] + '.json', 'w'), default=lambda v: v.tolist())\""
)
_PIECE = 16  # full-size pictures held at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledVideo:
    """One video: its file, and the label of each of its frames (-1: none)."""

    name: str
    file: Path
    labels: NDArray[np.int64]


def read_videos_list(path: Path, *, classes: int) -> list[LabelledVideo]:
    """The videos of Pouring or FineGym. Raises InputError for a list that is missing or not as described above."""
    return _videos(_read(path), path, classes)


def read_penn_list(path: Path) -> dict[str, list[LabelledVideo]]:
    """The videos of each action of Penn Action, in the reference's order. Raises InputError as above."""
    stored = _read(path)
    if not (isinstance(stored, list) and len(stored) == 2 and isinstance(stored[1], list | dict)):
        raise _bad(path, "it is no pair of a list of videos and the numbers of each action's videos")
    videos = _videos(stored[0], path, max(PENN_PHASES.values()))
    groups = list(stored[1].values()) if isinstance(stored[1], dict) else stored[1]
    if len(groups) != len(PENN_PHASES):
        raise _bad(path, f"it has {len(groups)} actions instead of {len(PENN_PHASES)}")
    chosen = {}
    for (action, phases), numbers in zip(PENN_PHASES.items(), groups, strict=True):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < len(videos) for n in numbers):
            raise _bad(path, f"the video numbers of {action} are not all between 0 and {len(videos) - 1}")
        chosen[action] = [videos[number] for number in numbers]
        for video in chosen[action]:
            _check_labels(video.labels, video.name, path, phases)
    return chosen


def frames(video: LabelledVideo, cage: DecodeCage) -> Iterator[Picture]:
    """The labelled frames of a video in order, RGB [224, 224, 3]: the centre, cut out and not resized.

    Raises InputError for a video that cannot be decoded, is smaller than that, or has fewer frames than labels. Frames
    after the last label are left out, as in the reference.
    """
    count = len(video.labels)
    try:
        probe = cage.probe(video.file)
        if len(probe.timestamps) < count:
            raise _unusable(video, f"it has {len(probe.timestamps)} frames, and {count} labels")
        if min(probe.height, probe.width) < SIDE:
            raise _unusable(video, f"it is {probe.width} x {probe.height} pixels, smaller than {SIDE} x {SIDE}")
        top, left = (-(-(side - SIDE) // 2) for side in (probe.height, probe.width))  # halves are rounded up
        pieces = cage.decode_pieces(
            video.file, probe.timestamps, height=probe.height, width=probe.width, decoder="pyav", sha256=probe.sha256,
            piece=_PIECE,
        )  # fmt: skip
        whole = (frame_HW3 for piece in pieces for frame_HW3 in piece)
        for frame_HW3 in islice(whole, count):
            yield frame_HW3[top : top + SIDE, left : left + SIDE].copy()
    except ClipError as error:
        raise _unusable(video, str(error)) from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        pickled = path.with_suffix(".pkl")
        if not pickled.exists():
            raise InputError(
                what="The list of videos is missing.",
                where=str(path),
                why="there is no such file",
                fix=f"give the folder that has {path.name} and the videos; see the documentation for what is in it",
            ) from error
        raise InputError(
            what="The list of videos is there as a pickle only, which is not opened: it could run any code.",
            where=str(pickled),
            fix=f"if you trust it, convert it once: {_CONVERT} {shlex.quote(str(pickled))}",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _bad(path, f"{error}") from error


def _videos(stored: Any, path: Path, classes: int) -> list[LabelledVideo]:
    if not isinstance(stored, list) or not stored:
        raise _bad(path, "it is no list of videos, or an empty one")
    return [_video(record, number, path, classes) for number, record in enumerate(stored)]


def _video(record: Any, number: int, path: Path, classes: int) -> LabelledVideo:
    place = f"video {number}"
    if not isinstance(record, dict) or not all(isinstance(record.get(key), str) for key in ("name", "video_file")):
        raise _bad(path, f"{place} has no name or video_file")
    inside = PurePosixPath(record["video_file"])
    if inside.is_absolute() or ".." in inside.parts or not inside.parts:
        raise _bad(path, f"{place}: video_file {record['video_file']!r} leads out of the folder")
    labels = record.get("frame_label")
    if not isinstance(labels, list) or not labels or not all(_whole(label) for label in labels):
        raise _bad(path, f"{place} ({record['name']}): frame_label is no list of whole numbers, one a frame")
    labels_T = np.array([int(label) for label in labels], dtype=np.int64)
    _check_labels(labels_T, record["name"], path, classes)
    return LabelledVideo(name=record["name"], file=path.parent / inside, labels=labels_T)


def _check_labels(labels_T: NDArray[np.int64], name: str, path: Path, classes: int) -> None:
    if labels_T.max() >= classes or labels_T.min() < -1:
        raise _bad(
            path,
            f"{name} has labels from {labels_T.min()} to {labels_T.max()}, and there are 0 to {classes - 1}, and -1",
        )


def _whole(label: Any) -> bool:
    """A whole number of a sensible size; the reference keeps some labels as floating point."""
    return type(label) in (int, float) and abs(label) < 1 << 31 and label == int(label)


def videos_of(lists: Sequence[Sequence[LabelledVideo]]) -> list[Path]:
    """The files of several lists of videos, each once."""
    return sorted({video.file for videos in lists for video in videos})


def _bad(path: Path, why: str) -> InputError:
    return InputError(
        what="The list of videos cannot be used.", where=str(path), why=why,
        fix='it is JSON: [{"name": …, "video_file": …, "frame_label": [0, 0, 1, …]}, …]',
    )  # fmt: skip


def _unusable(video: LabelledVideo, why: str) -> InputError:
    return InputError(what="A video cannot be used.", where=str(video.file), why=why)
