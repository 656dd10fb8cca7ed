"""One unit as a tar file in WebDataset's layout: one sample a clip.

``KEY.json`` says which clip and which of its frames these are, ``KEY.0000.png`` … are its pictures (PNG, because a
cache must come back from an export exactly as it went in), ``KEY.<array>.npy`` its features, or
``KEY.<array>.0000.blosc`` … packed chunks of them (see ``packing``). webdataset writes the file, with fixed owner and
time, so that the same samples give the same bytes.
"""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np
from PIL import Image

from frame.pipeline.store import packing
from frame.pipeline.store.columns import FRAMES
from frame.pipeline.store.layout import canonical


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The rows of one clip in one unit. ``arrays`` maps an array's name to ``[n_rows, ...]``; of those in ``packed``,
    so many rows at most are packed together."""

    key: str
    first_row: int
    info: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    packed: Mapping[str, int] = field(default_factory=dict)


def shard_name(unit: int, part: str) -> str:
    """The tar's path inside the cache: one a unit, and one more for each teacher added later."""
    return f"shards/{unit:06d}.{part}.tar" if part else f"shards/{unit:06d}.tar"


def encode_tar(samples: Iterable[Sample]) -> tuple[bytes, dict[str, list[list[Any]]]]:
    """The tar's bytes, and where every array's rows lie in it (see ``FileEntry.members``)."""
    import webdataset  # it imports torch, for seconds, and readers need neither

    buffer = io.BytesIO()
    places: dict[str, _Place] = {}
    with webdataset.TarWriter(buffer, encoder=False, mtime=0, user="frame", group="frame", mode=0o644) as writer:
        for sample in samples:
            files = _files(sample)
            writer.write({"__key__": sample.key, **{suffix: data for suffix, (data, _) in files.items()}})
            places |= {f"{sample.key}.{suffix}": place for suffix, (_, place) in files.items() if place}
    members: dict[str, list[list[Any]]] = {}
    buffer.seek(0)
    with tarfile.open(fileobj=buffer, mode="r:") as tar:
        for member in tar.getmembers():
            if place := places.get(member.name):
                start = member.offset_data + place.header
                members.setdefault(place.array, []).append([place.row, start, place.bytes, place.checks])
    return buffer.getvalue(), members


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """What a member holds: rows from unit row ``row`` on, ``bytes`` long, ``header`` bytes into the member."""

    array: str
    row: int
    header: int
    bytes: int
    checks: list[int]


def _files(sample: Sample) -> dict[str, tuple[bytes, _Place | None]]:
    """Member suffix -> (content, what it holds); None for the JSON."""
    files: dict[str, tuple[bytes, _Place | None]] = {"json": (canonical(sample.info) + b"\n", None)}
    for name, values in sample.arrays.items():
        if name == FRAMES:
            files |= {f"{i:04d}.png": _picture(image, sample.first_row + i) for i, image in enumerate(values)}
        elif name in sample.packed:
            files |= _packed(name, values, sample.first_row, sample.packed[name])
        else:
            files[f"{name}.npy"] = _npy(name, np.ascontiguousarray(values), sample.first_row)
    return files


def _packed(name: str, levels: np.ndarray, row: int, most: int) -> dict[str, tuple[bytes, _Place | None]]:
    starts = range(0, len(levels), most)
    chunks = packing.pack([levels[start : start + most] for start in starts])
    return {
        f"{name}.{number:04d}.blosc": (
            data,
            _Place(array=name, row=row + start, header=0, bytes=len(data), checks=[google_crc32c.value(data)]),
        )
        for number, (start, data) in enumerate(zip(starts, chunks, strict=True))
    }


def _picture(image: np.ndarray, row: int) -> tuple[bytes, _Place]:
    data = encode_png(image)
    return data, _Place(array=FRAMES, row=row, header=0, bytes=len(data), checks=[google_crc32c.value(data)])


def _npy(name: str, values: np.ndarray, row: int) -> tuple[bytes, _Place]:
    out = io.BytesIO()
    np.save(out, values, allow_pickle=False)
    header = out.tell() - values.nbytes
    checks = [google_crc32c.value(frame.tobytes()) for frame in values]
    return out.getvalue(), _Place(array=name, row=row, header=header, bytes=values.nbytes, checks=checks)


def encode_png(image: np.ndarray) -> bytes:
    """A frame uint8 ``[H, W, 3]`` as PNG, at zlib's fastest level: decoded video barely compresses further."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="PNG", compress_level=1)
    return out.getvalue()


def decode_png(data: bytes | memoryview, shape: tuple[int, ...]) -> np.ndarray:
    """The frame uint8 ``shape`` in a PNG. Raises ``ValueError`` for any other picture."""
    height, width, _ = shape
    # Pillow warns of large pictures, or refuses them, when it opens them: what counts is what was promised.
    if data[1:4] == b"PNG" and data[16:24] != struct.pack(">II", width, height):
        raise ValueError(f"a picture of another size where {shape} was promised")
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.mode != "RGB" or (image.height, image.width, 3) != shape:
            raise ValueError(f"a picture of {image.width}x{image.height} {image.mode} where {shape} was promised")
        return np.asarray(image)
