"""What a cache consists of: the parsed ``cache.json``, and the names of the files beside it.

A *row* is one frame of one clip. A *unit* is a fixed range of ``rows_per_unit`` rows and the only grain of work.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from frame.pipeline.store.columns import ArraySpec, Column
from frame.pipeline.store.files import CacheError, sha256_bytes
from frame.pipeline.store.objects import StorePath

FORMAT = 1
META, META_COPY, INDEX, CARD = "cache.json", "cache.copy.json", "index.parquet", "README.md"
RECEIPTS, STATS, SHARDS = "receipts", "stats", "shards"
_MAX_UNIT_ROWS, _MAX_UNITS = 1 << 20, 1 << 24  # 128 and 2,000 times what the largest data sets come to
_END = b"\n}"  # of a JSON object, as it is written here

COPIED = ("units", "recoded_from", "repacked_from", "merged_from")
"""What ``build`` of a copy says besides: units taken, encoding before, plan of the clips before, caches joined."""

MAX_JSON = 32 << 20
"""Bytes of a JSON file, at most. Whoever reads one parses it whole, into some ten times its size."""

StoreKind = Literal["zarr", "webdataset"]


def canonical(value: object) -> bytes:
    """JSON with one spelling only: sorted keys, no spaces, no NaN. What digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sealed(value: Mapping[str, Any]) -> bytes:
    """``value``, which has an item at least, as readable JSON; the last line is the sha256 of the text before it."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode().removesuffix(_END)
    if len(text) > MAX_JSON - 200:
        raise CacheError(
            what="A file of the cache would become too large to be read again.",
            where=META,
            why=f"{len(text):,} bytes of JSON, where readers accept {MAX_JSON:,}",
            fix="Build with smaller units: --unit-rows.",
        )
    return text + _seal(text)


def _seal(text: bytes) -> bytes:
    return b',\n "sha256": "' + sha256_bytes(text).encode() + b'"' + _END + b"\n"


def unseal(data: bytes, *, where: StorePath) -> dict[str, Any]:
    """Parse what ``sealed`` wrote; any changed byte raises ``CacheError``."""
    seal = len(_seal(b""))
    text = data[:-seal]
    if len(data) > MAX_JSON or data[-seal:] != _seal(text):
        raise damage(where, "its content does not match the checksum it carries")
    try:
        body = json.loads(text + _END, object_pairs_hook=_once_each, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise damage(where, f"no program of ours wrote it: {error}") from None
    if not isinstance(body, dict):
        raise damage(where, "it holds no object")
    return body


def damage(where: StorePath, why: str) -> CacheError:
    """The screen for a small file that is not as it was written."""
    return CacheError(
        what="A file of the cache is damaged.",
        where=str(where),
        why=why,
        fix="`frame-cache build CACHE` repairs it.",
    )


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Of two equal keys one reader takes the first and another the last: whoever writes both lies."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheMeta:
    """The parsed ``cache.json``.

    ``dataset``, ``sampling``, ``geometry``, ``build`` are plain JSON objects: what the rows are, how they were chosen,
    how frames were fitted, and the options that the bytes depend on. ``teachers`` maps a name to its record (weights'
    digest, library, preprocessing). ``metadata`` maps the Zarr metadata files to their sha256.
    """

    dataset: dict[str, Any]
    sampling: dict[str, Any]
    geometry: dict[str, Any]
    build: dict[str, Any]
    store: StoreKind
    rows_per_unit: int
    rows: int
    index_sha256: str
    columns: dict[str, Column]
    teachers: dict[str, dict[str, Any]]
    metadata: dict[str, str]

    def __post_init__(self) -> None:
        if self.rows_per_unit > _MAX_UNIT_ROWS or self.rows > _MAX_UNITS * self.rows_per_unit:
            raise CacheError(
                what="The cache would have too many units, or too large ones.",
                where=META,
                why=f"{self.rows:,} rows in units of {self.rows_per_unit:,}",
                fix=f"Choose --unit-rows so that there are at most {_MAX_UNITS:,} units of {_MAX_UNIT_ROWS:,} rows.",
            )
        specs = [spec for column in self.columns.values() for spec in column.arrays(self.rows_per_unit)]
        names = sorted(spec.name.lower() for spec in specs)
        if twice := [a for a, b in itertools.pairwise(names) if a == b]:
            raise CacheError(
                what=f"Two columns would share the name {twice[0]!r}.",
                where=META,
                why="names must differ by more than capitals, which many file systems and webdataset do not tell apart",
                fix="Give one of the teachers another name: --teachers ALIAS=NAME.",
            )

    @property
    def units(self) -> int:
        """Number of units; ``rows`` counts every row of them, used or not."""
        return self.rows // self.rows_per_unit

    @property
    def plan_id(self) -> str:
        """Digest of everything that decides a unit's content, except which teachers are asked for."""
        parts = (self.dataset, self.sampling, self.geometry, self.build)
        return sha256_bytes(canonical([FORMAT, self.store, self.rows_per_unit, self.rows, self.index_sha256, *parts]))

    def arrays(self) -> dict[str, ArraySpec]:
        """Every stored array by name."""
        specs = [spec for column in self.columns.values() for spec in column.arrays(self.rows_per_unit)]
        return {spec.name: spec for spec in specs}

    def teacher_id(self, column: str) -> str:
        """Digest of the record of the teacher behind ``column``, and of the column's steps where it has any: receipts
        name it, so that a stale column shows."""
        teacher, steps = self.columns[column].teacher, self.columns[column].steps
        record = self.teachers[teacher] if teacher else None
        return sha256_bytes(canonical([record, steps.to_json()] if steps else record))

    def to_bytes(self) -> bytes:
        """The content of ``cache.json``."""
        return sealed(
            {
                "format": FORMAT,
                "kind": "frame-cache",
                "plan": self.plan_id,
                "dataset": self.dataset,
                "sampling": self.sampling,
                "geometry": self.geometry,
                "build": self.build,
                "store": self.store,
                "rows_per_unit": self.rows_per_unit,
                "rows": self.rows,
                "units": self.units,
                "index_sha256": self.index_sha256,
                "columns": {name: column.to_json() for name, column in self.columns.items()},
                "teachers": self.teachers,
                "metadata": self.metadata,
            }
        )


