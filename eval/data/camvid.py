"""CamVid in SegNet's layout: labelled stills of four videos, 11 classes and void.

    DIR/train/*.png   DIR/trainannot/*.png     pictures, and ids 0 to 10 with 11 for void, of the same names
    DIR/test/*.png    DIR/testannot/*.png
    DIR/val/*.png     DIR/valannot/*.png       only where the validation part is asked for; its pictures may be a past

Names are ``0001TP_006690.png``, ``0006R0_f00960.png``, ``0016E5_00630.png``, ``Seq05VD_f00030.png``: the video and the
raw frame number at 30 frames a second. The labels are SegNet's merged classes; scores by PIDNet's (exact colours,
everything else ignored) do not compare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from frame.eval.data.raw_video import RawVideo, find_video
from frame.eval.encoder import Picture
from frame.eval.propagate.images import read_mask, read_picture
from frame.eval.result import data_digest
from frame.eval.segment.labelled_clip import VOID, LabelledClip, Labels, SegmentationData, require_same_size, widest_gap
from frame.manifests.errors import InputError

CLASSES = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
VIDEOS = ("0001TP", "0006R0", "0016E5", "Seq05VD")
RATE = 30  # raw frames a second
_VOID_ID = 11
_SPLITS = ("train", "val", "test")
_NAME = re.compile(r"(.+)_f?(\d+)")

Stills = Mapping[str, Mapping[int, Path]]  # video -> raw frame number -> file


@dataclass(frozen=True, kw_only=True, slots=True)
class _Frames:
    """Where a video's frames come from: stills, or the raw video."""

    numbers: Sequence[int]
    pictures: Callable[[Sequence[int]], Iterator[Picture]]
    gap: int


def open_camvid(
    root: Path, *, split: str = "test", sequences: Sequence[str] = (), videos: Path | None = None,
    first: Mapping[str, int] | None = None,
) -> SegmentationData:  # fmt: skip
    """Train on ``train``, test on ``split`` (``sequences`` of it, empty: all).

    Frames are the stills, those of every part at hand as far as the past is concerned, or, with ``videos``, all frames
    of the raw videos (``first``: the raw number of a video's first frame, where it is not 0). Raises InputError for
    what is missing or misnamed, for masks without pictures and the reverse, and for videos whose frames are not the
    stills.
    """
    if split not in ("val", "test"):
        raise InputError(what="There is no such part.", where=f"--split {split}", fix="use test or val")
    _require_folders(root, split)
    first = first or {}
    stills = {part: _by_video(root / part) for part in _SPLITS if (root / part).is_dir()}
    masks = {part: _by_video(root / f"{part}annot") for part in ("train", split)}
    for part in masks:
        _require_same(root, part, stills[part], masks[part])
    used = {"train": sorted(masks["train"]), split: _wanted(sequences, masks[split], split)}
    everywhere: dict[str, dict[int, Path]] = {}
    _require_first(first, videos, {*used["train"], *used[split]})
    for video in sorted({*used["train"], *used[split]}):
        together = [by_video.get(video, {}) for by_video in stills.values()]
        everywhere[video] = {number: part[number] for part in together for number in sorted(part)}
    facts: dict[str, Any] = {"layout": "camvid-segnet", "split": split}
    if videos is None:
        frames = {video: _stills(paths) for video, paths in everywhere.items()}
        facts["frames"] = "stills"
    else:
        raws = {video: RawVideo(find_video(videos, video), first.get(video)) for video in everywhere}
        frames = {video: _raw(raws[video], paths) for video, paths in everywhere.items()}
        facts |= {"frames": "raw videos", **_raw_facts(videos, raws)}
    clips = {
        part: [_clip(video, frames[video], stills[part][video], masks[part][video]) for video in names]
        for part, names in used.items()
    }
    labels = [path for part, names in used.items() for video in names for path in masks[part][video].values()]
    return SegmentationData(
        root=root, train=clips["train"], test=clips[split], classes=CLASSES,
        source=_stills_sentence(everywhere) if videos is None else _RAW_SENTENCE,
        files=[*(path for paths in everywhere.values() for path in paths.values()), *labels],
        facts=facts,
    )  # fmt: skip


_RAW_SENTENCE = f"Frames are those of the raw videos ({RATE} a second): memory and delta count raw frames."


def _stills_sentence(everywhere: Stills) -> str:
    steps = sorted(_steps(everywhere))
    apart = f"{median(steps):g} raw frames apart (median; {steps[0]} to {steps[-1]})" if steps else "one a video"
    return (
        f"Frames are stills, {apart}, at {RATE} raw frames a second: the memory's past frames are the stills before, "
        "and a delta counts raw frames and needs a still with exactly that number."
    )


def _steps(everywhere: Stills) -> Iterator[int]:
    for paths in everywhere.values():
        numbers = sorted(paths)
        yield from (after - before for before, after in pairwise(numbers))


def _stills(paths: Mapping[int, Path]) -> _Frames:
    def pictures(numbers: Sequence[int]) -> Iterator[Picture]:
        return (read_picture(paths[number]) for number in numbers)

    return _Frames(numbers=sorted(paths), pictures=pictures, gap=widest_gap(sorted(paths)))


