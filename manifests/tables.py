"""Official splits and labels: lists with one clip a line, and tables with one record a clip."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frame.manifests.dataset import Dataset, SplitLists, Table
from frame.manifests.errors import InputError
from frame.manifests.rows import SPLITS
from frame.manifests.walk import Found, expand

_SPLIT_WORDS = {**{split: split for split in SPLITS}, "validate": "val", "validation": "val", "training": "train"}


@dataclass(frozen=True, slots=True)
class Entry:
    """What an official file says of a clip; None where it is silent."""

    split: str | None
    label: str | None


@dataclass(frozen=True, slots=True)
class Official:
    """Everything the official files of a data set say, by the name that a clip's file has."""

    entries: dict[str, Entry]
    files: tuple[str, ...]  # that were read

    def of(self, found: Found) -> Entry | None:
        """The entry of a clip, looked up within its class first: two classes may use one file name."""
        clip, label = found.names["clip"], found.names.get("label")
        return self.entries.get(f"{label}/{clip}") or self.entries.get(clip)


def read_official(dataset: Dataset, root: Path) -> Official:
    """The official splits below ``root``; empty where there is no such file.

    Raises ``InputError`` naming file and line.
    """
    for lists in dataset.lists:
        files = list(_list_files(lists, root))
        if files:
            return Official(_from_lists(lists, root, files), tuple(found.path for found, _ in files))
    entries: dict[str, Entry] = {}
    names: list[str] = []
    parents: dict[str, str] = {}
    for table in dataset.tables:
        for found in (found for pattern in table.files for found in expand_if_there(root, pattern)):
            if _read_table(table, root / found.path, entries, parents):
                names.append(found.path)
    entries.update({child: entries[parent] for child, parent in parents.items() if parent in entries})
    return Official(entries, tuple(names))


def expand_if_there(root: Path, pattern: str) -> Iterator[Found]:
    """The text files that a pattern matches; a folder of the pattern that is not there is no error."""
    return expand(root, pattern, "text", {})


def _list_files(lists: SplitLists, root: Path) -> Iterator[tuple[Found, str]]:
    for split, patterns in lists.files.items():
        for pattern in patterns:
            yield from ((found, split) for found in expand_if_there(root, pattern))
    for pattern in lists.marked:
        yield from ((found, "") for found in expand_if_there(root, pattern))


def _from_lists(lists: SplitLists, root: Path, files: Iterable[tuple[Found, str]]) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    line_of = re.compile(lists.line)
    for found, split in files:
        text = _text(root / found.path)
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            match = line_of.fullmatch(line.strip())
            marked = lists.marks.get(match.groupdict().get("mark") or "", split) if match else ""
            if match is None or not marked:
                raise _bad_line(root / found.path, number, f"{line.strip()!r} is not of the form {lists.line}")
            key = "/".join([*([found.names["label"]] if "label" in found.names else []), match["clip"]])
            # Some lists name a clip by its frames, a line each: saying the same again is not a contradiction.
            if entries.setdefault(key, Entry(marked, None)).split != marked:
                raise _bad_line(root / found.path, number, f"{key!r} is also listed as {entries[key].split}")
    return entries


def _read_table(table: Table, path: Path, entries: dict[str, Entry], parents: dict[str, str]) -> bool:
    """Add a table's records; False when it is a table of something else (another CSV lying beside)."""
    used = False
    for number, record in _table_records(table, path):
        keys = [key for key in (_key(form, record, path, number) for form in table.keys) if key]
        used = used or bool(keys)
        if table.parent:
            parents.update({key: str(record.get(table.parent) or "") for key in keys})
            continue
        entry = Entry(_table_split(table, record), _table_label(table, record))
        for key in keys:
            entries.setdefault(key, entry)
    return used


def _table_records(table: Table, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = _text(path)
    if path.suffix == ".csv":
        yield from (
            (k, dict(record)) for k, record in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2)
        )
        return
    try:
        records = json.loads(text)[table.records]
        yield from ((k, dict(record)) for k, record in enumerate(records, start=1))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            what=f"the file is no list of {table.records!r}", where=str(path), why=repr(error), fix="download it again"
        ) from error


class _Cell(str):
    """A cell that can be formatted as a number, as file names have it: "12" as 000012."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return format(int(float(self)), spec) if spec else str(self)


def _key(form: str, record: dict[str, Any], path: Path, number: int) -> str:
    try:
        return form.format_map({name: _Cell(value) for name, value in record.items() if value is not None})
    except KeyError:
        return ""
    except ValueError as error:
        raise _bad_line(path, number, str(error)) from error


def _table_split(table: Table, record: dict[str, Any]) -> str | None:
    present = [name for name in table.splits if name in record]
    splits = {_SPLIT_WORDS.get(str(record[name]).lower()) for name in present}
    # What one benchmark holds out stays held out; and a record that no benchmark holds out is for training.
    return next((split for split in ("test", "val") if split in splits), "train" if present else None)


def _table_label(table: Table, record: dict[str, Any]) -> str | None:
    value = record.get(table.label)
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, str) and value else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            what="a list of the data set cannot be read", where=str(path), why=str(error), fix="download it again"
        ) from error


def _bad_line(path: Path, number: int, why: str) -> InputError:
    return InputError(
        what="a line of an official list cannot be used",
        where=f"{path}:{number}",
        why=why,
        fix="download the list again, or remove it to have a seeded 80/20 split drawn",
    )