def parse_meta(data: bytes, *, where: StorePath) -> CacheMeta:
    """Parse ``cache.json``. Raises ``CacheError`` for another format version, damage, or impossible values."""
    value = _check_format(data, where)
    value = unseal(data, where=where)
    try:
        columns = {name: Column.from_json(name, item) for name, item in value["columns"].items()}
        meta = CacheMeta(
            columns=columns,
            **{key: value[key] for key in CacheMeta.__slots__ if key != "columns"},
        )
        consistent = _plausible(meta) and meta.plan_id == value["plan"] and _says_so(value, meta)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CacheError(what="cache.json lacks something it must have.", where=str(where), why=repr(error)) from error
    if not consistent:
        raise CacheError(what="cache.json contradicts itself.", where=str(where))
    return meta


def _says_so(value: Mapping[str, Any], meta: CacheMeta) -> bool:
    """Is what the file says besides, for other readers, what follows from the rest?"""
    dtypes = {name: item["dtype"] for name, item in value["columns"].items()}
    return (
        (value["kind"], type(value["format"]), value["format"]) == ("frame-cache", int, FORMAT)
        and value["units"] == meta.units
        and dtypes == {name: column.dtype for name, column in meta.columns.items()}
    )


def _plausible(meta: CacheMeta) -> bool:
    """Do the values make a cache at all? A matching checksum says who damaged it, not that it makes sense."""
    return (
        all(type(number) is int for number in (meta.rows, meta.rows_per_unit))
        and 0 < meta.rows_per_unit <= meta.rows
        and meta.rows % meta.rows_per_unit == 0
        and meta.store in get_args(StoreKind)
        and bool(meta.columns)
        and all(column.teacher is None or column.teacher in meta.teachers for column in meta.columns.values())
        and all(type(value) is dict for value in (meta.dataset, meta.sampling, meta.geometry, meta.build))
        and all(type(record) is dict for record in meta.teachers.values())
        and all(type(text) is str for text in (meta.index_sha256, *meta.metadata.values()))
        # A digest is taken of each: a name of its own choosing would have any file of this machine read.
        and meta.metadata.keys() <= metadata_names(meta)
        and _chosen_units_exist(meta)
    )


def metadata_names(meta: CacheMeta) -> set[str]:
    """The Zarr metadata files that the cache has."""
    return {"zarr.json", *(f"{name}/zarr.json" for name in meta.arrays())} if meta.store == "zarr" else set()


def _chosen_units_exist(meta: CacheMeta) -> bool:
    units = meta.build.get("units")
    if units is None:
        return True
    numbers = all(type(unit) is int and 0 <= unit < meta.units for unit in units)
    return numbers and all(a < b for a, b in itertools.pairwise(units))


def _check_format(data: bytes, where: StorePath) -> dict[str, Any]:
    try:
        value = json.loads(data) if len(data) <= MAX_JSON else {}
        version, kind = value.get("format"), value.get("kind")
    except (ValueError, AttributeError, RecursionError):
        return {}  # damage: `unseal` says so
    if kind == "frame-cache" and isinstance(version, int) and version != FORMAT:
        raise CacheError(
            what=f"This cache has format version {version}; this program reads version {FORMAT}.",
            where=str(where),
            fix="Use the release of frame-encoder that made it, or build the cache again.",
        )
    return dict(value)
