"""What `frame-eval` keeps of an evaluation, read back: one JSON file, which may come from anybody."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frame.manifests.errors import InputError

RESULT = "result.json"
FORMAT = 1
_DEEPEST = 16  # options in options; those of the tasks are two deep


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredResult:
    """Scores of one encoder on one task under one preset.

    ``scores`` are totals as fractions (0.65, not 65), the headline first; ``items`` one mapping an item (a sequence and
    object, a class, a delta), each with its ``name`` and numbers. ``data`` says what was evaluated on: ``root``,
    ``digest`` (see ``frame.eval.result.data_digest``), and counts. ``options`` are all knobs, those of the preset
    included, so that two results with equal ``task``, ``preset`` and ``options`` may stand in one table. ``notes`` are
    sentences that a reader needs (the source of frames, superpixels instead of SAM). ``pictures`` are paths relative
    to the result's folder.
    """

    task: str
    preset: str
    encoder: Mapping[str, Any]  # EncoderInfo.to_json()
    scores: Mapping[str, float]
    items: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any]
    options: Mapping[str, Any]
    notes: Sequence[str] = ()
    pictures: Sequence[str] = ()


def read_fields(path: Path) -> dict[str, Any]:
    """The fields of the result in a file or folder, each of its type.

    Raises ``InputError`` for what is none, or of another format.
    """
    file = path / RESULT if path.is_dir() else path
    try:
        stored = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
        if stored["format"] != FORMAT:
            raise InputError(what="This result is of another version.", where=str(file), why=f"{stored['format']!r}")
        fields = {name: stored[name] for name in StoredResult.__dataclass_fields__}
        _require_types(fields)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(
            what="This is no result of frame-eval.",
            where=str(file),
            why=f"{type(error).__name__}: {error}",
            fix=f"give a folder with a {RESULT}",
        ) from error
    return fields


def read_stored(path: Path) -> StoredResult:
    """The result in a file or folder. Raises ``InputError`` as ``read_fields`` does."""
    return StoredResult(**read_fields(path))


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no score")


def _require_types(fields: Mapping[str, Any]) -> None:
    """Raise ``TypeError`` for a field that a table could not show."""
    wanted = {"task": str, "preset": str, "encoder": dict, "scores": dict, "items": list, "data": dict, "options": dict}
    wanted |= {"notes": list, "pictures": list}
    for name, kind in wanted.items():
        if not isinstance(fields[name], kind):
            raise TypeError(f"{name} is a {type(fields[name]).__name__}, not a {kind.__name__}")
    _require_shallow(fields["options"], _DEEPEST)
    parts = {"items": dict, "notes": str, "pictures": str}
    for name, kind in parts.items():
        if not all(isinstance(part, kind) for part in fields[name]):
            raise TypeError(f"{name} holds something else than {kind.__name__}")
    for name, score in fields["scores"].items():
        if type(score) not in (int, float) or not math.isfinite(score):
            raise TypeError(f"the score {name} is {score!r}, not a number")


def _require_shallow(options: Mapping[str, Any], left: int) -> None:
    """Raise ``TypeError`` for options in options that nobody wrote, before something descends into them."""
    if not left:
        raise TypeError("options lie too deep")
    for value in options.values():
        if isinstance(value, dict):
            _require_shallow(value, left - 1)
