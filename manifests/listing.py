"""The reader of a CSV file that lists clips, one a row."""

from __future__ import annotations

import csv
import math
from pathlib import Path, PurePosixPath

from frame.manifests.dataset import Dataset
from frame.manifests.errors import InputError
from frame.manifests.rows import CLIP_PATTERN, IMAGE_SUFFIXES, SPLITS, Draft, check_segment
from frame.manifests.walk import checked, list_folder, suffix

NAMES = ("clips.csv", "manifest.csv")
COLUMNS = ("path", "start", "end", "label", "split", "clip", "frame_rate")
_SPLIT_WORDS = {**{split: split for split in SPLITS}, "validate": "val", "validation": "val", "valid": "val"}
_SHOWN = 5

Record = dict[str, str]


def find_csv(source: Path) -> Path | None:
    """The CSV file that a --source names: itself, or ``clips.csv`` or ``manifest.csv`` in the folder."""
    if source.is_file():
        return source
    return next((source / name for name in NAMES if (source / name).is_file()), None)


def read_listing(dataset: Dataset, table: Path) -> tuple[list[Draft], list[str]]:
    """Every clip that a CSV file lists; paths are relative to its folder, and may not leave it.

    Raises ``InputError`` naming file and line of the first rows that are wrong.
    """
    drafts: list[Draft] = []
    problems: list[str] = []
    seen: dict[tuple[object, ...], int] = {}
    header, records = _records(table)
    for line, record in records:
        try:
            draft = _draft(dataset, table.parent, record, split_required="split" in header)
            _refuse_repeat(draft, line, seen)
            drafts.append(draft)
        except (ValueError, InputError, OSError) as error:
            problems.append(f"{table.name}:{line}: {getattr(error, 'why', '') or error}")
    if problems:
        raise _bad_rows(table, problems)
    if not drafts:
        raise InputError(
            what="the CSV file lists no clips",
            where=str(table),
            why="it has a header and no rows",
            fix="add a row a clip",
        )
    return drafts, _notes(dataset, drafts, header)


def _records(table: Path) -> tuple[list[str], list[tuple[int, Record]]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", strict=True)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            _check_header(table, header)
            return header, [(reader.line_num, record) for record in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            what="the CSV file cannot be read",
            where=str(table),
            why=str(error),
            fix="save it as UTF-8, comma separated",
        ) from error


def _check_header(table: Path, header: list[str]) -> None:
    twice = {name for name in header if header.count(name) > 1}
    if "path" in header and not twice:
        return
    raise InputError(
        what=f"the CSV file has the column {min(twice)!r} twice" if twice else "the CSV file has no column 'path'",
        where=f"{table}:1",
        why=f"its columns are: {', '.join(header) or 'none'}",
        fix=f"the first line must name the columns: path, and any of {', '.join(COLUMNS[1:])}",
    )


def _draft(dataset: Dataset, root: Path, record: Record, *, split_required: bool) -> Draft:
    if "" in record:
        raise ValueError("more cells than the header has columns (a comma in a name needs quotes around it)")
    cells = {name: (record.get(name) or "").strip() for name in COLUMNS[1:]}
    path = record["path"] or ""
    source = _source(root, path)
    start, end = _number(cells, "start"), _number(cells, "end")
    check_segment(start, end)
    clip = cells["clip"] or None
    if clip is not None and not CLIP_PATTERN.fullmatch(clip):
        raise ValueError(f"the clip id {clip!r} is not letters, digits, _ and - (at most 201, no leading -)")
    split = _split(cells["split"]) if split_required else None
    rate = _frame_rate(dataset, root / source, cells)
    return Draft(source=source, split=split, label=cells["label"], start=start, end=end, frame_rate=rate, clip=clip)


def _source(root: Path, path: str) -> str:
    pure = PurePosixPath(path)
    if not path or "\0" in path:
        raise ValueError("the path is empty" if not path else "the path holds a NUL character")
    if pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"the path {path!r} leaves the folder of the CSV file")
    if not (root / pure).exists() and not (root / pure).is_symlink():
        raise ValueError(f"there is no {path!r} beside the CSV file")
    # Every component, because a folder on the way may be the link that leads out.
    for k in range(len(pure.parts)):
        checked(root, str(PurePosixPath(*pure.parts[: k + 1])))
    return str(pure)


def _number(cells: Record, name: str) -> float | None:
    if not cells[name]:
        return None
    try:
        value = float(cells[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is {cells[name]!r}, not a number")
    return value


def _split(word: str) -> str:
    if word.lower() not in _SPLIT_WORDS:
        raise ValueError(f"the split is {word!r}, not one of {', '.join(SPLITS)}")
    return _SPLIT_WORDS[word.lower()]


def _frame_rate(dataset: Dataset, path: Path, cells: Record) -> float | None:
    rate = _number(cells, "frame_rate")
    if rate is not None and rate <= 0:
        raise ValueError(f"frame_rate is {rate:g}, not greater than 0")
    if path.is_dir():
        if not any(suffix(name) in IMAGE_SUFFIXES for name in list_folder(path, "").files):
            raise ValueError(f"the folder {path.name!r} holds no pictures")
        return rate or dataset.frame_rate
    if suffix(path.name) in IMAGE_SUFFIXES:
        return rate or dataset.frame_rate
    if rate is not None:
        raise ValueError("frame_rate is for folders of frames; a video has its own clock")
    return None


def _refuse_repeat(draft: Draft, line: int, seen: dict[tuple[object, ...], int]) -> None:
    for key in (("clip", draft.clip), ("segment", draft.source, draft.start, draft.end, draft.clip)):
        if key[1] is not None and seen.setdefault(key, line) != line:
            raise ValueError(f"the same clip as line {seen[key]}")


def _bad_rows(table: Path, problems: list[str]) -> InputError:
    more = len(problems) - _SHOWN
    return InputError(
        what=f"{len(problems)} {'row' if len(problems) == 1 else 'rows'} of the CSV file cannot be used",
        where=str(table),
        why="\n         ".join([*problems[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]),
        fix="mend or remove these rows",
    )


def _notes(dataset: Dataset, drafts: list[Draft], header: list[str]) -> list[str]:
    notes = []
    unused = [name for name in header if name not in COLUMNS]
    if unused:
        notes.append(f"columns that are not used: {', '.join(unused)}")
    if "frame_rate" not in header and any(draft.frame_rate for draft in drafts):
        notes.append(f"folders of frames carry no clock: {dataset.frame_rate:g} frames a second are assumed")
    return notes
