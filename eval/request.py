"""What every evaluation is asked: on which data, of which encoder, where to write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The options that all tasks share. ``sequences`` empty: all of the split."""

    data: Path
    encoder: str
    out: Path
    weights: str = ""
    preset: str = ""  # "": the task's default
    sequences: tuple[str, ...] = ()
    device: str = "auto"
