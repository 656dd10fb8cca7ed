"""Results in one table only where they measured the same thing: one task, preset, options and data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from frame.manifests.errors import InputError
from frame.pipeline.view.result import RESULT, StoredResult, read_stored

_SHOWN = 4  # values of one difference that the refusal names


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A result, the folder that it lies in, and its encoder's name, which tells it from the others in a table."""

    result: StoredResult
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
    def first(self) -> StoredResult:
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
    found = [(read_stored(path), path if path.is_dir() else path.parent) for path in paths]
    return [Entry(result=result, folder=folder, name=str(result.encoder.get("name", ""))) for result, folder in found]


def find(folder: Path) -> tuple[list[Entry], list[str]]:
    """All results below ``folder``, and a sentence for each file that is none.

    Raises ``InputError`` where there is no result.
    """
    paths = sorted(folder.rglob(RESULT)) if folder.is_dir() else []
    good, lost = [], []
    for path in paths:
        try:
            good += [replace(entry, folder=path.parent) for entry in load([path])]
        except InputError as error:
            lost.append(f"{path.relative_to(folder)}: {error.what} {error.why}".strip())
    if not good:
        raise InputError(
            what="There is no result to report.", where=str(folder),
            why="; ".join(lost) or f"no {RESULT} in it", fix="give the folder that the --out folders lie in",
        )  # fmt: skip
    return good, lost


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


def _identity(result: StoredResult) -> dict[str, str]:
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
    """A score as text: four decimals, none for a count above 1, a dash where there is no score."""
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value > 1 and value.is_integer() else f"{value:.4f}"


def title(comparison: Comparison) -> str:
    """``davis, preset dino``."""
    return f"{comparison.first.task}, preset {comparison.first.preset}"
