"""Tables of evaluations for a page: `frame-cache view` shows them beside a cache, `frame-eval report` by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from frame.pipeline.view.compare import Comparison, Entry, figure, find, group, title

_ITEMS = 100  # rows of a table of items
_ACROSS = 8  # scores beside each other that fit on a page


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTable:
    """One comparison on a page. ``items`` [rows][1 + encoders]: a name and each encoder's value of ``item_score``;
    ``bars``: the part of the longest bar that each entry's headline takes, empty where a bar would say nothing;
    ``notes``: whose, and what, nobody's where it holds for all."""

    comparison: Comparison
    title: str
    facts: tuple[tuple[str, str], ...]
    item_score: str
    items: tuple[tuple[str, ...], ...]
    items_left: int
    bars: tuple[float, ...]
    notes: tuple[tuple[str, str], ...]

    @property
    def tall(self) -> bool:
        """Whether it reads better with a row a score: one encoder alone with many of them."""
        return len(self.comparison.entries) == 1 and len(self.comparison.scores) > _ACROSS


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The section about evaluations. ``random``: encoders without training; ``lost``: a sentence for each file that
    could not be read."""

    tables: tuple[ScoreTable, ...]
    random: tuple[str, ...]
    lost: tuple[str, ...]


def view_evaluation(folders: Sequence[Path]) -> Evaluation:
    """All results below the folders, each once. Raises ``InputError`` for a folder without any."""
    entries: dict[Path, Entry] = {}
    lost: dict[str, None] = {}
    for folder in folders:
        found, unread = find(folder)
        for entry in found:
            entries.setdefault(entry.folder.resolve(), entry)
        lost |= dict.fromkeys(unread)
    return Evaluation(
        tables=tuple(score_table(comparison) for comparison in group(list(entries.values()))),
        random=random_names(list(entries.values())),
        lost=tuple(lost),
    )


def random_names(entries: Sequence[Entry]) -> tuple[str, ...]:
    """The encoders without training, each once; of a cache's columns it is only known that some are."""
    names = [
        f"columns of a cache ({entry.name})" if entry.result.encoder.get("kind") == "cache" else entry.name
        for entry in entries
        if entry.random
    ]
    return tuple(dict.fromkeys(names))


def score_table(comparison: Comparison) -> ScoreTable:
    """A comparison laid out."""
    first = comparison.first
    score, items = _items(comparison)
    numbers = [(name, value) for name, value in first.data.items() if name not in ("root", "digest")]
    options = [f"{name} {value}" for name, value in first.options.items()]
    return ScoreTable(
        comparison=comparison,
        title=title(comparison),
        facts=(
            ("data", str(first.data.get("root", ""))),
            ("digest", str(first.data.get("digest", ""))[:16]),
            *((name, str(value)) for name, value in numbers),
            ("options", ", ".join(options) or "none"),
        ),
        item_score=score,
        items=tuple(items[:_ITEMS]),
        items_left=max(len(items) - _ITEMS, 0),
        bars=_bars(comparison),
        notes=tuple(_notes(comparison)),
    )


def _notes(comparison: Comparison) -> list[tuple[str, str]]:
    whose: dict[str, list[str]] = {}
    for entry in comparison.entries:
        for note in entry.result.notes:
            whose.setdefault(note, []).append(entry.name)
    everybody = len(comparison.entries)
    return [("" if len(names) == everybody else ", ".join(names), note) for note, names in whose.items()]


def _items(comparison: Comparison) -> tuple[str, list[tuple[str, ...]]]:
    """The first score that items have, and its value for each item and encoder; deltas show every column."""
    if comparison.first.task == "deltas":
        return "", []
    known = {name for entry in comparison.entries for item in entry.result.items for name in item}
    score = next((name for name in comparison.scores if name in known), "")
    table: dict[str, dict[int, object]] = {}
    for number, entry in enumerate(comparison.entries):
        for item in entry.result.items:
            if score and score in item:
                table.setdefault(str(item.get("name", "")), {})[number] = item[score]
    numbers = range(len(comparison.entries))
    return score, [(name, *(figure(values.get(n)) for n in numbers)) for name, values in table.items()]


def _bars(comparison: Comparison) -> tuple[float, ...]:
    if not comparison.scores or comparison.first.task == "deltas":
        return ()
    values = [entry.result.scores.get(comparison.scores[0], float("nan")) for entry in comparison.entries]
    return tuple(values) if all(0 <= value <= 1 for value in values) else ()
