"""An S3-compatible object store, by the same client as caches that are used in place.

So a cache that is pushed to ``s3://`` is one that ``frame-train --cache s3://…`` reads, with the same credentials, the
same retries and the same messages, and no second client has to be installed. An object is put whole and named at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from frame.pipeline.share.remote import BLOCK, Arrived, Held, Outgoing, RemoteError, changed, same_bytes, save
from frame.pipeline.store import bucket as requests
from frame.pipeline.store.objects import ObjectPath


class ObjectRemote:
    """See ``Remote``. The client tries again by itself; its screens are ``StoreError``."""

    most_files, most_bytes = 1, 1

    def __init__(self, root: ObjectPath, *, read_back: bool) -> None:
        self._root, self._read_back = root, read_back

    @property
    def address(self) -> str:
        """``s3://BUCKET/NAME``, which holds nothing secret."""
        return str(self._root)

    @property
    def checked(self) -> str:
        """How it is known that files arrived."""
        return "read back, sha256 compared" if self._read_back else "sizes alone were compared"

    def prepare(self, names: Iterable[str]) -> None:
        """There is nothing to make."""

    def listing(self) -> dict[str, Held]:
        """What is there now, by name."""
        start = len(self._root.key) + 1
        found = requests.sizes(self._root.bucket, self._root.key)
        return {key[start:]: Held(size=size) for key, size in sorted(found.items())}

    def read(self, name: str, *, most: int) -> bytes | None:
        """A small object's content, None if there is none."""
        path = self._root / name
        try:
            return path.read_bytes(most=most)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RemoteError(what=f"An object has more than {most:,} bytes.", where=str(path)) from error

    def fetch(self, name: str, tmp: Path, *, most: int) -> Arrived:
        """Bring an object into ``tmp``."""
        try:
            return save(self._blocks(self._root / name), tmp, most=most)
        except FileNotFoundError as error:
            raise RemoteError(what="An object is not there.", where=f"{self.address}/{name}") from error

    def right(self, file: Outgoing, held: Held) -> bool:
        """Is it there, and the same? Small ones are always read, whatever was chosen for large ones."""
        return held.size == file.size and self._same(file)

    def send(self, files: Sequence[Outgoing]) -> None:
        """Put them there one by one; one that arrives changed once more."""
        for file in files:
            data = file.content()  # compared with its sha256 before any of it is sent
            for _ in range(2):
                (self._root / file.name).write_bytes(data)
                if self._same(file):
                    break
            else:
                raise changed(file.name, self.address)

    def _same(self, file: Outgoing) -> bool:
        path = self._root / file.name
        try:
            return same_bytes(file, path.stat().st_size, self._blocks(path), read_back=self._read_back)
        except FileNotFoundError:
            return False

    @staticmethod
    def _blocks(path: ObjectPath) -> Iterator[bytes]:
        at, size = 0, path.stat().st_size
        while at < size and (block := requests.get_range(path.bucket, path.key, at, min(at + BLOCK, size))):
            yield block
            at += len(block)
