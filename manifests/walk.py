"""Looking into folders: sorted, without hidden files, and never out of the root through a link."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from frame.manifests.errors import InputError
from frame.manifests.rows import IMAGE_SUFFIXES, VIDEO_SUFFIXES

SUFFIXES = {"videos": VIDEO_SUFFIXES, "stills": IMAGE_SUFFIXES}


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in a folder, in byte order. Hidden ones and anything but files and folders are left out."""

    folders: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A path below the root (posix, relative) that a pattern matched, and what its placeholders matched."""

    path: str
    names: Mapping[str, str]


def list_folder(root: Path, relative: str) -> Listing:
    """What lies in a folder. Raises ``InputError`` when it cannot be read."""
    folders, files = [], []
    try:
        with os.scandir(root / relative) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    folders.append(entry.name)
                elif entry.is_symlink() or entry.is_file():  # a broken link is left to `checked`, which names it
                    files.append(entry.name)
    except OSError as error:
        raise InputError(
            what="a folder cannot be read",
            where=str(root / relative),
            why=error.strerror or str(error),
            fix="mend its permissions or the disk, or choose another --source",
        ) from error
    # Code point order is UTF-8 byte order.
    return Listing(tuple(sorted(folders)), tuple(sorted(files)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def join(folder: str, name: str) -> str:
    """A posix path below the root; "" is the root itself."""
    return f"{folder}/{name}" if folder else name


def suffix(name: str) -> str:
    """The suffix in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (a Path for every file of Kinetics costs seconds)


def checked(root: Path, relative: str) -> str:
    """The path itself, once it is known to be usable as a source.

    Raises ``InputError`` for a link that is broken, leaves the root or leads back to a folder above it, and for a name
    that is not UTF-8, because the index of a cache could not hold it.
    """
    try:
        relative.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            what="a file name is not valid UTF-8",
            where=ascii(relative),
            why="the index of a cache stores names as text, and this one is none",
            fix="rename it",
        ) from error
    path = root / relative
    if path.is_symlink():
        _check_link(root, relative, path)
    return relative


def _check_link(root: Path, relative: str, path: Path) -> None:
    target, why = "", ""
    try:
        target = os.path.realpath(path, strict=True)
    except OSError as error:
        why = f"it cannot be followed: {error.strerror}"
    home = os.path.realpath(root)
    if target and not Path(target).is_relative_to(home):
        why = f"it leads out of the source folder, to {target}"
    elif target and target in _real_ancestors(root, relative):
        why = f"it leads back to a folder that holds it, {target}"
    if why:
        raise InputError(
            what="a link cannot be a source",
            where=str(path),
            why=why,
            fix="put the file itself in its place (a hard link will do), or give the folder it leads to as --source",
        )


def _real_ancestors(root: Path, relative: str) -> set[str]:
    pieces = relative.split("/")
    return {os.path.realpath(root.joinpath(*pieces[:k])) for k in range(len(pieces))}


def expand(root: Path, pattern: str, kind: str, placeholders: Mapping[str, str]) -> Iterator[Found]:
    """Every path that a pattern of a data set matches, in byte order of each level.

    ``kind`` is "videos" or "stills" (files with such a suffix, matched without it), "frames" (folders), or "text"
    (files, matched whole). ``placeholders`` gives a regular expression for a name in braces; others match one whole
    component.
    """
    parts = [part if part == "**" else _component(part, placeholders) for part in pattern.split("/")]
    yield from _expand(root, parts, kind, "", {})


def _component(part: str, placeholders: Mapping[str, str]) -> re.Pattern[str]:
    pieces = re.split(r"(\{\w+\}|\*)", part)
    return re.compile("".join(_piece(piece, placeholders) for piece in pieces), re.DOTALL)


def _piece(piece: str, placeholders: Mapping[str, str]) -> str:
    if piece == "*":
        return "[^/]*"
    if not piece.startswith("{"):
        return re.escape(piece)
    name = piece[1:-1]
    return f"(?P<{name}>{placeholders.get(name, '[^/]+')})"


def _expand(
    root: Path, parts: list[re.Pattern[str] | str], kind: str, at: str, names: dict[str, str]
) -> Iterator[Found]:
    head, *rest = parts
    listing = list_folder(root, at)
    if isinstance(head, str):  # "**": here, and at every depth below
        yield from _expand(root, rest, kind, at, names)
        for name in listing.folders:
            yield from _expand(root, parts, kind, checked(root, join(at, name)), names)
        return
    last = not rest
    for name in listing.files if last and kind != "frames" else listing.folders:
        match = head.fullmatch(_matched_part(name, kind) if last else name)
        if match is None or (last and not _suffix_fits(name, kind)):
            continue
        path, found = checked(root, join(at, name)), {**names, **match.groupdict()}
        if last:
            yield Found(path, found)
        else:
            yield from _expand(root, rest, kind, path, found)


def _matched_part(name: str, kind: str) -> str:
    return name[: -len(suffix(name))] if kind in SUFFIXES and suffix(name) else name


def _suffix_fits(name: str, kind: str) -> bool:
    return kind not in SUFFIXES or suffix(name) in SUFFIXES[kind]
