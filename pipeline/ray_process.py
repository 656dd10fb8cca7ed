"""What both kinds of Ray session share: the one import of ray in a process, and the environment it happens in."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from frame.manifests.errors import InputError

Kind = Literal["local", "cluster"]
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


def _apply(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
