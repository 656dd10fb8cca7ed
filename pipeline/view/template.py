"""What the pages of both commands have in common: how templates are filled in, and the look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from frame.pipeline.view import text
from frame.pipeline.view.compare import figure

_HERE = Path(__file__).parent


def environment(*folders: Path, **filters: Callable[..., Any]) -> Environment:
    """Templates of ``folders``, then those of this room. Everything that is put into a page is escaped."""
    made = Environment(
        loader=FileSystemLoader([*folders, _HERE]), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "size": text.size,
        "duration": text.duration,
        "lost": text.lost,
        "breakable": text.breakable,
        "figure": figure,
        **filters,
    }
    made.globals["plural"] = text.plural
    return made


def house_style() -> Markup:
    """The look, for a ``style`` element."""
    return Markup((_HERE / "page.css").read_text(encoding="utf-8"))
