"""One unit of one array as a Zarr v3 shard.

zarr-python writes the bytes, into memory, so that what lands on the disk is a stock shard (sharding codec, one crc32c
a chunk, index at the end) and yet reaches it whole, in one durable write. ``locate`` reads a shard's index, so that a
reader can fetch rows by offset: the layout is fixed by the Zarr v3 sharding-indexed specification.
"""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from frame.pipeline.store.files import CacheError
from frame.pipeline.store.layout import ArraySpec

_MISSING = 2**64 - 1


def shard_name(spec: ArraySpec, unit: int) -> str:
    """The shard's path inside the cache."""
    return "/".join([spec.name, "c", str(unit), *("0" for _ in spec.shape)])


def array_metadata(spec: ArraySpec, *, rows: int, rows_per_unit: int) -> bytes:
    """The ``zarr.json`` of an array, as zarr-python writes it."""
    store = MemoryStore()
    _create(store, spec, rows=rows, rows_per_unit=rows_per_unit)
    return _get(store, "zarr.json")


def group_metadata() -> bytes:
    """The ``zarr.json`` of the cache's folder, so that ``zarr.open_group(CACHE)`` lists the arrays."""
    store = MemoryStore()
    zarr.create_group(store)
    return _get(store, "zarr.json")


def encode_shard(spec: ArraySpec, rows: np.ndarray, values: np.ndarray, *, rows_per_unit: int) -> bytes:
    """The bytes of a shard in which unit row ``rows[i]`` holds ``values[i]`` and no other row was ever written.

    ``rows`` int64 ``[n]`` increasing, ``values`` ``[n, *spec.shape]`` of ``spec.dtype``.
    """
    store = MemoryStore()
    array = _create(store, spec, rows=rows_per_unit, rows_per_unit=rows_per_unit)
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        array[int(rows[0]) : int(rows[-1]) + 1] = values
    elif len(rows):
        array.set_orthogonal_selection((rows, *(slice(None) for _ in spec.shape)), values)
    return _get(store, "/".join(["c", "0", *("0" for _ in spec.shape)]))


def _create(store: MemoryStore, spec: ArraySpec, *, rows: int, rows_per_unit: int) -> zarr.Array[Any]:
    return zarr.create_array(
        store,
        shape=(rows, *spec.shape),
        shards=(rows_per_unit, *spec.shape),
        chunks=(spec.chunk_rows, *spec.shape),
        dtype=spec.dtype,
        fill_value=spec.fill,
        # Features do not compress (float16 by a few per cent), and an uncompressed chunk can neither be a
        # decompression bomb nor cost reading time. The checksum turns a silent bit flip into an error.
        compressors=[Crc32cCodec()],
        filters=None,
        # An all-zero chunk must be told from one that is missing.
        config={"write_empty_chunks": True},
    )


def _get(store: MemoryStore, key: str) -> bytes:
    value = asyncio.run(store.get(key, default_buffer_prototype()))
    if value is None:
        raise AssertionError(f"zarr wrote no {key}")
    return value.to_bytes()


def locate(spec: ArraySpec, path: Path, *, rows_per_unit: int, size: int) -> np.ndarray:
    """Byte offset of every chunk of a shard, int64 ``[chunks]``, -1 for a chunk that was never written.

    ``size`` is the file's length according to its receipt. Raises ``CacheError`` when the index is damaged.
    """
    chunks = rows_per_unit // spec.chunk_rows
    length = 16 * chunks + 4
    with path.open("rb") as file:
        file.seek(max(size - length, 0))
        index = file.read(length + 1)
    if len(index) != length or google_crc32c.value(index[:-4]) != struct.unpack("<I", index[-4:])[0]:
        raise damaged(path, "its index is not intact")
    entries = np.frombuffer(index[:-4], dtype="<u8").reshape(chunks, 2)
    present = entries[:, 0] != _MISSING
    stored = spec.row_bytes * spec.chunk_rows + 4
    if (entries[present, 1] != stored).any() or (entries[present, 0] > size - length).any():
        raise damaged(path, "its index names impossible places")
    offsets = np.full(chunks, -1, dtype=np.int64)
    offsets[present] = entries[present, 0]
    return offsets


def damaged(path: Path, why: str) -> CacheError:
    """The screen for a shard whose content is not what was committed."""
    return CacheError(
        what="A file of the cache is damaged.",
        where=str(path),
        why=why,
        fix="`frame-cache verify CACHE` lists all damage, `frame-cache build CACHE` repairs it.",
    )
