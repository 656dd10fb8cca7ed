"""A comparison of several results as text: for a terminal, and as Markdown."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from frame.model.files import replacing
from frame.pipeline.view.compare import Comparison, Entry, figure, title

_WIDTH = 140
# What Markdown would read as a mark. An underscore inside a word, and an & that begins no entity, mean themselves.
_MARKDOWN = re.compile(r"[\\`*\[\]|~#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_HTML = re.compile(r"&(?=#|\w+;)|[<>]")


def label(entry: Entry) -> str:
    """The entry's name, with a warning where its weights are random."""
    return entry.name + (" (RANDOM WEIGHTS)" if entry.random else "")


def rows(comparison: Comparison) -> list[list[str]]:
    """Head and lines of the table: encoder, then its scores."""
    head = ["encoder", *comparison.scores]
    lines = [
        [label(entry), *(figure(entry.result.scores.get(name)) for name in comparison.scores)]
        for entry in comparison.entries
    ]
    return [head, *lines]


def as_text(comparison: Comparison) -> str:
    """For a terminal."""
    head, *lines = rows(comparison)
    table = Table(show_edge=False, pad_edge=False)
    for number, name in enumerate(head):
        table.add_column(Text(printable(name)), justify="right" if number else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    text = io.StringIO()
    Console(file=text, width=_WIDTH).print(table)
    return "\n".join([printable(title(comparison)), *(line.rstrip() for line in text.getvalue().rstrip().splitlines())])


def as_markdown(comparison: Comparison) -> str:
    """A table of GitHub's Markdown, the best headline in bold."""
    head, *lines = rows(comparison)
    best = comparison.best(comparison.scores[0]) if comparison.scores else None
    for line, entry in zip(lines, comparison.entries, strict=True):
        line[:] = [markdown(cell) for cell in line]
        if best is not None and entry.result.scores.get(comparison.scores[0]) == best and not entry.random:
            line[1] = f"**{line[1]}**"
    rule = ["---", *("---:" for _ in comparison.scores)]
    return "\n".join(f"| {' | '.join(line)} |" for line in ([markdown(cell) for cell in head], rule, *lines)) + "\n"


def write(comparison: Comparison, out: Path) -> None:
    """``out/compare.txt`` and ``out/compare.md``."""
    for name, text in (("compare.txt", as_text(comparison) + "\n"), ("compare.md", as_markdown(comparison))):
        with replacing(out / name) as partial:
            partial.write_bytes(text.encode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """``text`` without characters that would steer a terminal or break a line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def markdown(text: str) -> str:
    """``text`` that means itself in a cell of Markdown."""
    return _HTML.sub(lambda found: f"&#{ord(found[0])};", _MARKDOWN.sub(r"\\\g<0>", printable(text)))
