"""What papers print, to be shown beside results and never among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

_FILE = "published.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """Figures of one model on one task: ``scores`` as fractions, ``protocol`` what is known of how they came about."""

    task: str
    model: str
    scores: Mapping[str, float]
    protocol: str
    source: str


@cache
def published() -> tuple[Published, ...]:
    """All figures on record."""
    stored = yaml.safe_load((files("frame.eval.present") / _FILE).read_text(encoding="utf-8"))
    return tuple(
        Published(**{**row, "scores": {name: round(value / 100, 6) for name, value in row["scores"].items()}})
        for row in stored
    )


def published_for(task: str) -> list[Published]:
    """The figures of one task, in the file's order."""
    return [row for row in published() if row.task == task]