def _raw(raw: RawVideo, stills: Mapping[int, Path]) -> _Frames:
    """Raises InputError unless the first, the middle and the last still are the video's frames of their numbers: a
    frame dropped on the way moves all labels after it."""
    numbers = sorted(stills)
    for number in sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]}):  # ascending: decoded once
        raw.check_still(number, read_picture(stills[number]), str(stills[number]))
    return _Frames(numbers=raw.numbers, pictures=raw.pictures, gap=1)


def _raw_facts(folder: Path, raws: Mapping[str, RawVideo]) -> dict[str, Any]:
    """Which raw videos: results by other videos, or by another numbering of their frames, do not compare."""
    return {
        "videos_digest": data_digest(folder, [path for raw in raws.values() for path in raw.files]),
        "first": {video: raw.first for video, raw in raws.items() if raw.first is not None},
    }


def _clip(video: str, frames: _Frames, stills: Mapping[int, Path], masks: Mapping[int, Path]) -> LabelledClip:
    def label(number: int) -> Labels:
        return _read_label(masks[number], stills[number])

    return LabelledClip(
        name=video, numbers=frames.numbers, labelled=sorted(masks), pictures=frames.pictures, label=label,
        gap=frames.gap,
    )  # fmt: skip


def _read_label(mask: Path, still: Path) -> Labels:
    """Ids 0 to 10, void as 255. Raises InputError for other ids and a mask that is not as large as its picture."""
    ids_HW = read_mask(mask)
    require_same_size(ids_HW, mask, still)
    ids_HW = np.where(ids_HW == _VOID_ID, VOID, ids_HW).astype(np.uint8)
    wrong = ids_HW[(ids_HW != VOID) & (ids_HW > _VOID_ID)]
    if wrong.size:
        raise InputError(
            what="A mask has ids that are none of SegNet's CamVid.", where=str(mask), why=f"id {int(wrong[0])}",
            fix="use the 11-class masks (0 to 10, 11 for void), not the original 32 classes",
        )  # fmt: skip
    return ids_HW


def _require_folders(root: Path, split: str) -> None:
    needed = ["train", "trainannot", split, f"{split}annot"]
    missing = [name for name in needed if not (root / name).is_dir()]
    if missing:
        raise InputError(
            what="This is no CamVid in SegNet's layout.", where=str(root),
            why=f"missing: {', '.join(f'{name}/' for name in missing)}",
            fix="give the folder with train, trainannot, test, testannot (val, valannot)",
        )  # fmt: skip


def _require_first(first: Mapping[str, int], videos: Path | None, used: Collection[str]) -> None:
    unknown = sorted(set(first) - set(VIDEOS))
    if unknown or (first and videos is None):
        raise InputError(
            what="There is no such video." if unknown else "A first frame is that of a raw video.",
            where=" ".join(f"--first {name}={first[name]}" for name in unknown or sorted(first)),
            fix=f"the videos are {', '.join(VIDEOS)}" if unknown else "give their folder with --videos",
        )
    idle = sorted(set(first) - set(used))
    if idle:
        raise InputError(
            what="A first frame is given of a video that is not used.",
            where=" ".join(f"--first {name}={first[name]}" for name in idle),
            why=f"used are {', '.join(sorted(used))}", fix="leave it out",
        )  # fmt: skip


def _by_video(folder: Path) -> dict[str, dict[int, Path]]:
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.glob("*.png")):
        name = _NAME.fullmatch(path.stem)
        if name is None or name[1] not in VIDEOS:
            raise InputError(
                what="A file's name is none of CamVid.", where=str(path),
                fix=f"names are VIDEO_NUMBER.png, of the videos {', '.join(VIDEOS)}",
            )  # fmt: skip
        numbers = found.setdefault(name[1], {})
        if int(name[2]) in numbers:
            raise InputError(
                what="Two files have one frame number.", where=str(path), why=f"as {numbers[int(name[2])].name}"
            )
        numbers[int(name[2])] = path
    return found


def _require_same(root: Path, part: str, stills: Stills, masks: Stills) -> None:
    names = [{path.name for numbers in one.values() for path in numbers.values()} for one in (stills, masks)]
    if names[0] == names[1] and names[0]:
        return
    without = [(sorted(names[0] - names[1]), f"{part}annot"), (sorted(names[1] - names[0]), part)]
    why = [f"{folder}/ lacks {len(lacks)}, such as {lacks[0]}" for lacks, folder in without if lacks]
    raise InputError(
        what=f"CamVid's {part} pictures and masks are not of the same names.", where=str(root),
        why="; ".join(why) or "there are none", fix="complete the folders",
    )  # fmt: skip


def _wanted(sequences: Sequence[str], masks: Stills, split: str) -> list[str]:
    unknown = sorted(set(sequences) - set(masks))
    if unknown:
        raise InputError(
            what=f"There is no such video in the {split} part.", where=f"--sequences {','.join(unknown)}",
            fix=f"it has {', '.join(sorted(masks))}",
        )  # fmt: skip
    return sorted(set(sequences) or set(masks))
