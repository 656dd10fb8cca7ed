"""Requests to an S3-compatible object store, one function each, and what is said when one fails for good.

Where the server is and who asks is read from the environment by the client (``AWS_ENDPOINT_URL``, ``AWS_REGION``,
``AWS_ACCESS_KEY_ID``, …). None of it is kept, and no message holds any of it but the address.
"""

from __future__ import annotations

import errno
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from frame.manifests.errors import InputError

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import RetryConfig, S3Store

_Result = TypeVar("_Result")

# Resets and answers of 5xx are waited out for about a minute: long enough for a server that starts again.
RETRIES: RetryConfig = {
    "max_retries": 10,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=15), "base": 2},
    "retry_timeout": timedelta(minutes=3),
}
# Of one whole request: the client's own half a minute is too short for a large unit on a slow line.
_TIMEOUTS = {"timeout": "10 minutes", "connect_timeout": "10 seconds"}
_GIVEN_UP = re.compile(r"after (\d+) retries, max_retries: (\d+)")
_STATUS = re.compile(r"status code: (\d{3})[^:\n]*")
_DETAIL = re.compile(r"<(Code|Message)>([^<]{1,300})</\1>")
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN")

_clients: dict[str, S3Store] = {}
_owner = 0


class StoreError(InputError):
    """The object store did not answer, or refused. It says nothing about the state of the cache in it, so it is no
    ``CacheError``: what cannot be looked at is not damaged."""


class Conflict(Exception):  # noqa: N818 - it is an answer, which the caller looks into
    """A conditional put found something else there than it was told to, which may be its own lost first try."""


class TooLarge(OSError):  # noqa: N818 - as above
    """The object is longer than what stands there can be."""


class Unanswered(Exception):  # noqa: N818 - as above
    """A conditional put broke off, and nobody knows whether it was done."""


def head(bucket: str, key: str) -> int:
    """The object's size. ``FileNotFoundError`` if there is none, as from all of these."""
    import obstore

    return int(_asked(bucket, key, lambda: obstore.head(_client(bucket), key)["size"]))


def get(bucket: str, key: str, *, most: int | None = None) -> tuple[bytes, str]:
    """The object's content and its e-tag. ``OSError``, before any of it is read, if it has more than ``most`` bytes."""
    import obstore

    def whole() -> tuple[bytes, str]:
        result = obstore.get(_client(bucket), key)
        if most is not None and result.meta["size"] > most:
            raise TooLarge(errno.EFBIG, f"it has {result.meta['size']:,} bytes, and may have {most:,}")
        return bytes(result.bytes()), result.meta["e_tag"] or ""

    return _asked(bucket, key, whole)


def get_range(bucket: str, key: str, start: int, stop: int) -> bytes:
    """Bytes ``[start, stop)`` of the object, fewer where it ends before."""
    import obstore

    if start >= stop:
        return b""
    return _asked(bucket, key, lambda: bytes(obstore.get_range(_client(bucket), key, start=start, end=stop)), short=b"")


def put(bucket: str, key: str, data: bytes | memoryview) -> None:
    """Make the object hold ``data``, whole or not at all, whatever it held before."""
    import obstore

    # Uploads in parts leave invisible, paid-for parts behind when they are killed.
    _asked(bucket, key, lambda: obstore.put(_client(bucket), key, data, use_multipart=False))


def put_if(bucket: str, key: str, data: bytes, *, e_tag: str | None) -> None:
    """``put`` if the object still has this e-tag, or, for None, if there is none. Tried once: a second try would not
    know the first one's work from somebody else's. Raises ``Conflict`` or ``Unanswered``."""
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError

    mode: PutMode = "create" if e_tag is None else {"e_tag": e_tag}
    try:
        obstore.put(_client(bucket), key, data, mode=mode, use_multipart=False)
    except (AlreadyExistsError, PreconditionError) as error:
        raise Conflict from error
    except (NotSupportedError, NotImplementedError) as error:
        raise unconditional(bucket, key) from error
    except (BaseError, OSError) as error:
        if _status(error) == 501:
            raise unconditional(bucket, key) from error
        if _passing(error):
            raise Unanswered(_why(error)) from error
        raise _failure(bucket, key, error) from error


def remove(bucket: str, key: str) -> None:
    """Remove the object, if it is there."""
    import obstore

    _asked(bucket, key, lambda: obstore.delete(_client(bucket), key))


def listing(bucket: str, key: str) -> list[str]:
    """The keys of all objects below ``key``, in order."""
    import obstore

    return _asked(
        bucket, key, lambda: sorted(item["path"] for page in obstore.list(_client(bucket), key) for item in page)
    )


