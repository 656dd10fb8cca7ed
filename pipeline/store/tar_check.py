"""Does a tar hold what a cache's tar holds, and nothing else?

This package's reader goes by the receipt and never looks at a member's name. Others do: tar itself, which would make
links and devices, and webdataset, whose decoders unpickle. So ``verify`` names a tar with anything in it but the JSON,
the pictures and the arrays of its clips, whoever made the checksums fit.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from frame.pipeline.store import packing, regular
from frame.pipeline.store.columns import FRAMES, ArraySpec
from frame.pipeline.store.layout import MAX_JSON
from frame.pipeline.store.receipts import FileEntry

_BLOCK = 512
_MAX_PAX = 1 << 16  # of the header in front of a long name
_NUMBER = re.compile(rb" *([0-7]{1,11})[ \0]*")
_PAX_PATH = re.compile(rb"\d{1,6} path=([^\n\0]*)\n")
_NPY = re.compile(
    rb"\x93NUMPY\x01\0..\{'descr': '([|<]\w\d)', 'fortran_order': False, 'shape': \(([\d, ]{1,200})\), \} *\n",
    re.DOTALL,
)
_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PICTURE = re.compile(r"\d{4,9}\.png", re.ASCII)
_PACKED = re.compile(r"(.+)\.\d{4,9}\.blosc", re.ASCII)


def strange_member(path: Path, entry: FileEntry, specs: Mapping[str, ArraySpec], clips: Collection[str]) -> str:
    """What is wrong with the first member of the tar that has no place in it; "" where there is none.

    ``specs`` are the arrays that the tar may hold, ``clips`` those of its unit. Raises ``OSError``.
    """
    descriptor = os.open(path, regular.FLAGS)
    try:
        places = {(name, start): length for name, rows in entry.members.items() for _, start, length, _ in rows}
        seen: set[str] = set()
        for name, offset, size in _members(descriptor):
            suffixes = [name[at + 1 :] for at, letter in enumerate(name) if letter == "." and name[:at] in clips]
            fits = any(_fits(descriptor, suffix, offset, size, specs, places) for suffix in suffixes)
            if name in seen or not fits:
                return f"it holds {name!r:.200}, which no tar of a cache does, or holds it twice"
            seen.add(name)
    except ValueError as error:
        return str(error)
    finally:
        os.close(descriptor)
    return "it lacks what its receipt names" if places else ""


def _members(descriptor: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and bytes of every regular file in a tar. Python's own module follows sizes that lead nowhere or
    back, in releases that are still in use. Raises ``ValueError`` for any other kind of member."""
    at, long_name = 0, None
    while any(head := os.pread(descriptor, _BLOCK, at)):
        if len(head) < _BLOCK or _number(head[148:156]) != sum(head[:148]) + sum(head[156:]) + 8 * 32:
            raise ValueError(f"no member's header stands at byte {at:,}")
        size, kind, at = _number(head[124:136]), head[156:157], at + _BLOCK
        name = head[:100].rstrip(b"\0") if long_name is None else long_name
        if kind == b"x" and size <= _MAX_PAX and long_name is None:
            match = _PAX_PATH.fullmatch(os.pread(descriptor, size, at))
            if match is None:
                raise ValueError(f"the header before byte {at:,} says more than a name")
            long_name = match.group(1)
        elif kind == b"0" and not any(head[157:257]) and not any(head[345:500]):
            yield name.decode("utf-8", "replace"), at, size
            long_name = None
        else:
            raise ValueError(f"it holds {name!r:.200}, which is no plain file")
        at += -(-size // _BLOCK) * _BLOCK


def _number(field: bytes) -> int:
    match = _NUMBER.fullmatch(field)
    if match is None:
        raise ValueError("a member's size or checksum is no number")
    return int(match.group(1), 8)


def _fits(
    descriptor: int,
    suffix: str,
    offset: int,
    size: int,
    specs: Mapping[str, ArraySpec],
    places: dict[tuple[str, int], int],
) -> bool:
    """Is it a member that a tar has? Takes what it holds out of ``places``."""
    if suffix == "json":
        return size <= MAX_JSON
    if _PICTURE.fullmatch(suffix) and FRAMES in specs:
        head = os.pread(descriptor, 24, offset)
        height, width, _ = specs[FRAMES].shape
        return places.pop((FRAMES, offset), None) == size and head == _PNG + struct.pack(">II", width, height)
    if packed := _PACKED.fullmatch(suffix):
        return _fits_packed(descriptor, offset, size, specs.get(packed.group(1)), places)
    spec = specs.get(suffix.removesuffix(".npy")) if suffix.endswith(".npy") else None
    if spec is None or spec.steps:
        return False
    match = _NPY.match(os.pread(descriptor, min(size, 1024), offset))
    if match is None:
        return False
    kind, shape = match.group(1).decode(), tuple(int(n) for n in re.findall(rb"\d+", match.group(2)))
    length = places.pop((spec.name, offset + match.end()), None)
    expected = {"uint8": "|u1", "int8": "|i1", "float16": "<f2"}[spec.dtype]
    whole = length is not None and length == size - match.end() == shape[0] * spec.row_bytes
    return whole and kind == expected and shape[1:] == spec.shape


def _fits_packed(
    descriptor: int, offset: int, size: int, spec: ArraySpec | None, places: dict[tuple[str, int], int]
) -> bool:
    """Is it a packed chunk of the array, and no larger than one?"""
    if spec is None or not spec.steps or places.pop((spec.name, offset), None) != size:
        return False
    header = os.pread(descriptor, packing.HEADER_BYTES, offset)
    try:
        return packing.packed_rows(header, size=size, row_bytes=spec.row_bytes) <= spec.chunk_rows
    except ValueError:
        return False
