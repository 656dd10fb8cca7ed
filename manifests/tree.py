"""The reader of data sets with a layout of their own, as their YAML file describes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from frame.manifests.dataset import Dataset, Part
from frame.manifests.rows import IMAGE_SUFFIXES, Draft
from frame.manifests.tables import Entry, Official, read_official
from frame.manifests.walk import Found, expand, list_folder, suffix


def read_tree(dataset: Dataset, root: Path) -> tuple[list[Draft], list[str]]:
    """Every clip of a data set below ``root`` with its official split and label, and notes; empty where nothing fits.

    The first way of the description that has clips is taken. Official lists and tables decide before folder names do;
    a clip that they do not name is for training. Where there is no official split at all, ``split`` stays None.
    """
    found = next(filter(None, (_clips(dataset, way, root) for way in dataset.ways)), [])
    if not found or not has_marker(dataset, root):
        return [], []
    official = read_official(dataset, root)
    labels = {entry.label for entry in official.entries.values() if entry.label}
    known = [official.of(clip) for _, clip in found]
    drafts = [_draft(dataset, part, clip, entry, labels) for (part, clip), entry in zip(found, known, strict=True)]
    drafts = _settle_unlisted(drafts)
    return drafts, _notes(official, known)


def fits(dataset: Dataset, root: Path, *, unfinished: bool = False) -> bool:
    """Whether a folder looks like this data set: its layout matches, and so do the names of its files."""
    if not unfinished and not has_marker(dataset, root):
        return False
    for way in dataset.ways:
        first = next(_walk(dataset, way, root), None)
        if first is not None:
            return re.search(dataset.telltale, first[1].path) is not None
    return False


def has_marker(dataset: Dataset, root: Path) -> bool:
    """Whether the file lies in ``root`` without which the data set is not complete."""
    return not dataset.marker or (root / dataset.marker).is_file()


def _clips(dataset: Dataset, way: tuple[Part, ...], root: Path) -> list[tuple[Part, Found]]:
    found = list(_walk(dataset, way, root))
    if all(part.kind == "frames" for part, _ in found) and not any(_pictures(root, clip.path) for _, clip in found):
        return []  # the folders are there and every one is empty
    return found


def _walk(dataset: Dataset, way: tuple[Part, ...], root: Path) -> Iterator[tuple[Part, Found]]:
    splits = "|".join(re.escape(name) for name in sorted(dataset.split_folders, key=len, reverse=True))
    for part in way:
        yield from ((part, clip) for clip in expand(root, part.path, part.kind, {"split": splits}))


def _pictures(root: Path, folder: str) -> bool:
    return any(suffix(name) in IMAGE_SUFFIXES for name in list_folder(root, folder).files)


def _draft(dataset: Dataset, part: Part, clip: Found, entry: Entry | None, labels: set[str]) -> Draft:
    split, label = entry.split if entry else None, entry.label if entry else None
    if split is None and "split" in clip.names:
        split = dataset.split_folders[clip.names["split"]]
    if label is None:
        label = clip.names.get("label", "")
        # Downloaders write "air_drumming" for the class that the table calls "air drumming".
        spaced = label.replace("_", " ")
        label = spaced if spaced in labels else label
    return Draft(source=clip.path, split=split, label=label, frame_rate=part.frame_rate)


def _settle_unlisted(drafts: list[Draft]) -> list[Draft]:
    if all(draft.split is None for draft in drafts):
        return drafts
    return [draft if draft.split else replace(draft, split="train") for draft in drafts]


def _notes(official: Official, known: list[Entry | None]) -> list[str]:
    if not official.files:
        return []
    hits = sum(entry is not None for entry in known)
    files = official.files[0] + (f" and {len(official.files) - 1} more" if len(official.files) > 1 else "")
    notes = [f"{hits} of {len(known)} clips are named in the official lists ({files})"]
    if hits < len(known):
        notes.append(
            f"{len(known) - hits} of {len(known)} clips are in no list: their folder decides, or they are training"
        )
    return notes
