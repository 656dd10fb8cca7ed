"""What of a cache is pushed: the committed files, each with the sha256 that the cache itself names; nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from frame.pipeline.share.remote import Outgoing, outgoing
from frame.pipeline.store.card import card_bytes
from frame.pipeline.store.files import CacheError
from frame.pipeline.store.layout import CARD, INDEX, MAX_JSON, META, META_COPY, damage, parse_meta
from frame.pipeline.store.reader import Cache
from frame.pipeline.store.receipts import Receipt, parse_receipt, receipt_path
from frame.pipeline.store.regular import read_small
from frame.pipeline.store.stats import stats_name
from frame.pipeline.store.verify import Problem, UnitState, check_metadata, check_summaries, check_units


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A cache on a disk as it was found. ``plan``: the files that belong to no unit, in the order in which they are
    sent. ``units``: those that are committed. ``stats`` are empty until every unit is."""

    cache: Cache
    plan: tuple[Outgoing, ...]
    units: tuple[UnitState, ...]
    stats: tuple[Outgoing, ...]
    card: Outgoing

    @property
    def names(self) -> list[str]:
        """Of everything that is pushed."""
        receipts = [receipt_path(Path(), state.unit).as_posix() for state in self.units]
        data = [name for state in self.units for name in state.files]
        return [*(file.name for file in self._loose), *data, *receipts]

    @property
    def size(self) -> int:
        """Bytes of everything that is pushed."""
        total = 0
        for file in self._loose:
            total += file.size
        for state in self.units:
            total += state.bytes + receipt_path(self.cache.path, state.unit).stat().st_size
        return total

    @property
    def _loose(self) -> list[Outgoing]:
        return [*self.plan, *self.stats, self.card]


def look_at(cache: Cache) -> Source:
    """Find what is committed. Sizes are compared here, each file's sha256 when it is read.

    Raises ``CacheError``, naming files, where anything committed is missing, stale, or of another size; and for a
    cache that does not lie on a disk.
    """
    if not isinstance(cache.path, Path):
        raise CacheError(
            what="A cache is pushed from a disk.",
            where=str(cache.path),
            fix=f"`frame-cache pull {cache.path} FOLDER` first, or copy it from store to store with the store's tools.",
        )
    states = check_units(cache, cache.expected_units, deep=False)
    problems = [problem for state in states for problem in state.problems]
    committed = tuple(state for state in states if state.files)
    complete = not problems
    wrong = [*check_metadata(cache), *(problem for problem in problems if not problem.never_made)]
    if complete:
        # The card is made anew below, also for a cache of before there were cards.
        wrong += [problem for problem in check_summaries(cache) if problem.file != CARD]
    if wrong:
        raise _damaged(cache, wrong)
    taught = [column.name for column in cache.meta.columns.values() if column.teacher]
    return Source(
        cache=cache,
        plan=_plan(cache),
        units=committed,
        stats=tuple(_small(cache.path, stats_name(name)) for name in taught) if complete else (),
        card=outgoing(CARD, card_bytes(cache)),
    )


def unit_files(cache: Cache, unit: int) -> tuple[Receipt, Outgoing, Iterator[Outgoing]]:
    """A committed unit: its receipt, parsed and as a file, and the files that it names."""
    assert isinstance(cache.path, Path)
    path = receipt_path(cache.path, unit)
    name = receipt_path(Path(), unit).as_posix()
    file = _small(cache.path, name)
    assert file.data is not None
    receipt = parse_receipt(file.data, where=path, unit=unit, plan_id=cache.meta.plan_id)
    root = cache.path
    return (
        receipt,
        file,
        (
            Outgoing(name=name, size=entry.bytes, sha256=entry.sha256, path=root / name)
            for name, entry in receipt.files.items()
        ),
    )


def _plan(cache: Cache) -> tuple[Outgoing, ...]:
    """The plan's copy first, which tells the next push whose place it is; ``cache.json`` last: with it there is a
    cache. So whoever looks in between sees no more than of a build that has just begun."""
    root = cache.path
    assert isinstance(root, Path)
    meta = _small(root, META)
    assert meta.data is not None
    if parse_meta(meta.data, where=root / META) != cache.meta:
        raise damage(root / META, "it changed while it was looked at: another build is at work; try again")
    index = root / INDEX
    try:
        size = index.stat().st_size
    except OSError as error:
        raise damage(index, error.strerror or str(error)) from error
    return (
        outgoing(META_COPY, meta.data),
        *(_small(root, name, sha256=digest) for name, digest in cache.meta.metadata.items()),
        Outgoing(name=INDEX, size=size, sha256=cache.meta.index_sha256, path=index),
        meta,
    )


def _small(root: Path, name: str, *, sha256: str = "") -> Outgoing:
    try:
        file = outgoing(name, read_small(root / name, most=MAX_JSON))
    except OSError as error:
        raise damage(root / name, error.strerror or str(error)) from error
    if sha256 and file.sha256 != sha256:
        raise damage(root / name, "its content differs from its sha256")
    return file


def _damaged(cache: Cache, problems: list[Problem]) -> CacheError:
    first = "; ".join(f"{problem.file}: {problem.detail}" for problem in problems[:5])
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return CacheError(
        what="The cache is damaged, and a damaged cache is not pushed.",
        where=str(cache.path),
        why=first + more,
        fix="`frame-cache build CACHE` repairs it; `frame-cache verify CACHE` names everything.",
    )
