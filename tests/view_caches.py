"""Small caches to make pages of: clips whose features are known, with names that try to break out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pages import Page
from store_caches import Made, commit, quick_disk, random_arrays

from frame.pipeline.store.columns import Column, Encoding
from frame.pipeline.store.files import sha256_bytes, writer_folder
from frame.pipeline.store.index import SCHEMA, index_bytes
from frame.pipeline.store.layout import CacheMeta, StoreKind
from frame.pipeline.store.writer import with_metadata, write_metadata
from frame.pipeline.view import render_view

SIDE, WIDTH, GRID, UNIT = 16, 8, (2, 3), 32
PATCH, CLS = "vit.patch", "vit.cls"
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


def turning(rows: int, tokens: int) -> np.ndarray:
    """Features that turn by 0.1 radians a row, each token in a plane of its own: float16 ``[rows, tokens, WIDTH]``."""
    values = np.zeros((rows, tokens, WIDTH))
    for token in range(tokens):
        values[:, token, token % WIDTH] += np.cos(0.1 * np.arange(rows))
        values[:, token, (token + 1) % WIDTH] += np.sin(0.1 * np.arange(rows))
    return values.astype(np.float16)


def record(origin: str) -> dict[str, Any]:
    return {
        "model": "vit_tiny", "tag": "", "library": "timm", "library_version": "1.0", "grid": list(GRID), "patch": 16,
        "weights": {"origin": origin, "file": None, "repository": None, "sha256": "ab" * 32},
        "input_size": SIDE, "precision": "float32", "licence": EVIL,
    }  # fmt: skip


def make(
    path: Path,
    *,
    lengths: Sequence[int] = (5, 0, 9, 1, 70),
    columns: Sequence[str] = ("frames", PATCH, CLS),
    failed: Mapping[str, tuple[str, str]] | None = None,
    store: StoreKind = "zarr",
    encoding: Encoding = "float16",
    units: Sequence[int] | None = None,
    clip: str = "clip",
    label: str = "a",
    origin: str = "file",
    grid: tuple[int, int] = GRID,
) -> Made:
    """A cache of clips one after the other; length 0: failed when probed. ``units`` are committed, all by default."""
    first = np.cumsum([0, *lengths])
    rows = max(-(-int(first[-1]) // UNIT), 1) * UNIT
    table = pa.Table.from_pylist(
        [
            {
                "clip": f"{clip}{i}", "source": f"{clip}{i}.mp4", "split": "val" if i == 2 else "train",
                "label": label if i % 2 else "", "first_row": int(begin), "n_frames": length,
                "unit": min(int(begin) // UNIT, rows // UNIT - 1), "fps": 25.0, "width": 64, "height": 48,
                "timestamps": [frame / 25 for frame in range(length)], "bytes": 1, "sha256": "00",
                "error": "" if length else f"demux: {EVIL}",
            }
            for i, (begin, length) in enumerate(zip(first, lengths, strict=False))
        ],
        schema=SCHEMA,
    )  # fmt: skip
    index = index_bytes(table)
    every = {
        "frames": Column(name="frames", shape=(SIDE, SIDE, 3), encoding="raw"),
        PATCH: Column(name=PATCH, shape=(GRID[0] * GRID[1], WIDTH), encoding=encoding, teacher="vit"),
        CLS: Column(name=CLS, shape=(WIDTH,), encoding=encoding, teacher="vit"),
    }
    meta, files = with_metadata(
        CacheMeta(
            dataset={"name": "folder", "licence": EVIL, "clips": len(lengths)},
            sampling={"fps": None, "frames_per_clip": None},
            geometry={"size": SIDE, "fit": "crop", "resize": "bicubic"},
            build={"encoding": encoding, "decoder": "pyav", "precision": "float32", "batch_rows": 4},
            store=store,
            rows_per_unit=UNIT,
            rows=rows,
            index_sha256=sha256_bytes(index),
            columns={name: every[name] for name in columns},
            teachers={"vit": {**record(origin), "grid": list(grid)}},
            metadata={},
        )
    )
    full = random_arrays(meta, columns, 0)
    if encoding == "float16":
        values = {PATCH: turning(rows, GRID[0] * GRID[1]), CLS: turning(rows, 1)[:, 0]}
        full |= {name: value for name, value in values.items() if name in columns}
    made = Made(path=path, meta=meta, table=table, full=full, failed={name: dict(failed or {}) for name in columns})
    path.mkdir(parents=True)
    with quick_disk(), writer_folder(path) as tmp:
        write_metadata(path, meta, files, index, tmp=tmp)
    for number in made.units if units is None else units:
        commit(made, number, columns)
    return made


def render(made: Made, **options: Any) -> Page:
    out = made.path.with_suffix(".html")
    render_view(made.open(), out, **options)
    return Page(out)
