"""DAVIS 2017 and 2016: which frames of which sequences, and their masks.

``JPEGImages/480p/<sequence>/%05d.jpg``, ``Annotations/480p/<sequence>/%05d.png`` and, where there is a list,
``ImageSets/2017/val.txt`` (names) or ``ImageSets/2016/val.txt`` (names or pairs of paths). The masks of 2017 are
palette PNGs whose indices are objects, 255 void; those of 2016 have one object, in 255.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from frame.eval.data.lists import inside, read_lines, shown
from frame.eval.propagate.images import Ids, read_mask
from frame.eval.result import data_digest
from frame.manifests.errors import InputError

Year = Literal["2017", "2016"]
VOID = 255
_PICTURES, _MASKS = "JPEGImages/480p", "Annotations/480p"
_LISTS: dict[Year, tuple[str, ...]] = {
    "2017": ("ImageSets/2017/val.txt",),
    "2016": ("ImageSets/2016/val.txt", "ImageSets/480p/val.txt"),
}
_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, kw_only=True, slots=True)
class DavisSequence:
    """The frames of one sequence in order, each with its mask or None. The first frame has one.

    ``merged``: all objects of a mask are one, as 2016 has it. ``whole``: a mask is 0 and 255 only, and 255 no void.
    """

    name: str
    pictures: tuple[Path, ...]
    masks: tuple[Path | None, ...]
    merged: bool = False
    whole: bool = False

    @property
    def scored(self) -> tuple[int, ...]:
        """The frames that count: those with a mask, but not the first and the last of them."""
        return tuple(number for number, mask in enumerate(self.masks) if mask)[1:-1]

    def first(self) -> Ids:
        """The ids of the first frame."""
        path = self.masks[0]
        if path is None:
            raise ValueError("the first frame of a sequence has a mask")
        return self._ids(path)

    def truth(self, number: int) -> Ids | None:
        """The ids of a frame, 255 (void) among them in 2017. None without a mask."""
        path = self.masks[number]
        return self._ids(path) if path else None

    def _ids(self, path: Path) -> Ids:
        ids_HW = read_mask(path)
        if self.whole:
            return (ids_HW > 0).astype(np.uint8)
        return np.where(ids_HW == VOID, VOID, ids_HW > 0).astype(np.uint8) if self.merged else ids_HW


@dataclass(frozen=True, kw_only=True, slots=True)
class DavisData:
    """The sequences to evaluate, and where their names come from (``source``)."""

    root: Path
    year: Year
    source: str
    lists: tuple[Path, ...]
    sequences: tuple[DavisSequence, ...]

    def to_json(self) -> dict[str, Any]:
        """What a result says of its data."""
        files = [path for one in self.sequences for path in (*one.pictures, *one.masks) if path]
        return {
            "root": str(self.root), "digest": data_digest(self.root, [*files, *self.lists]), "year": self.year,
            "sequences": len(self.sequences), "frames": sum(len(one.pictures) for one in self.sequences),
        }  # fmt: skip


def load_davis(root: Path, only: Sequence[str] = (), *, year: Literal["auto", "2017", "2016"] = "auto") -> DavisData:
    """The validation sequences: ``only`` these, or those of the year's list, or without one all that have masks.

    ``auto`` is 2016 if the first masks are all of 0 and 255, else 2017. 2016 takes all objects as one. Raises
    InputError for folders, sequences, pictures and first masks that are missing.
    """
    missing = [name for name in (_PICTURES, _MASKS) if not (root / name).is_dir()]
    if missing:
        raise InputError(
            what="This is no folder of DAVIS.", where=str(root), why=f"there is no {', no '.join(missing)}",
            fix="--data is the folder that holds JPEGImages and Annotations (480p)",
        )  # fmt: skip
    wanted: tuple[Year, ...] = ("2017", "2016") if year == "auto" else (year,)
    names, found = _names(root, only, wanted)
    frames = {name: _frames(root, name) for name in names}
    whole = _are_whole(masks[0] for _, masks in frames.values())
    if year == "2017" and whole:
        raise InputError(
            what="These are the masks of DAVIS-2016: 0 and 255.", where=str(root / _MASKS), why="to 2017, 255 is void",
            fix="leave --year out",
        )  # fmt: skip
    if year == "auto":
        year = "2016" if whole else "2017"
        # The list of the other year may stand beside this one's.
        names, found = _names(root, only, (year, *wanted))
        frames = {name: frames.get(name) or _frames(root, name) for name in names}
    sequences = tuple(
        DavisSequence(name=name, pictures=pictures, masks=masks, merged=year == "2016", whole=whole and year == "2016")
        for name, (pictures, masks) in frames.items()
    )
    source = "those asked for" if only else f"{found}" if found else f"all that are in {_MASKS}: there is no list"
    lists = (root / found,) if found else ()
    return DavisData(root=root, year=year, source=source, lists=lists, sequences=sequences)


def _names(root: Path, only: Sequence[str], years: Sequence[Year]) -> tuple[list[str], str]:
    """The names, and the list that they come from ("" for none)."""
    if only:
        return [_plain(name, "--sequences") for name in dict.fromkeys(only)], ""
    for path in (path for year in years for path in _LISTS[year] if (root / path).is_file()):
        names = [_listed(line, f"{root / path}:{number}") for number, line in read_lines(root / path)]
        if not names:
            raise InputError(what="The list of sequences is empty.", where=str(root / path))
        return list(dict.fromkeys(names)), path
    names = sorted(path.name for path in (root / _MASKS).iterdir() if path.is_dir() and any(path.glob("*.png")))
    if not names:
        raise InputError(what="There are no masks.", where=str(root / _MASKS), fix="unpack the annotations")
    return names, ""


def _listed(line: str, where: str) -> str:
    """The name in a line of a list: the line itself, or the folder of the picture that it begins with."""
    first = line.split()[0]
    return _plain(PurePosixPath(first).parent.name if "/" in first else first, where)


def _plain(name: str, where: str) -> str:
    plain = inside(name, where=where)
    if "/" in plain:
        raise InputError(what=f"{name!r} is no sequence of DAVIS.", where=where, why="a name is one folder's")
    return plain


def _frames(root: Path, name: str) -> tuple[tuple[Path, ...], tuple[Path | None, ...]]:
    pictures = _by_stem(root / _PICTURES / name, _SUFFIXES, "pictures")
    masks = _by_stem(root / _MASKS / name, (".png",), "masks")
    alone = sorted(masks.keys() - pictures.keys())
    if alone:
        raise InputError(
            what="Pictures of annotated frames are missing.", where=str(root / _PICTURES / name), why=shown(alone),
            fix="unpack all of JPEGImages",
        )  # fmt: skip
    stems = sorted(pictures, key=_number)
    if stems[0] not in masks:
        raise InputError(
            what="The first frame of a sequence has no mask, so there is nothing to propagate.",
            where=str(root / _MASKS / name / f"{stems[0]}.png"),
            fix="unpack the annotations, or leave the sequence out with --sequences",
        )
    return tuple(pictures[stem] for stem in stems), tuple(masks.get(stem) for stem in stems)


def _by_stem(folder: Path, suffixes: Iterable[str], what: str) -> dict[str, Path]:
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(
            what=f"A sequence has no {what}.", where=str(folder), why=error.strerror or str(error),
            fix="unpack the whole dataset, or name the sequences that are there with --sequences",
        ) from error  # fmt: skip
    found = {path.stem: path for path in paths if path.suffix.lower() in suffixes}
    if not found:
        raise InputError(what=f"A sequence has no {what}.", where=str(folder), why="the folder has none")
    return found


def _are_whole(paths: Iterable[Path | None]) -> bool:
    """Whether these masks have 255 and nothing else but 0."""
    ids = {value for path in paths if path for value in np.unique(read_mask(path)).tolist()}
    return VOID in ids and ids <= {0, VOID}


def _number(stem: str) -> tuple[int, str]:
    """Frames in the order of their numbers; names that are none come last."""
    return (int(stem), stem) if stem.isdecimal() else (1 << 62, stem)
