"""Small real caches for the tests of the store: any clip lengths, either store and encoding, failures, later columns.

``make_cache`` writes with the store's own writer and keeps what it wrote in plain NumPy arrays: the model that readers
are compared with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa

from frame.pipeline.store import Cache, open_cache
from frame.pipeline.store.card import write_card
from frame.pipeline.store.columns import Column, Encoding, Steps
from frame.pipeline.store.files import sha256_bytes, writer_folder
from frame.pipeline.store.index import SCHEMA, RowMap, index_bytes
from frame.pipeline.store.layout import CacheMeta, StoreKind
from frame.pipeline.store.receipts import moments_of
from frame.pipeline.store.stats import write_statistics
from frame.pipeline.store.writer import UnitData, commit_unit, with_metadata, write_metadata

SIDE, TOKENS, WIDTH = 4, 3, 5
PATCH, CLS, LATER = "dino.patch", "clip.cls", "later.cls"

FIRST_COLUMNS = ("frames", PATCH, CLS)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A cache on the disk and what it holds: ``full`` maps an array's name to ``[rows, ...]``; ``failed`` maps a
    column to the clips that have no rows in it."""

    path: Path
    meta: CacheMeta
    table: pa.Table
    full: dict[str, np.ndarray]
    failed: dict[str, dict[str, tuple[str, str]]]

    def open(self) -> Cache:
        return open_cache(self.path)

    def readable(self, column: str) -> np.ndarray:
        """Rows of the cache that hold a value, bool ``[rows]``."""
        mask = np.zeros(self.meta.rows, dtype=bool)
        for clip in self.table.to_pylist():
            if clip["clip"] not in self.failed[column]:
                mask[clip["first_row"] : clip["first_row"] + clip["n_frames"]] = True
        return mask

    def values(self, column: str) -> np.ndarray:
        """What a reader must give for every row of the cache, by the documented formula, ``[rows, *shape]``."""
        values = self.full[column]
        if steps := self.meta.columns[column].steps:
            return (values * np.float32(steps.step) + np.float32(steps.mean)).astype(np.float16)
        if values.dtype != np.int8:
            return values
        scale = self.full[f"{column}.scale"].astype(np.float64)
        scale = scale[..., None] if values.ndim > 2 else scale
        return (values.astype(np.float64) * scale).astype(np.float16)

    @property
    def units(self) -> range:
        return range(self.meta.units)


def columns_of(encoding: Encoding) -> dict[str, Column]:
    """Pictures, a column of several tokens a row, and a column of one."""
    return {
        "frames": Column(name="frames", shape=(SIDE, SIDE, 3), encoding="raw"),
        PATCH: Column(name=PATCH, shape=(TOKENS, WIDTH), encoding=encoding, teacher="dino", steps=steps_of(encoding)),
        CLS: Column(name=CLS, shape=(WIDTH,), encoding=encoding, teacher="clip", steps=steps_of(encoding)),
    }


def steps_of(encoding: Encoding) -> Steps | None:
    """Steps of ``WIDTH`` channels, for those encodings that have any."""
    step, mean = np.float32([0.1, 0.25, 3e-4, 0.07, 0.1]), np.float32([0, -1.5, 0.3, 2e-3, 40])
    return Steps(step=tuple(step.tolist()), mean=tuple(mean.tolist())) if encoding == "residual" else None


