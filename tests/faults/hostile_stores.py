"""Caches made by somebody who knows the format and wishes its readers ill: every checksum in them fits."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from store_caches import Made

from frame.pipeline.store.files import sha256_bytes
from frame.pipeline.store.index import SCHEMA, index_bytes
from frame.pipeline.store.layout import FORMAT, canonical, sealed

LONG = 200 << 20
DEEP = b"[" * 100_000 + b"]" * 100_000


class Bomb:
    """Makes the file ``marker`` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, (str(self.marker), 0o777, True)


def marker(made: Made) -> Path:
    return made.path.parent / "code ran"


def long(path: Path) -> None:
    """A file of 200 MB that takes no room."""
    path.unlink()
    with path.open("wb") as file:
        file.truncate(LONG)


def link(path: Path, target: str | Path) -> None:
    path.unlink()
    path.symlink_to(target)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def seal_bytes(text: bytes) -> bytes:
    """The seal of a text that ``json.dumps`` would not write."""
    text = text.removesuffix(b"\n}")
    return text + b',\n "sha256": "' + sha256_bytes(text).encode() + b'"\n}\n'


def meta_json(made: Made, text: Callable[[bytes], bytes] = lambda text: text, **changes: Any) -> None:
    """Write both copies of cache.json with other values, and with the plan's digest of these."""
    value = {**json.loads(made.meta.to_bytes()), **changes}
    del value["sha256"]
    parts = [value[key] for key in ("dataset", "sampling", "geometry", "build")]
    basis = [FORMAT, value["store"], value["rows_per_unit"], value["rows"], value["index_sha256"], *parts]
    value["plan"] = sha256_bytes(canonical(basis))
    data = seal_bytes(text(json.dumps(value, indent=1).encode()))
    for name in ("cache.json", "cache.copy.json"):
        (made.path / name).unlink()
        (made.path / name).write_bytes(data)


def column(made: Made, **changes: Any) -> dict[str, Any]:
    """The columns with another shape, encoding or name for the first of the teachers'."""
    columns = json.loads(made.meta.to_bytes())["columns"]
    columns["dino.patch"] |= changes
    return dict(columns)


def receipt(made: Made, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the receipt of unit 0 and seal it."""
    path = made.path / "receipts/000000.json"
    value = json.loads(path.read_bytes())
    del value["sha256"]
    change(value)
    path.write_bytes(sealed(value))


def first_file(made: Made, part: str = "") -> str:
    """A file of unit 0, one whose name has ``part`` in it."""
    found = made.open().receipt(0)
    assert found is not None
    return next(name for name in sorted(found.files) if part in name and "later" not in name)


def replaced(made: Made, name: str, data: bytes, **entry: Any) -> None:
    """Another content for a file of unit 0, with a receipt that says so."""
    (made.path / name).write_bytes(data)
    receipt(made, lambda r: r["files"][name].update(bytes=len(data), sha256=sha256_bytes(data), **entry))


def other_name(made: Made, name: str) -> None:
    """A receipt that names a file of the machine's in the place of one of the cache's."""

    def change(value: dict[str, Any]) -> None:
        value["files"][name] = value["files"].pop(first_file(made))

    receipt(made, change)


def index(made: Made, data: bytes) -> None:
    (made.path / "index.parquet").write_bytes(data)
    meta_json(made, index_sha256=sha256_bytes(data))


def index_with(made: Made, name: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """The index with other values in one column."""
    at = SCHEMA.get_field_index(name)
    table = made.table.set_column(
        at, SCHEMA.field(at), [pa.array(change(made.table[name].to_pylist()), SCHEMA.types[at])]
    )
    index(made, index_bytes(table))


class Smuggled(pa.ExtensionType):  # type: ignore[misc]
    """Arrow calls this when it meets the type's name in a schema: where it is of those that unpickle, code runs."""

    target = Path()

    def __init__(self) -> None:
        super().__init__(pa.int64(), "smuggled")

    def __arrow_ext_serialize__(self) -> bytes:
        return pickle.dumps(Bomb(self.target))

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, data: bytes) -> Smuggled:
        pickle.loads(data)  # noqa: S301
        return cls()


