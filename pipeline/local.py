"""What is known of a cache on this machine only, kept beside it and never inside: where its sources and weights lie,
and how long builds took. A cache itself holds no path, host name or time, so that it can be shared and compared."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frame.pipeline.store.files import disk_error


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFacts:
    """``source``: the folder, or list of clips, that ``--source`` gave. ``weights``: teacher -> file of its weights."""

    source: Path | None = None
    weights: Mapping[str, Path] = field(default_factory=dict)


def facts_path(cache: Path) -> Path:
    """``CACHE.build.json``, next to the cache."""
    cache = cache.absolute()
    return cache.with_name(f"{cache.name}.build.json")


def timings_path(cache: Path) -> Path:
    """``CACHE.timings.jsonl``, next to the cache: a line a build."""
    cache = cache.absolute()
    return cache.with_name(f"{cache.name}.timings.jsonl")


def read_facts(cache: Path) -> LocalFacts:
    """The facts on record, none if there are none (a cache that came from elsewhere) or they cannot be read."""
    try:
        value = json.loads(facts_path(cache).read_bytes())
        weights = {str(name): Path(path) for name, path in value["weights"].items()}
        return LocalFacts(source=Path(value["source"]) if value["source"] else None, weights=weights)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return LocalFacts()


def write_facts(cache: Path, facts: LocalFacts) -> None:
    """Put the facts on record."""
    path = facts_path(cache)
    value = {
        "source": str(facts.source.absolute()) if facts.source else None,
        "weights": {name: str(file.absolute()) for name, file in sorted(facts.weights.items())},
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(value, indent=1) + "\n")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise disk_error(error, path) from error


def add_timings(cache: Path, value: Mapping[str, Any]) -> None:
    """Append one build's timings. A disk that refuses this line costs nothing but the line."""
    try:
        with timings_path(cache).open("a") as file:
            file.write(json.dumps(value) + "\n")
    except OSError:
        return
