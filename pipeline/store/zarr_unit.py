"""One unit of one array as a Zarr v3 shard.

zarr-python writes the arrays' metadata; the shards themselves are laid out here, by the Zarr v3 sharding-indexed
specification: chunks in the order of their rows, each followed by its crc32c, then the index. zarr-python writes the
same bytes (a test compares them) several times slower, and its writer cannot leave out the rows of a failed clip.
What lands on the disk is a stock shard and reaches it whole, in one durable write.
"""

from __future__ import annotations

import asyncio
import json
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from frame.pipeline.store import packing
from frame.pipeline.store.columns import ArraySpec
from frame.pipeline.store.files import CacheError
from frame.pipeline.store.objects import StorePath

_MISSING = 2**64 - 1
_CRC = struct.Struct("<I")


def shard_name(spec: ArraySpec, unit: int) -> str:
    """The shard's path inside the cache."""
    return "/".join([spec.name, "c", str(unit), *("0" for _ in spec.shape)])


@lru_cache(maxsize=256)
def array_metadata(spec: ArraySpec, *, rows: int, rows_per_unit: int) -> bytes:
    """The ``zarr.json`` of an array, as zarr-python writes it."""
    store = MemoryStore()
    _create(store, spec, rows=rows, rows_per_unit=rows_per_unit)
    return _get(store, "zarr.json")


def describes(metadata: bytes, spec: ArraySpec, *, rows: int, rows_per_unit: int) -> bool:
    """Does a ``zarr.json`` describe this array in this encoding? Releases of zarr spell the rest differently."""
    keys: tuple[str, ...] = (
        "zarr_format",
        "node_type",
        "shape",
        "data_type",
        "chunk_grid",
        "chunk_key_encoding",
        "codecs",
    )
    keys += ("attributes",) if spec.steps else ()  # a stock reader takes the steps from there
    expected = json.loads(array_metadata(spec, rows=rows, rows_per_unit=rows_per_unit))
    try:
        found = json.loads(metadata)
        return all(found[key] == expected[key] for key in keys)
    except (ValueError, RecursionError, TypeError, KeyError):
        return False


def group_metadata() -> bytes:
    """The ``zarr.json`` of the cache's folder, so that ``zarr.open_group(CACHE)`` lists the arrays."""
    store = MemoryStore()
    zarr.create_group(store)
    return _get(store, "zarr.json")


