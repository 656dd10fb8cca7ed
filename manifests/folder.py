"""The reader of any folder: videos at any depth, and folders of pictures, each of which is a clip."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from frame.manifests.dataset import Dataset
from frame.manifests.rows import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Draft
from frame.manifests.walk import checked, join, list_folder, suffix


def read_folder(dataset: Dataset, root: Path) -> tuple[list[Draft], list[str]]:
    """Every clip below ``root``, and notes on what was assumed or passed over.

    A video file is a clip. A folder with two or more pictures and no video is a clip of frames. The label is the first
    folder of the path. Where the top level is nothing but ``train``, ``val`` and ``test`` folders, they are the splits,
    and the label is the folder below.
    """
    ignored: Counter[str] = Counter()
    found = list(find_clips(root, ignored))
    by_split = _tops_are_splits([path for path, _ in found], dataset.split_folders)
    drafts = [_draft(dataset, path, frames, by_split) for path, frames in found]
    return drafts, _notes(dataset, drafts, ignored, by_split)


def find_clips(root: Path, ignored: Counter[str], *, most_folders: float = math.inf) -> Iterator[tuple[str, bool]]:
    """Paths of the clips below ``root``, with whether each is a folder of frames; counts the rest by suffix."""
    waiting = [""]
    seen = 0
    while waiting and seen < most_folders:
        at = waiting.pop()
        seen += 1
        listing = list_folder(root, at)
        videos = [name for name in listing.files if suffix(name) in VIDEO_SUFFIXES]
        images = [name for name in listing.files if suffix(name) in IMAGE_SUFFIXES]
        for name in videos:
            yield checked(root, join(at, name)), False
        frames = not videos and len(images) >= 2
        if frames:
            yield at or ".", True
        passed_over = set(listing.files).difference(videos, images if frames else ())
        ignored.update(suffix(name) or "no suffix" for name in passed_over)
        waiting.extend(checked(root, join(at, name)) for name in reversed(listing.folders))


def _tops_are_splits(paths: list[str], split_folders: Mapping[str, str]) -> bool:
    tops = {path.split("/")[0] for path in paths if "/" in path} | {"" for path in paths if "/" not in path}
    # A folder that is only called "test" is some class or trial; training data makes it a split.
    return tops <= split_folders.keys() and "train" in {split_folders[top] for top in tops}


def _draft(dataset: Dataset, path: str, frames: bool, by_split: bool) -> Draft:
    above = PurePosixPath(path).parts[:-1]
    split = dataset.split_folders[above[0]] if by_split else None
    label = "".join(above[1:2] if by_split else above[:1])
    return Draft(source=path, split=split, label=label, frame_rate=dataset.frame_rate if frames else None)


def _notes(dataset: Dataset, drafts: list[Draft], ignored: Counter[str], by_split: bool) -> list[str]:
    notes = []
    frames = sum(draft.frame_rate is not None for draft in drafts)
    if frames:
        notes.append(f"{frames} folders of frames carry no clock: {dataset.frame_rate:g} frames a second are assumed")
    if by_split:
        notes.append("the top folders are named as splits and taken as such")
    if ignored:
        kinds = ", ".join(f"{ext} {count}" for ext, count in sorted(ignored.items()))
        notes.append(f"{ignored.total()} files are neither videos nor frames and were passed over ({kinds})")
    return notes
