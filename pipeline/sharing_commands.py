"""``frame-cache push`` and ``pull``: look, work, print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.pipeline.store import open_cache
from frame.pipeline.store.objects import StorePath
from frame.pipeline.view.text import size


def push_command(path: StorePath, url: str, *, public: bool, read_back: bool, as_json: bool) -> None:
    """Send a cache to another place."""
    from frame.pipeline.share.address import open_remote
    from frame.pipeline.share.push import push
    from frame.pipeline.share.source import look_at

    progress = Progress(quiet=as_json)
    with _interruptible(progress):
        remote = open_remote(url, read_back=read_back, public=public, pushing=True)
        source = look_at(open_cache(path))
        with _bytes_bar(progress, "pushing", source.size) as tick:
            done = push(source, remote, tick=tick)
    lines = [
        f"Pushed {done.files_sent} files, {size(done.bytes_sent)}, to {remote.address}; "
        f"{done.files_there} files, {size(done.bytes_there)}, were there.",
        f"  units     {_of(done.units, done.units_planned)}",
        f"  arrival   {done.checked}",
    ]
    if done.card == "kept":
        lines.append("  README.md another one is there, and was left; remove it there to have it replaced")
    _say("\n".join(lines), {"cache": str(path), "url": remote.address, **_facts(done)}, as_json=as_json)


def pull_command(url: str, path: StorePath, *, as_json: bool) -> None:
    """Bring a cache from another place into a folder."""
    from frame.pipeline.share.address import open_remote
    from frame.pipeline.share.pull import pull

    if not isinstance(path, Path):
        raise InputError(
            what="A cache is pulled into a folder of this machine.",
            where=str(path),
            fix="Pull it into a folder, then `frame-cache push FOLDER s3://BUCKET/NAME`.",
        )
    path = path.expanduser()
    progress = Progress(quiet=as_json)
    with _interruptible(progress):
        remote = open_remote(url)
        held = remote.listing()
        total = sum(file.size or 0 for file in held.values())
        with _bytes_bar(progress, "pulling", total) as tick:
            done = pull(remote, held, path, tick=tick)
    lines = [
        f"Pulled {done.files_fetched} files, {size(done.bytes_fetched)}, from {remote.address}; "
        f"{done.files_there} files, {size(done.bytes_there)}, were here.",
        f"  units     {_of(done.units, done.units_planned)}",
        "  arrival   every file's sha256 compared with the plan or its receipt",
    ]
    if not done.complete:
        lines.append("  The cache there is not complete: the same command fetches what is added to it.")
    _say("\n".join(lines), {"url": remote.address, "cache": str(path), **_facts(done)}, as_json=as_json)


def _of(units: int, planned: int) -> str:
    return f"all {planned}" if units == planned else f"{units} of {planned}: the cache is not complete"


def _facts(done: Any) -> dict[str, Any]:
    return {key: getattr(done, key) for key in type(done).__slots__}


def _say(text: str, value: dict[str, Any], *, as_json: bool) -> None:
    print(json.dumps(value, indent=1) if as_json else text, flush=True)


@contextmanager
def _interruptible(progress: Progress) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        progress.note("\nInterrupted. What has arrived is kept: run the same command again to go on.")
        raise SystemExit(130) from None


@contextmanager
def _bytes_bar(progress: Progress, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of bytes, in units in which nobody has to count digits."""
    scale, unit = next(((scale, unit) for scale, unit in _SCALES if total >= 10 * scale), _SCALES[-1])
    done = 0
    with progress.bar(what, total=max(total // scale, 1), unit=unit) as tick:

        def count(more: int) -> None:
            nonlocal done
            before, done = done // scale, done + more
            tick(done // scale - before)

        yield count


_SCALES = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))
