"""Nine ways in which a video file comes back from a bad disk, a broken download or somebody's hands."""

from __future__ import annotations

import random
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]


def _flip(data: bytes, rng: random.Random, count: int = 1) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _block(data: bytes, rng: random.Random) -> tuple[int, int]:
    size = rng.choice((16, 512, 4096))
    start = rng.randrange(max(1, len(data) - size))
    return start, min(start + size, len(data))


def _zeroed(data: bytes, rng: random.Random) -> bytes:
    start, stop = _block(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def _removed(data: bytes, rng: random.Random) -> bytes:
    start, stop = _block(data, rng)
    return data[:start] + data[stop:]


def _doubled(data: bytes, rng: random.Random) -> bytes:
    start, stop = _block(data, rng)
    return data[:stop] + data[start:]


def _swapped(data: bytes, rng: random.Random) -> bytes:
    """Two neighbouring stretches exchanged: atoms, clusters, or parts of them."""
    first, second, third = sorted(rng.randrange(len(data)) for _ in range(3))
    return data[:first] + data[second:third] + data[first:second] + data[third:]


MUTATIONS: dict[str, Mutation] = {
    "one bit": _flip,
    "many bits": lambda data, rng: _flip(data, rng, 200),
    "cut": lambda data, rng: data[: rng.randrange(1, len(data))],
    "zeroed": _zeroed,
    "removed": _removed,
    "doubled": _doubled,
    "swapped": _swapped,
    "garbage ahead": lambda data, rng: rng.randbytes(rng.randrange(1, 64)) + data[64:],
    "garbage behind": lambda data, rng: data + rng.randbytes(4096),
}
