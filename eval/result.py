"""What an evaluation found: one JSON, and pictures beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from frame.manifests.errors import InputError
from frame.model.files import replacing

RESULT = "result.json"
PICTURES = "pictures"
FORMAT = 1
_LIBRARIES = ("frame-encoder", "torch", "timm", "open_clip_torch", "numpy", "opencv-python-headless", "scikit-learn")
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """Scores of one encoder on one task under one preset.

    ``scores`` are totals as fractions (0.65, not 65), the headline first; ``items`` one mapping an item (a sequence and
    object, a class, a delta), each with its ``name`` and numbers. ``data`` says what was evaluated on: ``root``,
    ``digest`` (see ``data_digest``), and counts. ``options`` are all knobs, those of the preset included, so that two
    results with equal ``task``, ``preset`` and ``options`` may stand in one table. ``notes`` are sentences that a
    reader needs (the source of frames, superpixels instead of SAM). ``pictures`` are paths relative to the
    result's folder.
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

    def write(self, out: Path) -> Path:
        """``OUT/result.json``, whole or not at all."""
        path = out / RESULT
        with replacing(path) as partial:
            partial.write_text(self.to_json(indent=2) + "\n", encoding="utf-8")
        return path

    def to_json(self, indent: int | None = None) -> str:
        """The text of the file. Raises ValueError for a number that is not finite."""
        stored = {"format": FORMAT, **asdict(self), "versions": versions()}
        return json.dumps(stored, indent=indent, allow_nan=False)


def read_result(path: Path) -> Result:
    """The result in a file or folder. Raises InputError for what is none, or of another format."""
    file = path / RESULT if path.is_dir() else path
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise InputError(what="This result is of another version.", where=str(file), why=f"{stored['format']!r}")
        names = Result.__dataclass_fields__
        return Result(**{name: stored[name] for name in names})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            what="This is no result of frame-eval.",
            where=str(file),
            why=f"{type(error).__name__}: {error}",
            fix=f"give a folder with a {RESULT}",
        ) from error


def versions() -> dict[str, str]:
    """Of this package and the libraries that numbers depend on."""
    return {name: version(name) for name in _LIBRARIES}


def data_digest(root: Path, files: Iterable[Path]) -> str:
    """sha256 over the relative names and the contents of the files that an evaluation read."""
    whole = hashlib.sha256()
    for path in sorted(set(files)):
        one = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                one.update(block)
        whole.update(f"{path.relative_to(root).as_posix()}\0{one.hexdigest()}\n".encode())
    return whole.hexdigest()
