"""Sending a cache, or what has been added to it, to another place.

The order is that of a build: the plan, then unit by unit the data and behind it the receipt, statistics at the end. So
whoever reads or pulls there while this runs, or after it was killed, finds a cache that is not complete yet, and never
a receipt whose data are not there. What is there and right is not sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from frame.pipeline.share.growth import extends, plan_difference
from frame.pipeline.share.remote import Held, Outgoing, Remote, RemoteError, units_in
from frame.pipeline.share.source import Source, unit_files
from frame.pipeline.store.card import is_unedited
from frame.pipeline.store.files import CacheError
from frame.pipeline.store.layout import CARD, MAX_JSON, META, META_COPY, CacheMeta, parse_meta
from frame.pipeline.store.reader import Cache
from frame.pipeline.store.receipts import Receipt, parse_receipt, receipt_path

# What a new place may hold: a hub puts a list of file kinds into each repository, and a person a page about it.
_TOLERATED = (".gitattributes", CARD)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """What a push has done. ``card`` is ``sent``, ``there`` or ``kept`` (another one is there, and was left).
    ``checked`` says how it is known that files arrived."""

    units: int
    units_planned: int
    files_sent: int
    bytes_sent: int
    files_there: int
    bytes_there: int
    card: str
    checked: str


@dataclass(kw_only=True, slots=True)
class _Sending:
    """Files wait until there are enough for the place, then go in their order."""

    remote: Remote
    held: dict[str, Held]
    tick: Callable[[int], None]
    waiting: list[Outgoing] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    there: list[int] = field(default_factory=list)

    def has(self, file: Outgoing) -> bool:
        held = self.held.get(file.name)
        return held is not None and self.remote.right(file, held)

    def skip(self, file: Outgoing) -> None:
        self.there.append(file.size)
        self.tick(file.size)

    def add(self, file: Outgoing) -> None:
        bytes_waiting = sum(other.size for other in self.waiting)
        if self.waiting and bytes_waiting + file.size > self.remote.most_bytes:
            self.flush()
        self.waiting.append(file)
        if len(self.waiting) >= self.remote.most_files:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            self.remote.send(self.waiting)
            self.sent += [file.size for file in self.waiting]
            self.tick(sum(file.size for file in self.waiting))
            self.waiting = []


def push(source: Source, remote: Remote, *, tick: Callable[[int], None] = lambda _: None) -> Pushed:
    """Make ``remote`` hold what ``source`` has; ``tick`` counts bytes that are there.

    Raises ``CacheError``, naming the file, for damage here; ``RemoteError`` where the other place holds another cache,
    or other things, which are never overwritten, and where it fails. What has arrived by then stays: the next push goes
    on behind it.
    """
    remote.prepare(source.names)
    sending = _Sending(remote=remote, held=remote.listing(), tick=tick)
    _require_place(source, remote, sending.held)
    for file in source.plan:
        sending.skip(file) if sending.has(file) else sending.add(file)
    for state in source.units:
        for file in _wanted(source.cache, state.unit, sending):
            sending.add(file)
    for file in source.stats:
        sending.skip(file) if sending.has(file) else sending.add(file)
    card = _add_card(source, sending)
    sending.flush()
    return Pushed(
        units=len(source.units),
        units_planned=len(source.cache.expected_units),
        files_sent=len(sending.sent),
        bytes_sent=sum(sending.sent),
        files_there=len(sending.there),
        bytes_there=sum(sending.there),
        card=card,
        checked=remote.checked,
    )


def _wanted(cache: Cache, unit: int, sending: _Sending) -> Iterator[Outgoing]:
    """Files of a unit that are to be sent, its receipt last. Those that are there count as such."""
    receipt, file, data = unit_files(cache, unit)
    known = sending.has(file)
    if not known and file.name in sending.held:
        there = _receipt_there(cache, unit, sending.remote)
        if there is not None and not extends(there, receipt):
            raise RemoteError(
                what=f"Unit {unit} is there already, made by another build.",
                where=f"{sending.remote.address}/{file.name}",
                why="its files or columns differ from those here, though the plan is the same; nothing is overwritten",
                fix="Pull that cache and build on it, push to a new place, or remove the unit's receipt there.",
            )
    for item in data:
        if sending.has(item):
            sending.skip(item)
        else:
            yield item
    if known:
        sending.skip(file)
    else:
        yield file


def _receipt_there(cache: Cache, unit: int, remote: Remote) -> Receipt | None:
    """The receipt there; None if it is damaged and commits nothing, or has gone."""
    name = receipt_path(Path(), unit).as_posix()
    data = remote.read(name, most=MAX_JSON)
    try:
        return parse_receipt(data or b"", where=Path(name), unit=unit, plan_id=cache.meta.plan_id)
    except CacheError:
        return None


def _require_place(source: Source, remote: Remote, held: dict[str, Held]) -> None:
    """Raise ``RemoteError`` unless the place is free, or holds this cache, however little of it and however old."""
    found = [_plan_there(remote, name) for name in (META, META_COPY)]
    plans = [plan for plan in found if plan is not None]
    for plan in plans:
        if why := plan_difference(plan, source.cache.meta):
            raise RemoteError(
                what="The other place holds another cache.",
                where=remote.address,
                why=why,
                fix="Push to a new place; or pull that cache, and push what you have added to it.",
            )
    if plans:
        return
    others = [name for name in held if name not in _TOLERATED and not name.startswith(META_COPY)]
    if others or any(held_name == META_COPY for held_name in held):
        raise RemoteError(
            what="The other place holds something else.",
            where=remote.address,
            why=f"{(others or [META_COPY])[0]} is there, and no cache.json that can be read",
            fix="Push to a new or an empty place. Nothing there was touched.",
        )


def _plan_there(remote: Remote, name: str) -> CacheMeta | None:
    data = remote.read(name, most=MAX_JSON)
    try:
        return None if data is None else parse_meta(data, where=Path(name))
    except CacheError:
        return None  # damaged: the other copy tells whose place it is


def _add_card(source: Source, sending: _Sending) -> str:
    """``README.md``, unless somebody has written on the one there; an older one of ours gives way."""
    card = source.card
    if sending.has(card):
        sending.skip(card)
        return "there"
    there = sending.remote.read(CARD, most=MAX_JSON) if card.name in sending.held else None
    if there is not None and not is_unedited(there):
        return "kept"
    if there is not None and units_in(sending.held) - {state.unit for state in source.units}:
        return "there"  # it speaks of more than is here
    sending.add(card)
    return "sent"
