"""A place that fsspec reaches: ``sftp://``, ``gs://``, ``file://``, whatever driver is installed.

File systems that can rename get each file under ``NAME.part``, read back there, then renamed: under its own name it
never stands half-written or changed. Object stores cannot rename; their drivers name an object when all of it is there,
so it is put whole, under its own name, and read back there. Which one a driver is is taken from whether it has a way
of its own to move a file. (``memory://`` has none, and shows a file while it is written; it serves tests.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from frame.pipeline.share.remote import BLOCK, Arrived, Held, Outgoing, RemoteError, changed, same_bytes, save
from frame.pipeline.share.retry import is_final, patiently, unreachable

if TYPE_CHECKING:
    from pathlib import Path

_Result = TypeVar("_Result")

PART = ".part"
"""What the name of a file ends with that is on its way."""


class FsspecRemote:
    """See ``Remote``. ``root`` is the folder's name as the file system ``fs`` spells it."""

    most_files, most_bytes = 1, 1  # each file arrives by itself

    def __init__(self, fs: Any, root: str, *, address: str, read_back: bool) -> None:
        self._fs, self._root, self._address, self._read_back = fs, root.rstrip("/"), address, read_back
        self._renames = _has_own(fs, "mv")

    @property
    def address(self) -> str:
        """The URL, without a password."""
        return self._address

    @property
    def checked(self) -> str:
        """How it is known that files arrived."""
        return "read back, sha256 compared" if self._read_back else "sizes alone were compared"

    def prepare(self, names: Iterable[str]) -> None:
        """Folders are made as files come."""

    def listing(self) -> dict[str, Held]:
        """What is there now, by name; nothing if the folder is not there yet."""
        found = self._asked(self._address, self._find)
        if any(path == self._root for path in found):
            raise RemoteError(what="This is a file, where a folder should be.", where=self._address)
        start = len(self._root) + 1
        return {path[start:]: Held(size=size) for path, size in sorted(found.items())}

    def read(self, name: str, *, most: int) -> bytes | None:
        """A small file's content, None if there is none."""

        def whole() -> bytes | None:
            data = b""
            try:
                with self._fs.open(self._path(name), "rb") as file:
                    while len(data) <= most and (block := file.read(min(BLOCK, most + 1 - len(data)))):
                        data += block
            except FileNotFoundError:
                return None
            return data

        data = self._asked(self._where(name), whole)
        if data is not None and len(data) > most:
            raise RemoteError(what=f"A file has more than {most:,} bytes.", where=self._where(name))
        return data

    def fetch(self, name: str, tmp: Path, *, most: int) -> Arrived:
        """Bring a file into ``tmp``."""
        return self._asked(self._where(name), lambda: save(self._blocks(self._path(name)), tmp, most=most))

    def right(self, file: Outgoing, held: Held) -> bool:
        """Is it there, and the same? Small files are always read, whatever was chosen for large ones."""
        if held.size is not None and held.size != file.size:
            return False
        return self._asked(self._where(file.name), lambda: self._same(self._path(file.name), file))

    def send(self, files: Sequence[Outgoing]) -> None:
        """Put them there one by one. A file that arrives changed is sent once more."""
        for file in files:
            if not any(self._asked(self._where(file.name), partial(self._put, file)) for _ in range(2)):
                raise changed(file.name, self._address)

    def _put(self, file: Outgoing) -> bool:
        """Send a file; is it there, and right?"""
        path = self._path(file.name)
        if not self._renames:
            self._fs.pipe_file(path, file.content())  # compared with its sha256 before any of it is sent
            return self._same(path, file)
        part = path + PART
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        with self._fs.open(part, "wb") as out:
            for block in file.blocks():
                out.write(block)
        if not self._same(part, file):
            return False
        self._fs.mv(part, path)
        return True

    def _same(self, path: str, file: Outgoing) -> bool:
        self._fs.invalidate_cache()
        try:
            size = self._fs.info(path)["size"]
            return same_bytes(file, size, self._blocks(path), read_back=self._read_back)
        except FileNotFoundError:
            return False

    def _blocks(self, path: str) -> Iterator[bytes]:
        with self._fs.open(path, "rb") as file:
            while block := file.read(BLOCK):
                yield bytes(block)

    def _find(self) -> dict[str, int | None]:
        """Path -> bytes of every file below the root."""
        self._fs.invalidate_cache()
        try:
            self._fs.info(self._root)
        except FileNotFoundError:
            return {}
        try:
            # Few requests where the driver lists by itself; fsspec's own passes over folders that it cannot list.
            found = self._fs.find(self._root, detail=True) if _has_own(self._fs, "find") else dict(self._walk())
        except FileNotFoundError as error:
            raise InterruptedError(f"a folder went away while it was listed: {error}") from error
        return {self._fs._strip_protocol(path): info.get("size") for path, info in found.items()}

    def _walk(self) -> Iterator[tuple[str, dict[str, Any]]]:
        folders = [self._root]
        while folders:
            folder = folders.pop()
            for info in self._fs.ls(folder, detail=True):
                path = self._fs._strip_protocol(info["name"])
                if info["type"] != "directory":
                    yield path, info
                elif path.startswith(f"{folder}/"):
                    folders.append(path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _where(self, name: str) -> str:
        return f"{self._address}/{name}"

    def _asked(self, where: str, action: Callable[[], _Result]) -> _Result:
        return patiently(action, final=is_final, failure=lambda error: unreachable(error, where))


def _has_own(fs: Any, method: str) -> bool:
    """Has the driver this method of its own, or does it come from fsspec's base?"""
    kind = type(fs)
    own = getattr(kind, method) is not getattr(AbstractFileSystem, method)
    behind = getattr(kind, f"_{method}", None)
    return own or (behind is not None and behind is not getattr(AsyncFileSystem, f"_{method}", None))


def open_fsspec(url: str, *, address: str, read_back: bool) -> FsspecRemote:
    """The place at ``url``. Raises ``RemoteError`` where no driver for it is installed, or it takes no such URL."""
    import fsspec

    scheme = url.partition("://")[0]
    try:
        fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    except ImportError as error:
        raise RemoteError(
            what=f"The driver for {scheme}:// is not installed.",
            where=address,
            why=str(error) or f"fsspec finds no package for {scheme}://",
            fix="Install that package beside this one, with pip or whatever installed it.",
        ) from None
    except Exception as error:  # drivers raise what they like about a URL, a missing setting, or a server
        known = f"fsspec knows no {scheme}://" if "not known" in str(error) else ""
        secret = urlsplit(url).password
        failed = unreachable(error, address)
        why = known or (failed.why.replace(secret, "…") if secret else failed.why)
        raise RemoteError(what="This place cannot be opened.", where=address, why=why, fix=_URLS) from None
    if not root.strip("/"):
        raise RemoteError(what="This names no folder.", where=address, fix="Give a folder of its own for the cache.")
    return FsspecRemote(fs, root, address=address, read_back=read_back)


_URLS = "Give hf://datasets/USER/NAME, s3://BUCKET/NAME, file:///FOLDER, or a URL of an installed fsspec driver."
