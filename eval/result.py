"""What an evaluation found: one JSON, and pictures beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from frame.model.files import replacing
from frame.pipeline.view.result import FORMAT, RESULT, StoredResult, read_fields

__all__ = ["PICTURES", "RESULT", "Result", "data_digest", "read_result", "versions"]

PICTURES = "pictures"
_LIBRARIES = ("frame-encoder", "torch", "timm", "open_clip_torch", "numpy", "opencv-python-headless", "scikit-learn")
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Result(StoredResult):
    """A result that an evaluation writes; its fields are those that the reports read."""

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
    return Result(**read_fields(path))


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
