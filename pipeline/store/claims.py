"""Changing an object that others may be changing at the same time, without a lock.

A disk's lock goes when its holder dies. An object store has none that does, and nothing here needs one: a change is put
on the condition that the object is still what the change was made from, else it is made again from what is there now.
A put whose answer got lost may have been done all the same. Then, too, the object is read again; finding one's own work
there is success.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from frame.pipeline.store import bucket as requests
from frame.pipeline.store.objects import ObjectPath

_MOST_CONFLICTS = 1000  # each is another's success, so this is no contention but a server that makes no sense
_SPENT = "spent"
_NO_SUCH_TAG = '"00000000000000000000000000000000"'


def update(path: ObjectPath, change: Callable[[bytes | None], bytes]) -> bytes:
    """Make the object hold ``change(content)`` (None where there is none), as if nobody else changed it meanwhile; what
    it holds then. ``change`` may be called several times, and must leave alone what already has it."""
    tries = requests.pauses()
    next(tries)
    for _ in range(_MOST_CONFLICTS):
        old, tag = _current(path)
        new = change(old)
        if new == old:
            return new
        try:
            requests.put_if(path.bucket, path.key, new, e_tag=tag)
        except requests.Conflict:
            time.sleep(random.uniform(0, 0.02))
            continue
        except requests.Unanswered as error:
            if next(tries, _SPENT) == _SPENT:
                raise _given_up(path, str(error)) from error
            continue
        return new
    raise _given_up(path, "every put is said to conflict with another")


def claim(path: ObjectPath, data: bytes) -> bytes:
    """Make the object of ``data`` unless it is there; what it holds then."""
    return update(path, lambda old: data if old is None else old)


def require_conditions(path: ObjectPath) -> None:
    """Raise ``StoreError`` if the server takes puts whatever their condition. ``path`` is an object that is there; the
    two puts that must be refused would leave it as it is."""
    content, tag = _current(path)
    if content is None:
        return
    for condition in (None, _NO_SUCH_TAG):
        for _ in requests.pauses():
            try:
                requests.put_if(path.bucket, path.key, content, e_tag=condition)
            except requests.Conflict:
                break
            except requests.Unanswered:
                continue
            raise requests.unconditional(path.bucket, path.key)
    if not tag:
        raise requests.unconditional(path.bucket, path.key)


def _current(path: ObjectPath) -> tuple[bytes | None, str | None]:
    try:
        return requests.get(path.bucket, path.key)
    except FileNotFoundError:
        return None, None


def _given_up(path: ObjectPath, why: str) -> requests.StoreError:
    return requests.StoreError(
        what="The object store did not do what was asked.",
        where=str(path),
        why=why,
        fix="Check the server and the network, then run the same command again: what is finished is kept.",
    )
