"""The columns of a cache, and the arrays that hold them.

A *column* is what a reader asks for (``dino_vits16.patch``); an *array* is what lies on the disk: one for a column of
float16 or of ``residual``, two for one of int8 (the integers and one scale a token).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from frame.pipeline.store.files import CacheError

FRAMES = "frames"
PACKED_ROWS = 16
"""Rows of a chunk of a packed array, unless they are tiny. Fewer would be quicker to get at, as those before a row are
unpacked with it, but take more room, as the first is whole (8: three per cent)."""

Encoding = Literal["raw", "float16", "int8", "residual"]

_WHERE = "cache.json"
# No underscore at the start: webdataset takes such members for its own, and neither writes nor decodes them.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}(\.[a-z]{1,16}){0,2}")
_MAX_ROW_BYTES = 1 << 30
_MAX_DIMENSIONS = 8
_CHUNK_BYTES = 1 << 16
_MAX_PACKED_BYTES = 1 << 28  # of a chunk: an eighth of what its compressor takes
_ITEM_BYTES = {"uint8": 1, "int8": 1, "float16": 2, "int16": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """What the levels of a ``residual`` column mean: feature = ``mean`` + ``step`` x level, a channel each."""

    step: tuple[float, ...]
    mean: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = [*self.step, *self.mean]
        fine = all(type(number) is float and math.isfinite(number) for number in numbers)
        if not fine or len(self.step) != len(self.mean) or min(self.step, default=0.0) <= 0:
            raise CacheError(what="The steps of a column make no sense.", where=_WHERE)

    def to_json(self) -> dict[str, list[float]]:
        """As in ``cache.json`` and in the attributes of the Zarr array."""
        return {"step": list(self.step), "mean": list(self.mean)}


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """One stored array, as long as the cache: ``[rows, *shape]`` of ``dtype``, ``chunk_rows`` rows a chunk.

    ``steps`` is None but for the levels of a ``residual`` column, int16, which lie packed on the disk (see
    ``packing``); ``chunk_rows`` is then how many of them are packed together.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunk_rows: int
    steps: Steps | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; of a packed array, before it is packed."""
        return _ITEM_BYTES[self.dtype] * math.prod(self.shape)

    @property
    def fill(self) -> float | int:
        """What the stock Zarr reader shows for a row that was never written: NaN wherever the type has one."""
        return float("nan") if self.dtype == "float16" else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """What a reader asks for: one value of ``shape`` a row.

    ``teacher`` names the entry of ``cache.json`` that made it (None for the frames). ``part`` is "" for the columns of
    the first build, else the name under which they were added later (they lie in tar files of their own). ``steps`` are
    those of a ``residual`` column, fixed before its first unit is made.
    """

    name: str
    shape: tuple[int, ...]
    encoding: Encoding
    teacher: str | None = None
    part: str = ""
    steps: Steps | None = None

    def __post_init__(self) -> None:
        for name in (self.name, self.part or self.name):
            if not _NAME.fullmatch(name):
                raise CacheError(
                    what=f"{name!r} cannot be the name of a column.",
                    where=_WHERE,
                    why="it becomes a folder: letters, digits, - and _, the first a letter or digit",
                    fix="Give the teacher another name: --teachers ALIAS=NAME.",
                )
        lengths_fit = all(0 < length <= 1 << 20 for length in self.shape[:_MAX_DIMENSIONS])
        if not 0 < len(self.shape) <= _MAX_DIMENSIONS or not lengths_fit:
            shape = str(self.shape)[:80]
            raise CacheError(what=f"Column {self.name!r} has the impossible shape {shape}.", where=_WHERE)
        if self.encoding not in get_args(Encoding):
            raise CacheError(what=f"Column {self.name!r} has the unknown encoding {self.encoding!r}.", where=_WHERE)
        channels = len(self.steps.step) if self.steps else 0
        if channels != (self.shape[-1] if self.encoding == "residual" else 0):
            raise CacheError(what=f"Column {self.name!r} has steps for {channels} channels.", where=_WHERE)

    @property
    def dtype(self) -> str:
        """The type that readers get."""
        return "uint8" if self.encoding == "raw" else "float16"

    def arrays(self, rows_per_unit: int) -> tuple[ArraySpec, ...]:
        """The stored arrays, values first."""
        stored = {"raw": "uint8", "float16": "float16", "int8": "int8", "residual": "int16"}[self.encoding]
        specs = [_array(self.name, stored, self.shape, rows_per_unit, steps=self.steps)]
        if self.encoding == "int8":
            specs.append(_array(f"{self.name}.scale", "float16", self.shape[:-1] or (1,), rows_per_unit))
        return tuple(specs)

    @property
    def row_bytes(self) -> int:
        """Stored bytes a row, without checksums; of a ``residual`` column, before it is packed."""
        return sum(spec.row_bytes for spec in self.arrays(1))

    def to_json(self) -> dict[str, Any]:
        """As in ``cache.json``."""
        return {
            "shape": list(self.shape),
            "dtype": self.dtype,
            "encoding": self.encoding,
            "teacher": self.teacher,
            "part": self.part,
            **(self.steps.to_json() if self.steps else {}),
        }

    @classmethod
    def from_json(cls, name: str, item: Mapping[str, Any]) -> Column:
        """What ``to_json`` made. Raises ``KeyError``, ``TypeError``, ``ValueError`` or ``CacheError`` for others."""
        steps = Steps(step=tuple(item["step"]), mean=tuple(item["mean"])) if item["encoding"] == "residual" else None
        return cls(
            name=name,
            shape=tuple(int(n) for n in item["shape"]),
            encoding=item["encoding"],
            teacher=item["teacher"],
            part=item["part"],
            steps=steps,
        )


def _array(
    name: str, dtype: str, shape: tuple[int, ...], rows_per_unit: int, *, steps: Steps | None = None
) -> ArraySpec:
    # Large rows get a chunk each, so that a window of frames reads nothing else; tiny rows (a CLS token) share
    # one, because a checksum and an index entry for every kilobyte would make plain readers crawl. Packed rows share
    # one because only the first is whole.
    chunk = 1
    spec = ArraySpec(name=name, dtype=dtype, shape=shape, chunk_rows=1, steps=steps)
    if spec.row_bytes > _MAX_ROW_BYTES:
        raise CacheError(what=f"A row of {name!r} would take {spec.row_bytes:,} bytes.", where=_WHERE)
    least, most = (PACKED_ROWS, _MAX_PACKED_BYTES) if steps else (1, 0)
    while rows_per_unit % (2 * chunk) == 0:
        fits = 2 * chunk * spec.row_bytes <= _CHUNK_BYTES
        if not fits and (2 * chunk > least or 2 * chunk * spec.row_bytes > most):
            break
        chunk *= 2
    return ArraySpec(name=name, dtype=dtype, shape=shape, chunk_rows=chunk, steps=steps)