def smuggled_type(made: Made) -> None:
    Smuggled.target = marker(made)
    with suppress(pa.ArrowKeyError):  # an earlier test has
        pa.register_extension_type(Smuggled())
    table = made.table.append_column("x", pa.ExtensionArray.from_storage(Smuggled(), pa.array([0] * len(made.table))))
    out = io.BytesIO()
    pq.write_table(table, out)
    pq.read_table(io.BytesIO(out.getvalue()))
    marker(made).rmdir()  # it does run where nobody looks first
    index(made, out.getvalue())


def expanding_index(made: Made) -> None:
    """A million times the same clip in some kilobytes."""
    count = 1_000_000
    values = {field.name: pa.nulls(count, field.type) for field in SCHEMA}
    values["clip"] = pa.DictionaryArray.from_arrays(pa.repeat(0, count).cast(pa.int32()), pa.array(["c" * 1000]))
    out = io.BytesIO()
    table = pa.table(values)
    pq.write_table(table, out, compression="zstd", store_schema=False)
    index(made, out.getvalue())


def tar_with(made: Made, add: Callable[[tarfile.TarFile], None]) -> None:
    """A member more in the tar of unit 0."""
    name = "shards/000000.tar"
    buffer = io.BytesIO((made.path / name).read_bytes())
    with tarfile.open(fileobj=buffer, mode="a:") as tar:
        add(tar)
    replaced(made, name, buffer.getvalue())


def member(name: str, data: bytes = b"", **values: Any) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for key, value in values.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(data))

    return add


def overlapping_rows(made: Made) -> None:
    """All rows of a tar in one place: a small file that says it is a large one."""
    name = "shards/000000.tar"

    def change(value: dict[str, Any]) -> None:
        places = value["files"][name]["members"]["clip.cls"]
        ((row, start, length, checks),) = places
        each = length // len(checks)
        places[:] = [[row + number, start, each, checks[:1]] for number in range(len(checks))]

    receipt(made, change)


def overlapping_chunks(made: Made) -> None:
    """All chunks of a shard in one place, with an index whose checksum fits."""
    name = first_file(made, "dino.patch/")
    data = bytearray((made.path / name).read_bytes())
    entries = np.frombuffer(bytes(data[-16 * 8 - 4 : -4]), "<u8").reshape(-1, 2).copy()
    present = entries[:, 0] != 2**64 - 1
    entries[present, 0] = entries[present, 0].min()
    tail = entries.tobytes()
    data[-16 * 8 - 4 :] = tail + struct.pack("<I", google_crc32c.value(tail))
    replaced(made, name, bytes(data))


def picture_bomb(made: Made) -> None:
    """A picture of a hundred million pixels where a small one was promised."""
    name = "shards/000000.tar"
    found = made.open().receipt(0)
    assert found is not None
    _, start, length, _ = found.files[name].members["frames"][0]
    data = bytearray((made.path / name).read_bytes())
    picture = data[start : start + length]
    picture[16:24] = struct.pack(">II", 10_000, 10_000)
    picture[29:33] = struct.pack(">I", zlib.crc32(picture[12:29]))
    data[start : start + length] = picture
    replaced(made, name, bytes(data))
    receipt(
        made, lambda r: r["files"][name]["members"]["frames"][0].__setitem__(3, [google_crc32c.value(bytes(picture))])
    )


def codec(made: Made) -> None:
    """Zarr metadata that have a stock reader decompress what it reads."""
    name = "dino.patch/zarr.json"
    value = json.loads((made.path / name).read_bytes())
    value["codecs"][0]["configuration"]["codecs"].append(
        {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    )
    data = json.dumps(value).encode()
    (made.path / name).write_bytes(data)
    meta_json(made, metadata={**made.meta.metadata, name: sha256_bytes(data)})


def pickled_array(made: Made) -> None:
    """An array of Python objects under a name that a cache has not."""
    out = io.BytesIO()
    np.save(out, np.array([Bomb(marker(made))], dtype=object), allow_pickle=True)
    tar_with(made, member("c1.more.npy", out.getvalue()))
