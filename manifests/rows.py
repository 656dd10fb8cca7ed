"""One row of a manifest: a clip, where it lies, and the id it keeps for ever."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from frame.manifests.errors import InputError

SPLITS = ("train", "val", "test")
# mxf is there for the raw sequences of CamVid; everything else is what folders of videos are met with.
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".3gp", ".ts", ".flv", ".mpg", ".mpeg", ".mxf")
)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})

CLIP_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,200}")
_LONGEST_BODY = 120
# How much of the digest an id carries. It grows only while ids still collide: a folder of 80,000 clips named in another
# script leaves nothing but underscores and digest, where 32 bits meet a collision more often than not.
_DIGITS = (0, 8, 16, 64)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSource:
    """A clip of a data set. Raises ``ValueError`` for a value that no manifest may hold."""

    clip: str  # unique id, ^[A-Za-z0-9_][A-Za-z0-9_-]{0,200}$: no dots, it is a WebDataset key
    source: str  # posix path relative to the source root: a video file, a folder of frames, or one still image
    split: str  # "train" | "val" | "test"
    label: str  # class name, or ""
    start: float | None  # segment in seconds, half-open [start, end); None = from the beginning
    end: float | None  # None = to the end
    frame_rate: float | None  # only for folders of frames and stills, which carry no clock

    def __post_init__(self) -> None:
        if not CLIP_PATTERN.fullmatch(self.clip):
            raise ValueError(f"clip id {self.clip!r} does not match {CLIP_PATTERN.pattern}")
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r} is not one of {', '.join(SPLITS)}")
        check_segment(self.start, self.end)
        if self.frame_rate is not None and not (math.isfinite(self.frame_rate) and self.frame_rate > 0):
            raise ValueError(f"frame rate {self.frame_rate} is not a positive number")


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A clip on its way to being a row: no id yet, and no split where the data set names none."""

    source: str
    split: str | None = None
    label: str = ""
    start: float | None = None
    end: float | None = None
    frame_rate: float | None = None
    clip: str | None = None  # an id that its owner chose


def check_segment(start: float | None, end: float | None) -> None:
    """Raise ``ValueError`` unless [start, end) is a segment of non-negative, finite, non-zero length."""
    low, high = start or 0.0, math.inf if end is None else end
    # A million seconds is 11 days: beyond it is a unit mistaken, and an id too long.
    if not (0 <= low < 1e6) or (end is not None and not high < 1e6):
        raise ValueError(f"segment {start}..{end} s is outside 0..1,000,000 s")
    if not low < high:
        raise ValueError(f"segment {start}..{end} s is empty: end must be greater than start")


def clip_id(source: str, start: float | None = None, end: float | None = None) -> str:
    """The id of a clip: its path without the suffix, ``/`` as ``__``, and the segment in milliseconds.

    Where more than that had to be changed (spaces, dots, other scripts, a leading ``-``, a great length) a digest of
    the full path and segment follows, so that clips that differ only there keep different ids.

    >>> clip_id("train/air/abc_000001_000011.mp4"), clip_id("walk.avi", 1.5, 2.0)
    ('train__air__abc_000001_000011', 'walk__1500_2000')
    """
    return _clip_id(source, start, end, digits=0)


def assign_ids(drafts: Sequence[Draft]) -> list[str]:
    """Ids for a whole manifest, unique in it and independent of its order.

    Clips whose short ids collide (``a.mp4`` beside ``a.mkv``) all get the digest; ids chosen by their owner stay.
    Raises ``InputError`` when two drafts are the same clip, or share a chosen id.
    """
    levels = [0] * len(drafts)
    while True:
        ids = [_draft_id(draft, _DIGITS[level]) for draft, level in zip(drafts, levels, strict=True)]
        counts = Counter(ids)
        clashing = [k for k, name in enumerate(ids) if counts[name] > 1]
        movable = [k for k in clashing if drafts[k].clip is None and levels[k] + 1 < len(_DIGITS)]
        if not movable:
            _refuse_twins(drafts, ids, clashing)
            return ids
        for k in movable:
            levels[k] += 1


def _draft_id(draft: Draft, digits: int) -> str:
    return draft.clip if draft.clip is not None else _clip_id(draft.source, draft.start, draft.end, digits)


def _clip_id(source: str, start: float | None, end: float | None, digits: int) -> str:
    # The root itself is a clip where --source is a single folder of frames.
    body = "frames" if source == "." else _without_suffix(source).replace("/", "__")
    kept = re.sub(r"[^A-Za-z0-9_-]", "_", body)[:_LONGEST_BODY]
    kept = re.sub(r"^-", "_", kept)
    segment = _segment(start, end)
    digits = max(digits, 8) if kept != body else digits
    return kept + segment + (f"-{_digest(source, start, end)[:digits]}" if digits else "")


def _without_suffix(source: str) -> str:
    stem, dot, ext = source.rpartition(".")
    # Only a known suffix is one: the dot in a folder of frames called "take.2" is part of its name.
    return stem if dot + ext.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES and stem else source


def _segment(start: float | None, end: float | None) -> str:
    if start is None and end is None:
        return ""
    return f"__{round((start or 0.0) * 1000)}_{'end' if end is None else round(end * 1000)}"


def _digest(source: str, start: float | None, end: float | None) -> str:
    return hashlib.sha256(f"{source}\0{start}\0{end}".encode("utf-8", "surrogateescape")).hexdigest()


def _refuse_twins(drafts: Sequence[Draft], ids: Sequence[str], clashing: Sequence[int]) -> None:
    if not clashing:
        return
    first = clashing[0]
    second = next(k for k in clashing[1:] if ids[k] == ids[first])
    raise InputError(
        what=f"two clips have the id {ids[first]!r}",
        where=f"{drafts[first].source} and {drafts[second].source}",
        why="an id names one clip of a cache, and these are the same clip or were given the same id",
        fix="remove one of the two, or give them different ids",
    )
