"""How the levels of a ``residual`` column are packed: differences in time, without loss, in a stock Blosc buffer.

Levels are integers, so a difference between two frames is exact, and a running sum of differences has no drift: to take
the difference of rounded values *is* the closed loop of video codecs, which predict from the decoded frame before.

A chunk of levels int16 ``[rows, *shape]`` is stored as ``(difference to the row before + 128) mod 2^16``, uint16; the
row before the first is zero. Whatever int16 holds comes back, nothing is ever clipped; what is small, as nearly
everything is, leaves the high bytes zero, and Blosc's shuffle puts them aside. Its zstd is at level 1 for a reason:
from level 3 on it looks for repetitions, finds a few by accident among numbers that are noise, and its output is six
per cent larger than that of plain Huffman coding (docs/encoding.md has the measurements).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from numcodecs import blosc

CNAME: Literal["zstd"] = "zstd"
LEVEL = 1
SHUFFLE: Literal["shuffle"] = "shuffle"
ZERO = 128  # what "the same as the row before" is stored as
# Blosc begins each block anew, which takes zstd some 15 us, a third of the time that 75 kB take; in larger blocks
# frames that moved and frames that did not share a code.
_LEAST_BLOCK, _MOST_BLOCK = 1 << 18, 1 << 24
HEADER_BYTES = 16
_HEADER = struct.Struct("<4B3I")  # two versions, flags, item size; bytes, bytes of a block, packed bytes
_MEMCPYED = 2  # a flag: nothing could be saved, there are no blocks


def block_bytes(row_bytes: int) -> int:
    """Bytes of one of Blosc's blocks, whole rows: what is unpacked at least, whoever asks."""
    return min(row_bytes * -(-_LEAST_BLOCK // row_bytes), _MOST_BLOCK)


def pack(chunks: Sequence[np.ndarray]) -> list[bytes]:
    """Each chunk of levels, int16 ``[rows, *shape]``, packed. The same levels give the same bytes."""
    # Off the main thread numcodecs uses one thread for a buffer; with several, blocks lie in the order in which they
    # happened to be done.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return list(pool.map(_pack, chunks))


def _pack(levels: np.ndarray) -> bytes:
    stored = np.ascontiguousarray(levels).view(np.uint16) + np.uint16(ZERO)
    stored[1:] -= levels[:-1].view(np.uint16)
    block = block_bytes(stored[0].nbytes)
    return bytes(blosc.compress(stored, CNAME.encode(), LEVEL, blosc.SHUFFLE, block))


def most_bytes(raw: int) -> int:
    """Bytes that ``raw`` bytes are packed into at most: where nothing can be saved, Blosc stores them as they are."""
    return raw + int(blosc.MAX_OVERHEAD)


def packed_rows(header: bytes, *, size: int, row_bytes: int) -> int:
    """How many rows of ``row_bytes`` a packed chunk of ``size`` bytes holds, by its first ``HEADER_BYTES``. Raises
    ``ValueError`` for anything but a packed chunk."""
    if len(header) != HEADER_BYTES:
        raise ValueError("it is too short for a packed chunk")
    *_, item, raw, _, packed = _HEADER.unpack(header)
    if item != 2 or packed != size or not raw or raw % row_bytes:
        raise ValueError("its header is not that of a packed chunk")
    return int(raw) // row_bytes


def unpack(data: np.ndarray, out: np.ndarray) -> np.ndarray:
    """The first levels, int16 ``[n, *shape]``, of a packed chunk uint8 ``[bytes]`` of ``n`` rows or more, in the memory
    of ``out``, uint16 ``[n, *shape]``. Raises ``ValueError`` for anything but a packed chunk."""
    rows = packed_rows(data[:HEADER_BYTES].tobytes(), size=len(data), row_bytes=out[0].nbytes)
    if rows < len(out):
        raise ValueError(f"it holds {rows} rows where {len(out)} were promised")
    flat = out.reshape(len(out), -1)
    cut = _prefix(data, flat.nbytes)
    held = _HEADER.unpack(cut[: _HEADER.size].tobytes())[4]
    whole = flat if held == flat.nbytes else np.empty(held // flat.itemsize, dtype=np.uint16)
    try:
        blosc.decompress(cut, whole)
    except RuntimeError as error:
        raise ValueError(f"it cannot be unpacked: {error}") from None
    if whole is not flat:
        flat[...] = whole[: flat.size].reshape(flat.shape)
    flat -= ZERO
    for before, row in itertools.pairwise(flat):
        row += before
    return out.view(np.int16)


def _prefix(data: np.ndarray, wanted: int) -> np.ndarray:
    """The Blosc buffer of the blocks that hold the first ``wanted`` bytes: unpacking is what reading takes its time
    for, and the last rows of a chunk are mostly not asked for.

    Behind the header stands where each block begins; one whose blocks lie in another order is left whole.
    """
    *kinds, raw, block, size = _HEADER.unpack(data[: _HEADER.size].tobytes())
    count, kept = -(-raw // max(block, 1)), -(-wanted // max(block, 1))
    end = _HEADER.size + 4 * count
    if kept >= count or kinds[2] & _MEMCPYED or raw % block or end > len(data):
        return data
    starts = data[_HEADER.size : end].view("<u4").astype(np.int64)
    if (np.diff(starts) <= 0).any() or starts[0] != end or starts[-1] >= size:
        return data
    removed, stop = 4 * (count - kept), int(starts[kept])
    header = _HEADER.pack(*kinds, kept * block, block, stop - removed)
    head = header + (starts[:kept] - removed).astype("<u4").tobytes()
    return np.concatenate([np.frombuffer(head, dtype=np.uint8), data[end:stop]])