def sizes(bucket: str, key: str) -> dict[str, int]:
    """Key -> bytes of all objects below ``key``."""
    import obstore

    return _asked(
        bucket,
        key,
        lambda: {item["path"]: item["size"] for page in obstore.list(_client(bucket), key) for item in page},
    )


def children(bucket: str, key: str) -> list[str]:
    """What lies right below ``key``, objects or what would be folders, in order."""
    import obstore

    def names() -> list[str]:
        found = obstore.list_with_delimiter(_client(bucket), key)
        return sorted({*found["common_prefixes"], *(item["path"] for item in found["objects"])} - {key})

    return _asked(bucket, key, names)


def pauses() -> Iterator[None]:
    """Once for every try, with a growing pause before each but the first; ends when it has been enough."""
    backoff = RETRIES["backoff"]
    pause, most = backoff["init_backoff"].total_seconds(), backoff["max_backoff"].total_seconds()
    yield
    for _ in range(RETRIES["max_retries"]):
        time.sleep(random.uniform(0, pause))
        pause = min(pause * backoff["base"], most)
        yield


def _client(bucket: str) -> S3Store:
    """This process's client, made when it is first needed. It has threads of its own, which do not survive a fork."""
    global _owner
    if _clients and _owner != os.getpid():
        raise RuntimeError("a process that has used an object store was forked: start workers by spawn or forkserver")
    if bucket not in _clients:
        from obstore.store import S3Store

        _owner = os.getpid()
        # The timeouts are options of the HTTP client; given apart from the others they would replace AWS_ALLOW_HTTP.
        _clients[bucket] = S3Store(bucket, config=_TIMEOUTS, retry_config=RETRIES)  # type: ignore[arg-type]
    return _clients[bucket]


def _asked(bucket: str, key: str, request: Callable[[], _Result], *, short: _Result | None = None) -> _Result:
    """The answer to ``request``. The client itself tries again, except where an answer broke off in its midst.

    ``short``: the answer where the object ends before the range that was asked for."""
    from obstore.exceptions import BaseError

    last: Exception | None = None
    for _ in pauses():
        try:
            return request()
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise _failure(bucket, key, error) from error
            raise FileNotFoundError(errno.ENOENT, "there is no such object", f"s3://{bucket}/{key}") from None
        except TooLarge:
            raise
        except (BaseError, OSError, ValueError) as error:
            if short is not None and _status(error) == 416:
                return short
            last = error
            if not _passing(error):
                break
    assert last is not None
    raise _failure(bucket, key, last) from last


def _passing(error: Exception) -> bool:
    """Is it worth another try of ours? Not what the server refused, nor what the client has tried often enough."""
    from obstore.exceptions import GenericError, JoinError

    if not isinstance(error, GenericError | JoinError):
        return False
    text, status = str(error), _status(error)
    tried = _GIVEN_UP.search(text)
    if "builder error" in text or (tried and int(tried[1]) >= int(tried[2])):
        return False
    return status is None or status >= 500


def _status(error: Exception) -> int | None:
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def _failure(bucket: str, key: str, error: Exception) -> StoreError:
    status = _status(error)
    missing = "NoSuchBucket" in str(error)
    if missing:
        what, fix = "There is no such bucket.", "Make the bucket, or give the right name and AWS_ENDPOINT_URL."
    elif status in (401, 403):
        what = "The object store refused the request."
        fix = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they are allowed to do."
    else:
        what = "The object store did not do what was asked."
        fix = (
            "Check AWS_ENDPOINT_URL, AWS_REGION, the credentials and the network (http:// also needs "
            "AWS_ALLOW_HTTP=true), then run the same command again: what is finished is kept."
        )
    return StoreError(what=what, where=f"s3://{bucket}/{key}", why=_why(error), fix=fix)


def unconditional(bucket: str, key: str) -> StoreError:
    """The screen for a server on which two builds could undo each other's work."""
    return StoreError(
        what="This object store has no conditional writes, and a cache in it could lose work without a word.",
        where=f"s3://{bucket}/{key}",
        why="it does not honour If-None-Match and If-Match, by which two builds at once keep out of each other's way",
        fix="Use a store that has them (AWS S3, MinIO, Ceph, R2, …), or build on a disk and copy the cache.",
    )


def _why(error: Exception) -> str:
    """One line of what the client says, without anything secret."""
    text = str(error)
    line = text.splitlines()[0].split(": <", 1)[0] if text else repr(error)
    detail = " ".join(match[1] for match in _DETAIL.findall(text)[:2])
    return _without_secrets(f"{line.strip()} ({detail})" if detail else line.strip())


def _without_secrets(text: str) -> str:
    text = re.sub(r"//[^/@\s]*@", "//", text)
    for name in _SECRETS:
        value = os.environ.get(name)
        if value:
            text = text.replace(value, "…")
    return text