def lay_out(lengths: Sequence[int], rows_per_unit: int) -> tuple[list[int], int]:
    """First row of every clip, and the rows in all. No clip straddles two units unless it is longer than one."""
    first, row = [], 0
    for length in lengths:
        used = row % rows_per_unit
        if used and used + length > rows_per_unit:
            row += rows_per_unit - used
        first.append(row)
        row += length
    return first, max(-(-row // rows_per_unit), 1) * rows_per_unit


def make_table(lengths: Sequence[int], rows_per_unit: int) -> tuple[pa.Table, int]:
    """The index of clips ``c0``, ``c1``, … and the number of rows."""
    first, rows = lay_out(lengths, rows_per_unit)
    clips = [
        {
            "clip": f"c{i}",
            "source": f"folder/c{i}.mp4",
            "split": "val" if i % 5 == 4 else "train",
            "label": f"label {i % 3}",
            "first_row": start,
            "n_frames": length,
            "unit": min(start // rows_per_unit, rows // rows_per_unit - 1),
            "fps": 25.0,
            "timestamps": [frame / 25 for frame in range(length)],
            "width": 64,
            "height": 48,
            "bytes": 1000 + i,
            "sha256": sha256_bytes(b"%d" % i),
            "error": "" if length else "empty: no frames",
        }
        for i, (start, length) in enumerate(zip(first, lengths, strict=True))
    ]
    return pa.Table.from_pylist(clips, schema=SCHEMA), rows


def random_arrays(meta: CacheMeta, columns: Iterable[str], seed: int) -> dict[str, np.ndarray]:
    """Values for every row of the cache, by array name."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name in columns:
        for spec in meta.columns[name].arrays(meta.rows_per_unit):
            shape = (meta.rows, *spec.shape)
            if spec.dtype == "float16":
                arrays[spec.name] = rng.standard_normal(shape).astype(np.float16)
                if spec.name.endswith(".scale"):
                    arrays[spec.name] = (np.abs(arrays[spec.name]) / 64).astype(np.float16)
            elif spec.steps:
                levels = np.rint(rng.standard_normal(shape) * 12)
                levels[rng.random(shape) < 0.01] = rng.choice([-32767, -129, 128, 32767])  # what escapes a byte
                arrays[spec.name] = levels.astype(np.int16)
            else:
                low, high = (-127, 128) if spec.dtype == "int8" else (0, 256)
                arrays[spec.name] = rng.integers(low, high, shape).astype(spec.dtype)
    return arrays


@contextmanager
def quick_disk() -> Iterator[None]:
    """Without flushing: what these tests compare is in the page cache, and a flush takes milliseconds."""
    with mock.patch.object(os, "fsync"):
        yield


def make_cache(
    path: Path,
    *,
    lengths: Sequence[int] = (3, 5, 0, 8, 2, 11, 4),
    failed: Sequence[int] = (1,),
    store: StoreKind = "zarr",
    encoding: Encoding = "float16",
    rows_per_unit: int = 8,
    seed: int = 0,
    units: Iterable[int] | None = None,
) -> Made:
    """Write a cache of clips with these ``lengths`` (0: failed when probed), those in ``failed`` without rows.

    ``units``: commit just these, and write no statistics then.
    """
    table, rows = make_table(lengths, rows_per_unit)
    index = index_bytes(table)
    meta, files = with_metadata(
        CacheMeta(
            dataset={"name": "folder"},
            sampling={"fps": "native"},
            geometry={"size": SIDE, "fit": "crop"},
            build={"batch_rows": 4, "encoding": encoding},
            store=store,
            rows_per_unit=rows_per_unit,
            rows=rows,
            index_sha256=sha256_bytes(index),
            columns=columns_of(encoding),
            teachers={"dino": {"weights": "a"}, "clip": {"weights": "b"}},
            metadata={},
        )
    )
    why = {f"c{i}": ("corrupt", f"clip {i} is bad") for i in failed if lengths[i]}
    made = Made(
        path=path,
        meta=meta,
        table=table,
        full=random_arrays(meta, FIRST_COLUMNS, seed),
        failed=dict.fromkeys(FIRST_COLUMNS, why),
    )
    path.mkdir(parents=True, exist_ok=True)
    with quick_disk(), writer_folder(path) as tmp:
        write_metadata(path, meta, files, index, tmp=tmp)
        for unit in made.units if units is None else units:
            commit_unit(path, meta, table, unit_data(made, unit, FIRST_COLUMNS), tmp=tmp)
        if units is None:
            write_statistics(made.open(), tmp=tmp)
            write_card(made.open(), tmp=tmp)
    return made


def add_column(made: Made, *, failed: Sequence[int] = (), seed: int = 1) -> Made:
    """``made`` with the column ``later.cls`` of another teacher added, in which the clips ``failed`` have no rows."""
    encoding = made.meta.columns[PATCH].encoding
    later = Column(
        name=LATER, shape=(WIDTH,), encoding=encoding, teacher="later", part="later", steps=steps_of(encoding)
    )
    meta, files = with_metadata(
        replace(
            made.meta,
            columns={**made.meta.columns, LATER: later},
            teachers={**made.meta.teachers, "later": {"weights": "c"}},
        )
    )
    why = {f"c{i}": ("gone", f"clip {i} went away") for i in failed}
    grown = replace(
        made,
        meta=meta,
        full={**made.full, **random_arrays(meta, [LATER], seed)},
        failed={**made.failed, LATER: {**made.failed[PATCH], **why}},
    )
    with quick_disk(), writer_folder(made.path) as tmp:
        write_metadata(made.path, meta, files, index_bytes(made.table), tmp=tmp)
        for unit in grown.units:
            commit_unit(made.path, meta, made.table, unit_data(grown, unit, [LATER]), tmp=tmp)
        write_statistics(grown.open(), tmp=tmp)
        write_card(grown.open(), tmp=tmp)
    return grown


def unit_data(made: Made, unit: int, columns: Sequence[str]) -> UnitData:
    """What a build would hand to the writer for ``columns`` of ``unit``."""
    size = made.meta.rows_per_unit
    rows = np.flatnonzero(made.readable(columns[0])[unit * size : (unit + 1) * size])
    specs = [spec for name in columns for spec in made.meta.columns[name].arrays(size)]
    clips = {part.clip for part in RowMap(made.table, rows_per_unit=size).clips(unit)}
    taught = [name for name in columns if made.meta.columns[name].teacher]
    return UnitData(
        unit=unit,
        rows=rows,
        values={spec.name: made.full[spec.name][unit * size + rows] for spec in specs},
        loss={name: {"mean_cosine": 1.0, "worst_cosine": 0.5} for name in taught},
        moments={name: moments_of(made.values(name)[unit * size + rows]) for name in taught},
        failed={clip: why for clip, why in made.failed[columns[0]].items() if clip in clips},
        software={name: {"torch": "2"} for name in columns},
    )


def commit(made: Made, unit: int, columns: Sequence[str] = FIRST_COLUMNS) -> None:
    """Write ``columns`` of ``unit`` (again)."""
    with quick_disk(), writer_folder(made.path) as tmp:
        commit_unit(made.path, made.meta, made.table, unit_data(made, unit, columns), tmp=tmp)


def tree(path: Path) -> dict[str, bytes]:
    """Every file under ``path`` by its relative name."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def restore(path: Path, files: Mapping[str, bytes]) -> None:
    """Make ``path`` hold these files and no other."""
    for name in tree(path).keys() - files.keys():
        (path / name).unlink()
    for name, data in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_bytes() != data:
            target.write_bytes(data)
