"""Several results in one table, which only those may share that measured the same thing."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from frame.eval.result import RESULT, Result, read_result
from frame.manifests.errors import InputError
from frame.model.files import replacing

Key = tuple[str, ...]
_SHOWN = 4  # values of one difference that the refusal names
_WIDTH = 140
# What Markdown would read as a mark. An underscore inside a word, and an & that begins no entity, mean themselves.
_MARKDOWN = re.compile(r"[\\`*\[\]|~#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_HTML = re.compile(r"&(?=#|\w+;)|[<>]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A result, the folder that it lies in, and its encoder's name, which tells it from the others in a table."""

    result: Result
    folder: Path
    name: str

    @property
    def random(self) -> bool:
        """Whether its encoder was never trained."""
        return bool(self.result.encoder.get("weights") == "random")


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Results of one task under one protocol on the same data. ``scores``: the names of their scores, in order."""

    entries: tuple[Entry, ...]
    scores: tuple[str, ...]

    @property
    def first(self) -> Result:
        """Any of the results, for what they have in common."""
        return self.entries[0].result

    def best(self, score: str) -> float | None:
        """The highest value of the headline among trained encoders, where more is better and there are two; or None."""
        known = [
            entry.result.scores[score] for entry in self.entries if score in entry.result.scores and not entry.random
        ]
        compared = score == self.scores[0] and self.first.task != "deltas" and len(known) > 1
        return max(known) if compared else None


def load(paths: Sequence[Path]) -> list[Entry]:
    """The results in these files or folders."""
    found = [(read_result(path), path if path.is_dir() else path.parent) for path in paths]
    return [Entry(result=result, folder=folder, name=str(result.encoder.get("name", ""))) for result, folder in found]


def _told_apart(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries under the shortest names that differ: of a run its folder's, if need be with the result's folder."""
    short = [_short(entry.name) for entry in entries]
    names = [name if short.count(name) == 1 else entry.name for name, entry in zip(short, entries, strict=True)]
    whole = [
        f"{name} ({entry.folder})" if names.count(name) > 1 else name
        for name, entry in zip(names, entries, strict=True)
    ]
    return tuple(replace(entry, name=name) for name, entry in zip(whole, entries, strict=True))


def _short(name: str) -> str:
    """A run's folder by its last part; other names as they are."""
    return Path(name).name or name if name.startswith(("/", "./", "../", "~")) else name


def compare(entries: Sequence[Entry]) -> Comparison:
    """The entries as one table. Raises InputError where they measured different things, naming what differs."""
    if not entries:
        raise InputError(what="There is nothing to compare.", fix=f"give folders with a {RESULT}")
    different = differences(entries)
    if different:
        raise InputError(
            what="These results do not belong into one table.",
            where=", ".join(str(entry.folder) for entry in entries),
            why="; ".join(different),
            fix="evaluate all encoders with the same task, preset, options and data, or compare those that agree",
        )
    scores = dict.fromkeys(name for entry in entries for name in entry.result.scores)
    return Comparison(entries=_told_apart(entries), scores=tuple(scores))


def differences(entries: Sequence[Entry]) -> list[str]:
    """What the results do not have in common of task, preset, options and data, each with its values."""
    flat = [_identity(entry.result) for entry in entries]
    names = dict.fromkeys(name for identity in flat for name in identity)
    found = []
    for name in names:
        values = list(dict.fromkeys(identity.get(name, "not given") for identity in flat))
        if len(values) > 1:
            more = ", …" if len(values) > _SHOWN else ""
            found.append(f"{name}: {' / '.join(values[:_SHOWN])}{more}")
    return found


def group(entries: Sequence[Entry]) -> list[Comparison]:
    """The comparisons that the entries allow, by task, preset, options and data."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(json.dumps(_identity(entry.result), sort_keys=True), []).append(entry)
    made = [compare(found) for found in groups.values()]
    return sorted(made, key=lambda one: (one.first.task, one.first.preset, str(one.first.data.get("root"))))


def _identity(result: Result) -> dict[str, str]:
    """What must be equal, as text by name."""
    options = {f"option {name}": _plain(value) for name, value in _flat(result.options).items()}
    return {
        "task": result.task,
        "preset": result.preset,
        **options,
        "data digest": str(result.data.get("digest", ""))[:16],
    }


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, item in value.items():
        rows |= _flat(item, f"{before}{name}.") if isinstance(item, dict) else {f"{before}{name}": item}
    return rows


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def figure(value: object) -> str:
    """A score as text: four decimals, whole numbers as such, a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


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


def title(comparison: Comparison) -> str:
    """``davis, preset dino``."""
    return f"{comparison.first.task}, preset {comparison.first.preset}"


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
