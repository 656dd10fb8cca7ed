"""What a data set is, as written in ``datasets/*.yaml``: licence, splits, layout, and how to find its clips."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from frame.manifests.errors import InputError

_FOLDER = Path(__file__).parent / "datasets"

Kind = Literal["videos", "frames", "stills"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Where clips of one kind lie.

    ``path`` is a pattern of path components: ``{clip}``, ``{label}`` and ``{split}`` name what they match, ``*``
    matches within a component, ``**`` any depth. For ``frames`` it names folders, for ``videos`` and ``stills`` files
    without their suffix.
    """

    kind: Kind
    path: str
    frame_rate: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitLists:
    """Text files that name the clips of a split, one a line.

    Either one file a split (``files``), or files that mark every clip (``marked``, ``marks``). ``line`` is a regular
    expression for one line, with the groups ``clip`` and, for marked files, ``mark``.
    """

    line: str
    files: Mapping[str, tuple[str, ...]]  # split -> paths
    marked: tuple[str, ...] = ()
    marks: Mapping[str, str]  # mark -> split


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A CSV or JSON file with a record a clip: its key, its label, its split."""

    files: tuple[str, ...]
    records: str = ""  # in a JSON file: the name of the list
    keys: tuple[str, ...]  # formats over the record's fields, each a name that a clip's file may have
    label: str = ""  # field
    splits: tuple[str, ...] = ()  # fields; a clip that any of them holds out is held out
    parent: str = ""  # field with the key of another record: this record only points there


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A data set: what people need to know of it, and what the loader needs to find its clips."""

    name: str
    title: str
    licence: str
    homepage: str
    citation: str
    kind: str  # videos | frames | stills | any mixture, in words
    splits: str  # which splits there are and where they come from, in words
    layout: str  # the tree on disk, printed when a folder does not fit
    reader: Literal["tree", "folder", "csv"]
    ways: tuple[tuple[Part, ...], ...] = ()  # ways it is met on disk; the first that has clips is taken
    split_folders: Mapping[str, str]  # what {split} may match -> split
    lists: tuple[SplitLists, ...] = ()  # the first of which a file exists is taken
    tables: tuple[Table, ...] = ()
    marker: str = ""  # a file that must lie in the root
    telltale: str = ""  # a regular expression that tells its file names from those of look-alikes, for suggestions only
    frame_rate: float | None = None  # assumed for folders of frames, which carry no clock (readers folder and csv)
    per_class_from: str | None = None  # the split that a choice per class is taken from; None = every split


def dataset_names() -> list[str]:
    """Every data set known by name, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@cache
def describe(name: str) -> Dataset:
    """The data set of that name. Raises ``InputError`` for an unknown one."""
    names = dataset_names()
    if name not in names:
        near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
        raise InputError(
            what=f"unknown data set {name!r}",
            why=f"known are: {', '.join(names)}",
            fix=(f"did you mean {near[0]!r}? " if near else "")
            + "any folder of videos or of frames is read by 'folder', any list of clips by 'csv'",
        )
    return _parse(name, yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def _parse(name: str, raw: dict[str, Any]) -> Dataset:
    return Dataset(
        name=name,
        ways=tuple(tuple(_part(part) for part in way) for way in raw.pop("ways", [])),
        lists=tuple(_lists(group) for group in raw.pop("lists", [])),
        tables=tuple(Table(**_tuples(table)) for table in raw.pop("tables", [])),
        split_folders=raw.pop("split_folders", {}),
        frame_rate=_rate(raw),
        **{key: value for key, value in raw.items() if key != "frame_rate"},
    )


def _part(raw: dict[str, Any]) -> Part:
    kind: Kind = next(key for key in get_args(Kind) if key in raw)
    return Part(kind=kind, path=raw[kind], frame_rate=_rate(raw))


def _rate(raw: dict[str, Any]) -> float | None:
    rate = raw.get("frame_rate")
    return None if rate is None else float(rate)


def _lists(raw: dict[str, Any]) -> SplitLists:
    files = {split: tuple(paths) for split, paths in raw.pop("files", {}).items()}
    return SplitLists(files=files, marks=raw.pop("marks", {}), **_tuples(raw))


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
