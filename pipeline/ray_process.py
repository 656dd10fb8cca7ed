"""What both kinds of Ray session share: the one import of ray in a process, and the environment it happens in."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Literal

from frame.manifests.errors import InputError

Kind = Literal["local", "cluster"]
# Read by Ray when it is imported and when it starts. Whatever matters reaches us as an exception.
QUIET: dict[str, str | None] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ side prints errors on our stderr besides raising them
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # every line: it prints what becomes of its workers on our stdout
}
_imported_for: list[Kind] = []  # the kind of session that imported ray in this process, once one has


def refuse_used_ray(kind: Kind) -> None:
    """Ray reads how to guard itself once, at import. InputError where that was not done, or not for this ``kind``."""
    if "ray" not in sys.modules:
        return
    if sys.modules["ray"].is_initialized():
        why, fix = "a session is already running in this process", "end it first (ray.shutdown())"
    elif _imported_for and _imported_for != [kind]:
        why, fix = f"this process has used Ray for a {_imported_for[0]} session", "use a process for each kind"
    elif kind == "local" and not _imported_for:
        why, fix = "ray was imported before it could be told to guard itself", "import ray inside the session only"
    else:
        return
    raise InputError(what="Ray cannot be started in this process.", why=why, fix=fix)


def import_ray(kind: Kind) -> Any:
    """The module ray, noted as imported for this kind of session."""
    ray = importlib.import_module("ray")
    if not _imported_for:
        _imported_for.append(kind)
    return ray


@contextmanager
def environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Change environment variables (None removes one) for the ``with`` block."""
    kept = {name: os.environ.get(name) for name in changes}
    try:
        _apply(changes)
        yield
    finally:
        _apply(kept)


@contextmanager
def native_stderr() -> Iterator[IO[bytes]]:
    """Collect in a file what this process prints on stderr, native code included, for the ``with`` block.

    Ray's C++ side announces its log level there before it knows where its logs are.
    """
    with tempfile.TemporaryFile() as sink:
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            os.dup2(sink.fileno(), 2)
            yield sink
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def reason(error: BaseException) -> str:
    """What happened, in a few lines: Ray packs tracebacks into its errors, and directions for its own users."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    if "Traceback" in text:
        text = text.splitlines()[-1].strip()
    return f"{type(error).__name__}: {text.partition(' Ensure that ')[0]}"


def _apply(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
