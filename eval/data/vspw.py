"""VSPW at 480p: every frame labelled at 15 a second, 124 classes.

    DIR/{train,val,test}.txt                one video a line
    DIR/data/<video>/origin/<number>.jpg
    DIR/data/<video>/mask/<number>.png      0 unlabelled, ids 1 to 124, 255 void

Masks are read as 0 -> void, id -> id - 1, 255 -> void. DIR may also be the folder above, with ``VSPW_480p`` in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from frame.eval.encoder import Picture
from frame.eval.propagate.images import read_mask, read_picture
from frame.eval.segment.labelled_clip import VOID, LabelledClip, Labels, SegmentationData, require_same_size, widest_gap
from frame.manifests.errors import InputError

CLASS_COUNT = 124
RATE = 15  # frames a second
TRAIN_EVERY = 7  # of the training frames, as the released baseline's 2 a second (15 // 2)
_VIDEO = re.compile(r"[\w-][\w.-]*")


def open_vspw(
    root: Path, *, split: str = "val", sequences: Sequence[str] = (), train_every: int = TRAIN_EVERY
) -> SegmentationData:
    """Train on every ``train_every``-th labelled frame of ``train``, test on every labelled frame of ``split``.

    A frame without a mask is only a past frame; a mask without a frame is an error. Raises InputError for what is
    missing or misnamed.
    """
    if split not in ("val", "test"):
        raise InputError(what="There is no such part.", where=f"--split {split}", fix="use val")
    if train_every < 1:
        raise InputError(
            what="Every how many frames to train on?", where=f"--train-every {train_every}", fix="1 or more"
        )
    if not (root / "data").is_dir() and (root / "VSPW_480p" / "data").is_dir():
        root = root / "VSPW_480p"
    lists = {part: _read_list(root, part) for part in ("train", split)}
    if unknown := sorted(set(sequences) - set(lists[split])):
        raise InputError(
            what=f"There is no such video in the {split} part.", where=f"--sequences {','.join(unknown)}",
            fix=f"it has {len(lists[split])}, such as {lists[split][0]}",
        )  # fmt: skip
    test = [_open(root, video, 1) for video in lists[split] if not sequences or video in sequences]
    train = [_open(root, video, train_every) for video in lists["train"]]
    for part, clips in (("train", train), (split, test)):
        if not any(clip.labelled for clip in clips):
            raise InputError(
                what=f"None of the {part} videos has masks.", where=str(root / "data"),
                fix="use val: VSPW's test part is not labelled" if part == "test" else "complete the mask folders",
            )  # fmt: skip
    return SegmentationData(
        root=root, train=train, test=test, classes=tuple(str(index) for index in range(CLASS_COUNT)),
        source=f"Frames are VSPW's own, {RATE} a second: memory and delta count them.",
        files=[path for clip in (*train, *test) for path in _files(root, clip)],
        facts={"layout": "vspw-480p", "split": split, "frames": "dense", "train_every": train_every},
    )  # fmt: skip


def _read_list(root: Path, part: str) -> list[str]:
    path = root / f"{part}.txt"
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(
            what="This is no VSPW_480p folder.", where=str(path), why=str(error),
            fix="give the folder with train.txt, val.txt and data/",
        ) from error  # fmt: skip
    for name in names:
        if not _VIDEO.fullmatch(name):
            raise InputError(what="A list names no video.", where=str(path), why=repr(name))
    if not names:
        raise InputError(what="A list names no videos.", where=str(path))
    return names


def _open(root: Path, video: str, every: int) -> LabelledClip:
    folder = root / "data" / video
    missing = [name for name in ("origin", "mask") if not (folder / name).is_dir()]
    if "origin" in missing or not folder.is_dir():
        raise InputError(
            what="A video of the list is missing.", where=str(folder), why=f"no {' and no '.join(missing)} folder",
            fix="complete the dataset, or shorten the list",
        )  # fmt: skip
    frames = _numbered(folder / "origin", ".jpg")
    masks = {} if missing else _numbered(folder / "mask", ".png")
    if lost := sorted(set(masks) - set(frames)):
        raise InputError(
            what="A mask has no frame.", where=str(masks[lost[0]]), why=f"{len(lost)} such in this video",
            fix="complete the origin folder",
        )  # fmt: skip

    def pictures(numbers: Sequence[int]) -> Iterator[Picture]:
        return (read_picture(frames[number]) for number in numbers)

    def label(number: int) -> Labels:
        return _read_label(masks[number], frames[number])

    return LabelledClip(
        name=video, numbers=sorted(frames), labelled=sorted(masks)[::every], pictures=pictures, label=label,
        gap=widest_gap(sorted(frames)),
    )  # fmt: skip


def _files(root: Path, clip: LabelledClip) -> Iterator[Path]:
    """The masks an evaluation reads, and all frames."""
    folder = root / "data" / clip.name
    labelled = set(clip.labelled)
    yield from _numbered(folder / "origin", ".jpg").values()
    if labelled:
        yield from (path for number, path in _numbered(folder / "mask", ".png").items() if number in labelled)


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    paths: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue  # left by file managers and copies
        if path.suffix.lower() != suffix or not (path.stem.isascii() and path.stem.isdigit()):
            raise InputError(
                what="A file's name is none of VSPW.", where=str(path), fix=f"names are numbers with {suffix}"
            )
        if int(path.stem) in paths:
            raise InputError(
                what="Two files have one frame number.", where=str(path), why=f"as {paths[int(path.stem)].name}"
            )
        paths[int(path.stem)] = path
    return paths


def _read_label(mask: Path, frame: Path) -> Labels:
    """Ids 0 to 123, void as 255."""
    ids_HW = read_mask(mask)
    require_same_size(ids_HW, mask, frame)
    wrong = ids_HW[(ids_HW > CLASS_COUNT) & (ids_HW != VOID)]
    if wrong.size:
        raise InputError(what="A mask has ids that are none of VSPW.", where=str(mask), why=f"id {int(wrong[0])}")
    # 0 wraps around to 255; 254 is what 255 became.
    shifted_HW = ids_HW - np.uint8(1)
    return np.where(ids_HW == VOID, np.uint8(VOID), shifted_HW)