def encode_shard(spec: ArraySpec, rows: np.ndarray, values: np.ndarray, *, rows_per_unit: int) -> memoryview:
    """The bytes of a shard in which unit row ``rows[i]`` holds ``values[i]`` and no other row was ever written.

    ``rows`` int64 ``[n]`` increasing, ``values`` ``[n, *spec.shape]`` of ``spec.dtype``. Without any row it is an
    index of missing chunks: a unit whose clips all failed has its files like any other.
    """
    chunks, blocks = _blocks(spec, rows, values)
    payloads: list[Any] = packing.pack(list(blocks)) if spec.steps else list(_bytes_of(blocks))
    lengths = np.array([len(payload) + _CRC.size for payload in payloads], dtype=np.int64)
    ends = np.cumsum(lengths)
    offsets = ends - lengths
    body = int(lengths.sum())
    shard = np.empty(body + index_bytes(spec, rows_per_unit), dtype=np.uint8)
    for payload, start, end in zip(payloads, offsets.tolist(), ends.tolist(), strict=True):
        shard[start : end - _CRC.size] = np.frombuffer(payload, dtype=np.uint8)
        shard[end - _CRC.size : end] = np.frombuffer(_CRC.pack(google_crc32c.value(payload)), dtype=np.uint8)
    index = np.full((rows_per_unit // spec.chunk_rows, 2), _MISSING, dtype="<u8")
    index[chunks, 0] = offsets
    index[chunks, 1] = lengths
    tail = index.tobytes()
    shard[body:] = np.frombuffer(tail + _CRC.pack(google_crc32c.value(tail)), dtype=np.uint8)
    return shard.data


def _blocks(spec: ArraySpec, rows: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the chunks that hold any row, and their contents ``[chunks, chunk_rows, *shape]``."""
    chunks, at = np.unique(rows // spec.chunk_rows, return_inverse=True)
    full = values
    if len(rows) != len(chunks) * spec.chunk_rows:
        places = at * spec.chunk_rows + rows % spec.chunk_rows
        full = np.full((len(chunks) * spec.chunk_rows, *spec.shape), spec.fill, dtype=spec.dtype)
        full[places] = values
        if spec.steps:
            _repeat(full.reshape(len(chunks), spec.chunk_rows, -1), places)
    return chunks, np.ascontiguousarray(full).reshape(len(chunks), spec.chunk_rows, *spec.shape)


def _repeat(chunks: np.ndarray, places: np.ndarray) -> None:
    """Let a row that holds no frame be the one before it in its chunk: packed, it takes nothing."""
    missing = np.ones(chunks.shape[:2], dtype=bool)
    missing.reshape(-1)[places] = False
    for chunk, row in np.argwhere(missing[:, 1:]).tolist():
        chunks[chunk, row + 1] = chunks[chunk, row]


def _bytes_of(blocks: np.ndarray) -> np.ndarray:
    return blocks.reshape(-1).view(np.uint8).reshape(len(blocks), -1) if len(blocks) else np.empty((0, 0), np.uint8)


def index_bytes(spec: ArraySpec, rows_per_unit: int) -> int:
    """Length of the index at a shard's end: offset and length of every chunk, and their crc32c."""
    return 16 * (rows_per_unit // spec.chunk_rows) + _CRC.size


def _create(store: MemoryStore, spec: ArraySpec, *, rows: int, rows_per_unit: int) -> zarr.Array[Any]:
    return zarr.create_array(
        store,
        shape=(rows, *spec.shape),
        shards=(rows_per_unit, *spec.shape),
        chunks=(spec.chunk_rows, *spec.shape),
        dtype="uint16" if spec.steps else spec.dtype,
        fill_value=packing.ZERO if spec.steps else spec.fill,
        # Features do not compress (float16 by a few per cent), and an uncompressed chunk can neither be a
        # decompression bomb nor cost reading time. Differences in time do. The checksum turns a silent bit flip into
        # an error.
        compressors=[*([_blosc(spec)] if spec.steps else []), Crc32cCodec()],
        filters=None,
        attributes={"encoding": "residual", **spec.steps.to_json()} if spec.steps else None,
        # An all-zero chunk must be told from one that is missing.
        config={"write_empty_chunks": True},
    )


def _blosc(spec: ArraySpec) -> BloscCodec:
    return BloscCodec(
        typesize=2,
        cname=packing.CNAME,
        clevel=packing.LEVEL,
        shuffle=packing.SHUFFLE,
        blocksize=packing.block_bytes(spec.row_bytes),
    )


def _get(store: MemoryStore, key: str) -> bytes:
    value = asyncio.run(store.get(key, default_buffer_prototype()))
    if value is None:
        raise AssertionError(f"zarr wrote no {key}")
    return value.to_bytes()


def locate(spec: ArraySpec, index: bytes, path: StorePath, *, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Byte offset and length, without its checksum, of every chunk of a shard, int64 ``[chunks]``; offset -1 and length
    0 for a chunk that was never written.

    ``index`` are the last ``index_bytes`` of the shard ``path``, ``size`` is the shard's length. Raises
    ``CacheError`` when the index is damaged.
    """
    if google_crc32c.value(index[:-4]) != _CRC.unpack(index[-4:])[0]:
        raise damaged(path, "its index is not intact")
    entries = np.frombuffer(index[:-4], dtype="<u8").reshape(-1, 2)
    present = entries[:, 0] != _MISSING
    starts, lengths = (entries[present, i].astype(np.float64) for i in (0, 1))  # no sum of them runs over
    stored = spec.row_bytes * spec.chunk_rows
    least, most = (1, packing.most_bytes(stored)) if spec.steps else (stored, stored)
    fits = (lengths >= least + 4) & (lengths <= most + 4) & (starts + lengths <= size - len(index))
    if not fits.all():
        raise damaged(path, "its index names impossible places")
    found = np.full((2, len(entries)), [[-1], [0]], dtype=np.int64)
    found[:, present] = entries[present].T.astype(np.int64) - [[0], [4]]
    return found[0], found[1]


def chunk_checks(spec: ArraySpec, shard: bytes | memoryview, *, rows_per_unit: int) -> list[int]:
    """The crc32c behind every chunk of a shard, 0 for one that was never written. Receipts keep them, because a shard
    that carries its own checksums still passes for another unit's of the same size."""
    index = bytes(shard[-index_bytes(spec, rows_per_unit) :])
    offsets, lengths = locate(spec, index, Path(), size=len(shard))
    ends = (offsets + lengths).tolist()
    return [0 if end < 0 else _CRC.unpack(shard[end : end + 4])[0] for end in ends]


def damaged(path: StorePath, why: str) -> CacheError:
    """The screen for a shard whose content is not what was committed."""
    return CacheError(
        what="A file of the cache is damaged.",
        where=str(path),
        why=why,
        fix="`frame-cache verify CACHE` lists all damage, `frame-cache build CACHE` repairs it.",
    )
