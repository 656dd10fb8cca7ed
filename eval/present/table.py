"""A result as a few lines of text."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from frame.eval.result import Result

_ITEMS = 40
_WIDTH = 110


def result_text(result: Result) -> str:
    """The items (the first forty) and the total, for a terminal or a log."""
    encoder = result.encoder
    random = ", RANDOM WEIGHTS: figures say nothing" if encoder["weights"] == "random" else ""
    title = f"{result.task}, preset {result.preset}: {encoder['name']} ({encoder['model']}{random})"
    table = Table(show_edge=False, pad_edge=False)
    names = [name for name in result.scores if any(name in item for item in result.items)] or list(result.scores)
    table.add_column("item")
    for name in names:
        table.add_column(name, justify="right")
    for item in result.items[:_ITEMS]:
        table.add_row(str(item["name"]), *(_number(item.get(name)) for name in names))
    if len(result.items) > _ITEMS:
        table.add_row(f"… {len(result.items) - _ITEMS} more", *("" for _ in names))
    table.add_section()
    table.add_row("all", *(_number(result.scores.get(name)) for name in names))
    text = io.StringIO()
    Console(file=text, width=_WIDTH).print(table)
    others = {name: value for name, value in result.scores.items() if name not in names}
    lines = [title, *(line.rstrip() for line in text.getvalue().rstrip().splitlines())]
    lines += [f"{name}: {_number(value)}" for name, value in others.items()]
    lines += [f"Note: {note}" for note in result.notes]
    return "\n".join(lines)


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
