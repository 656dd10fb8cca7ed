"""Fetching the files of a cache and comparing each with what the plan or a receipt says, before it gets its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from frame.pipeline.share.remote import (
    KEPT,
    Arrived,
    Held,
    Remote,
    RemoteError,
    changed,
    discard,
    outgoing,
)
from frame.pipeline.store import zarr_unit
from frame.pipeline.store.files import CacheError, ensure_durable, give_name, holds, sha256_bytes, sha256_file
from frame.pipeline.store.index import read_index, require_index_fits
from frame.pipeline.store.layout import INDEX, MAX_JSON, META, META_COPY, CacheMeta, parse_meta
from frame.pipeline.store.reader import MAX_INDEX
from frame.pipeline.store.receipts import FileEntry, Receipt, parse_receipt, receipt_path
from frame.pipeline.store.verify import file_names

_TRIES = 2  # of a file that arrives wrong


def require_plan(remote: Remote, held: Mapping[str, Held]) -> tuple[bytes, CacheMeta]:
    """``cache.json`` of the other place, as it lies there and parsed; read once more if it arrives damaged."""
    for left in reversed(range(_TRIES)):
        data = remote.read(META, most=MAX_JSON)
        if data is None:
            raise RemoteError(
                what="There is no cache there.",
                where=remote.address,
                why=f"{META} is missing; a push has begun, and not come that far"
                if META_COPY in held
                else f"{META} is missing",
                fix="Check the address, and with whoever pushed.",
            )
        try:
            return data, parse_meta(data, where=Path(META))
        except CacheError as error:
            if not left:
                raise RemoteError(
                    what="cache.json there cannot be used.",
                    where=f"{remote.address}/{META}",
                    why=error.why or error.what,
                    fix="Ask whoever shared it to push again, or use the release that made it.",
                ) from error
    raise AssertionError("the last try returns or raises")


@dataclass(kw_only=True, slots=True)
class Fetching:
    """One pull: from where, to where, what of, and what it has come to. ``fetched`` and ``there`` are bytes, a file
    each."""

    remote: Remote
    held: Mapping[str, Held]
    meta: CacheMeta
    root: Path
    tmp: Path
    tick: Callable[[int], None]
    fetched: list[int] = field(default_factory=list)
    there: list[int] = field(default_factory=list)

    def count(self, size: int) -> None:
        """A file has come."""
        self.fetched.append(size)
        self.tick(size)

    def keep(self, receipt: Receipt) -> None:
        """All files of a unit are here already."""
        for entry in receipt.files.values():
            self._skip(entry.bytes)

    def plan(self, data: bytes) -> None:
        """Write everything that belongs to no unit, ``cache.json`` (``data``) last: with it the cache is here."""
        files = {name: self._metadata(name, digest) for name, digest in self.meta.metadata.items()}
        for name, content in files.items():
            ensure_durable(self.root / name, content, tmp=self.tmp)
        self._index()
        known = holds(self.root / META, data)
        for name in (META_COPY, META):
            ensure_durable(self.root / name, data, tmp=self.tmp)
        self._skip(len(data)) if known else self.count(len(data))

    def receipt(self, unit: int, mine: bytes | None) -> tuple[Receipt, bytes]:
        """The receipt of ``unit`` there, parsed and as it lies there. ``mine``: the one here, which is not fetched
        again where the place itself says that it has the same."""
        path = receipt_path(Path(), unit)
        name = path.as_posix()
        if mine is not None and self.remote.right(outgoing(name, mine), self.held[name]):
            self._skip(len(mine))
            return self._parse(mine, unit), mine
        for left in reversed(range(_TRIES)):
            data = self.remote.read(name, most=MAX_JSON)
            try:
                receipt = self._parse(data or b"", unit)
            except CacheError as error:
                if not left:
                    raise RemoteError(
                        what="A receipt there cannot be used.",
                        where=f"{self.remote.address}/{name}",
                        why=error.why or error.what,
                        fix="Ask whoever shared it to push again: that repairs it.",
                    ) from error
                continue
            self.count(len(data or b""))
            return receipt, data or b""
        raise AssertionError("the last try returns or raises")

    def files(self, receipt: Receipt, wanted: Sequence[str]) -> None:
        """Fetch these files of a unit, and give each its name when it is right; the others count as there."""
        for name, entry in receipt.files.items():
            if name in wanted:
                self._fetch(name, entry)
            else:
                self._skip(entry.bytes)

    def _parse(self, data: bytes, unit: int) -> Receipt:
        path = receipt_path(Path(), unit)
        assert isinstance(path, Path)
        receipt = parse_receipt(data, where=path, unit=unit, plan_id=self.meta.plan_id)
        planned = {name for column in self.meta.columns.values() for name in file_names(self.meta, column, unit)}
        if strange := sorted(receipt.files.keys() - planned):
            raise RemoteError(
                what="A receipt there names a file that the plan does not have.",
                where=f"{self.remote.address}/{path.as_posix()}",
                why=f"{strange[0]:.200}: the cache there has grown since this command began, or is not one of ours",
                fix=f"So far {KEPT}",
            )
        for name, entry in receipt.files.items():
            if not 0 <= entry.bytes <= self._most():
                raise RemoteError(
                    what="A receipt there names a file that is larger than the plan allows.",
                    where=f"{self.remote.address}/{name}",
                    why=f"{entry.bytes:,} bytes, where a unit has at most {self._most():,}",
                    fix="Ask whoever shared it. Nothing of it was fetched.",
                )
        return receipt

    def _most(self) -> int:
        """Bytes that one file of a unit can have: twice its rows as they are stored, and what describes them. Packed
        and PNG-coded rows are smaller than plain ones, or a little larger."""
        rows = self.meta.rows_per_unit
        specs = list(self.meta.arrays().values())
        return (1 << 20) + rows * sum(2 * spec.row_bytes + 8192 for spec in specs)

    def _fetch(self, name: str, entry: FileEntry) -> None:
        came = self._arrived(name, entry.bytes, entry.sha256)
        give_name(came.path, self.root / name, tmp=self.tmp)
        self.count(entry.bytes)

    def _arrived(self, name: str, size: int | None, sha256: str, *, most: int = 0) -> Arrived:
        """A file under a temporary name, of this size (None: of at most ``most`` bytes) and sha256."""
        if name not in self.held:
            raise RemoteError(
                what="A file is not there, though the plan or a receipt names it.",
                where=f"{self.remote.address}/{name}",
                fix=f"Ask whoever shared it to push again. So far {KEPT}",
            )
        for _ in range(_TRIES):
            came = self.remote.fetch(name, self.tmp, most=most if size is None else size)
            if came.sha256 == sha256 and size in (None, came.size):
                return came
            discard(came.path)
        raise changed(name, self.remote.address)

    def _metadata(self, name: str, digest: str) -> bytes:
        """Zarr metadata: the bytes that the plan names, and such as describe the plan's arrays."""
        here = self.root / name
        if _same(here, digest):
            self._skip(here.stat().st_size)
            return here.read_bytes()
        for _ in range(_TRIES):
            data = self.remote.read(name, most=MAX_JSON)
            if data is not None and sha256_bytes(data) == digest:
                break
        else:
            raise changed(name, self.remote.address)
        spec = self.meta.arrays().get(name.removesuffix("/zarr.json"))
        rows, size = self.meta.rows, self.meta.rows_per_unit
        if spec is not None and not zarr_unit.describes(data, spec, rows=rows, rows_per_unit=size):
            raise RemoteError(
                what="Zarr metadata there describe another array, or another encoding.",
                where=f"{self.remote.address}/{name}",
                fix="Ask whoever shared it: no program of ours wrote it.",
            )
        self.count(len(data))
        return data

    def _index(self) -> None:
        target = self.root / INDEX
        if _same(target, self.meta.index_sha256):
            self._skip(target.stat().st_size)
            return
        came = self._arrived(INDEX, None, self.meta.index_sha256, most=MAX_INDEX)
        try:
            table = read_index(came.path.read_bytes())
            require_index_fits(table, rows=self.meta.rows, rows_per_unit=self.meta.rows_per_unit)
        except ValueError as error:
            discard(came.path)
            raise RemoteError(
                what="The index there cannot be used.",
                where=f"{self.remote.address}/{INDEX}",
                why=f"no program of ours wrote it: {error}",
                fix="Ask whoever shared it.",
            ) from error
        give_name(came.path, target, tmp=self.tmp)
        self.count(came.size)

    def _skip(self, size: int) -> None:
        self.there.append(size)
        self.tick(size)


def _same(path: Path, digest: str) -> bool:
    try:
        return sha256_file(path) == digest
    except OSError:
        return False
