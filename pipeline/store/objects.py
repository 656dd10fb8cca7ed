"""A cache's place in an object store: what a ``Path`` is on a disk.

``ObjectPath`` has the part of ``pathlib``'s interface that the store uses, so that whatever joins names, reads whole
files and lists folders need not know where the cache lies. An object is put whole and named at once: there are no
temporary files, no folders and no locks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from frame.manifests.errors import InputError
from frame.pipeline.store import bucket as requests

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_KEY_PART = re.compile(r"[A-Za-z0-9!_.*'()=+ -]{1,255}")  # what every server and every tool spells alike
_HASH_BYTES = 16 << 20
_REQUESTS_AT_ONCE = 16

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What is known of an object without reading it."""

    st_size: int


@dataclass(frozen=True, order=True, slots=True)
class ObjectPath:
    """``s3://bucket/key``. It is a name only: whoever uses it asks the store through its own process's client."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.bucket, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> ObjectPath:
        """What would be the folder."""
        return ObjectPath(self.bucket, self.key.rpartition("/")[0])

    def absolute(self) -> ObjectPath:
        """Itself, like ``resolve`` and ``expanduser``: there is nothing that the name is relative to."""
        return self

    def resolve(self) -> ObjectPath:
        """Itself."""
        return self

    def expanduser(self) -> ObjectPath:
        """Itself."""
        return self

    def as_posix(self) -> str:
        """The whole name."""
        return str(self)

    def read_bytes(self, *, most: int | None = None) -> bytes:
        """The content. ``OSError`` if it has more than ``most`` bytes."""
        return requests.get(self.bucket, self.key, most=most)[0]

    def stat(self) -> ObjectStat:
        """The size."""
        return ObjectStat(st_size=requests.head(self.bucket, self.key))

    def is_file(self) -> bool:
        """Is there an object of this name?"""
        try:
            requests.head(self.bucket, self.key)
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Is there anything below this name?"""
        return bool(requests.children(self.bucket, self.key))

    def exists(self) -> bool:
        """Is there an object of this name, or anything below it?"""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[ObjectPath]:
        """What lies right below."""
        return (ObjectPath(self.bucket, key) for key in requests.children(self.bucket, self.key))

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there as soon as anything is in it."""

    def rmdir(self) -> None:
        """Nothing: a folder is gone as soon as nothing is in it."""

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object."""
        if not missing_ok:
            self.stat()
        requests.remove(self.bucket, self.key)

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Make the object hold ``data``, whole or not at all."""
        requests.put(self.bucket, self.key, data)


# Where a cache, or a file of one, lies.
StorePath = Path | ObjectPath


def store_path(text: str | StorePath) -> StorePath:
    """What a person named: ``s3://BUCKET/NAME``, or a folder. ``InputError`` for any other scheme."""
    if not isinstance(text, str):
        return text
    scheme = _SCHEME.match(text)
    if scheme is None:
        return Path(text)
    if scheme[0].lower() != "s3://":
        raise InputError(
            what=f"A cache cannot lie at {scheme[0]}…",
            where=_without_login(text),
            fix="Give a folder, or s3://BUCKET/NAME of an S3-compatible object store.",
        )
    bucket, _, key = text[len(scheme[0]) :].rstrip("/").partition("/")
    parts = key.split("/")
    fine = all(_KEY_PART.fullmatch(part) and part not in (".", "..") for part in parts)
    if not _BUCKET.fullmatch(bucket) or not fine:
        raise InputError(
            what="This is no name for a cache in an object store.",
            where=_without_login(text),
            why="it is s3://BUCKET/NAME, with as many /NAME as you like, of letters, digits and !_.*'()=+-",
            fix="Credentials and the server's address go into AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
            "AWS_ENDPOINT_URL.",
        )
    return ObjectPath(bucket, key)


def _without_login(text: str) -> str:
    """The address as it can be shown: somebody may have put a password or a signature into it."""
    return re.sub(r"[?#].*", "?…", re.sub(r"//[^/]*@", "//…@", text))


def names_below(root: StorePath) -> list[str]:
    """The names of all files of a cache's folder, relative to it, in order."""
    if isinstance(root, ObjectPath):
        return [key[len(root.key) + 1 :] for key in requests.listing(root.bucket, root.key)]
    return [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if not path.is_dir()]


def side_by_side(root: StorePath, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """``function`` of every item, in order; where each asks an object store, many of them at the same time."""
    if isinstance(root, Path):
        return [function(item) for item in items]
    with ThreadPoolExecutor(max_workers=_REQUESTS_AT_ONCE) as pool:
        return list(pool.map(function, items))


def sha256_object(path: ObjectPath) -> str:
    """Hexadecimal sha256 of the content, read in blocks."""
    digest, at, size = hashlib.sha256(), 0, path.stat().st_size
    while at < size:
        block = requests.get_range(path.bucket, path.key, at, min(at + _HASH_BYTES, size))
        if not block:
            break
        digest.update(block)
        at += len(block)
    return digest.hexdigest()
