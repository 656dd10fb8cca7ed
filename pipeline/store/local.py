"""What is known of a cache on this machine only, kept beside it and never inside: where its sources and weights lie,
and how long builds took. A cache itself holds no path, host name or time, so that it can be shared and compared."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frame.pipeline.store.files import disk_error, sha256_bytes
from frame.pipeline.store.objects import ObjectPath, StorePath


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFacts:
    """``source``: the folder, or list of clips, that ``--source`` gave. ``weights``: teacher -> file of its weights."""

    source: Path | None = None
    weights: Mapping[str, Path] = field(default_factory=dict)


def facts_path(cache: StorePath) -> Path:
    """``CACHE.build.json``, next to the cache."""
    return _beside(cache, "build.json")


def timings_path(cache: StorePath) -> Path:
    """``CACHE.timings.jsonl``, next to the cache: a line a build."""
    return _beside(cache, "timings.jsonl")


def _beside(cache: StorePath, suffix: str) -> Path:
    """A file next to the cache; for one in an object store, in this user's folder for such things."""
    if isinstance(cache, ObjectPath):
        # The same name at another server is another cache.
        place = f"{os.environ.get('AWS_ENDPOINT_URL', '')} {cache}"
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        folder = Path(state) / "frame-encoder" / sha256_bytes(place.encode())[:16]
        return folder / f"{cache.name}.{suffix}"
    cache = cache.absolute()
    return cache.with_name(f"{cache.name}.{suffix}")


def read_facts(cache: StorePath) -> LocalFacts:
    """The facts on record, none if there are none (a cache that came from elsewhere) or they cannot be read."""
    try:
        value = json.loads(facts_path(cache).read_bytes())
        weights = {str(name): Path(path) for name, path in value["weights"].items()}
        return LocalFacts(source=Path(value["source"]) if value["source"] else None, weights=weights)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return LocalFacts()


def write_facts(cache: StorePath, facts: LocalFacts) -> None:
    """Put the facts on record."""
    path = facts_path(cache)
    value = {
        "source": str(facts.source.absolute()) if facts.source else None,
        "weights": {name: str(file.absolute()) for name, file in sorted(facts.weights.items())},
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(value, indent=1) + "\n")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise disk_error(error, path) from error


def add_timings(cache: StorePath, value: Mapping[str, Any]) -> None:
    """Append one build's timings. A disk that refuses this line costs nothing but the line."""
    try:
        with timings_path(cache).open("a") as file:
            file.write(json.dumps(value) + "\n")
    except OSError:
        return
