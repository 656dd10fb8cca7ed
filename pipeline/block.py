"""What moves between the stages of a build: one Arrow row a unit, all its arrays in one binary column.

One unit is one row all the way, so that no regrouping has to be trusted to bring a unit's frames together again, and a
retried task cannot mix them with another's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema([("unit", pa.int64()), ("header", pa.large_binary()), ("payload", pa.large_binary())])

ABOUT = "about:"  # arrays of this prefix say something of a segment; all others hold a row a frame

Failures = dict[str, tuple[str, str]]
"""Clip -> reason and detail, of those that failed on the way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A unit on its way: a JSON ``header`` and named ``arrays``."""

    unit: int
    header: dict[str, Any]
    arrays: dict[str, np.ndarray]


def pack(unit: int, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> pa.Table:
    """One row of Arrow. A single array is wrapped where it lies; several are joined once."""
    parts = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    places = {name: [str(value.dtype), list(value.shape)] for name, value in parts.items()}
    flat = [value.reshape(-1).view(np.uint8) for value in parts.values()]
    data = flat[0] if len(flat) == 1 else np.concatenate(flat or [np.empty(0, dtype=np.uint8)])
    head = json.dumps({"header": header, "arrays": places}).encode()
    columns = [pa.array([unit]), _binary(np.frombuffer(head, dtype=np.uint8)), _binary(data)]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def unpack(table: pa.Table) -> list[Block]:
    """The blocks of a table; arrays are read-only views into it."""
    rows = zip(
        table.column("unit").to_pylist(), _views(table.column("header")), _views(table.column("payload")), strict=True
    )
    return [_unpack_row(unit, header.tobytes(), payload) for unit, header, payload in rows]


def _unpack_row(unit: int, header: bytes, data: np.ndarray) -> Block:
    value = json.loads(header)
    arrays, offset = {}, 0
    for name, (dtype, shape) in value["arrays"].items():
        size = int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))
        arrays[name] = data[offset : offset + size].view(dtype).reshape(shape)
        offset += size
    return Block(unit=unit, header=value["header"], arrays=arrays)


def _views(column: pa.ChunkedArray) -> list[np.ndarray]:
    """The bytes of every row where they lie (Arrow's own scalars would copy hundreds of megabytes)."""
    found = []
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        edges = np.frombuffer(offsets, dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        flat = np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8)
        found += [flat[edges[i] : edges[i + 1]] for i in range(len(chunk))]
    return found


def _binary(data: np.ndarray) -> pa.Array:
    offsets = pa.py_buffer(np.array([0, len(data)], dtype=np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(data)])
