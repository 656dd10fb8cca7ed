"""The section about training runs: a chart a metric with a line a run, a table, and a sentence for each run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from frame.pipeline.view.plots import Plot, Point, plot, thinned
from frame.pipeline.view.runs import Run, read_run, run_names
from frame.pipeline.view.text import plural

_MOST_POINTS = 160  # of a line; a training run may log thousands
# What is charted first comes first; `future_patch` is the one that tells memory from no memory.
_SUBJECTS = {
    "future_patch": "patches of a future frame",
    "future_cls": "CLS token of a future frame",
    "patch": "patches of the current frame",
    "cls": "CLS token of the current frame",
}
_TRAINING = ("patch", "cls")  # charted as the optimiser saw them, too


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """One metric's chart. ``key``: (run's number, name, stage, last and best figure); ``words`` say what one
    sees, ``compared`` how the runs rank, ``note`` what the drawing leaves out."""

    metric: str
    title: str
    better: str
    plot: Plot
    key: tuple[tuple[int, str, str, str, str], ...]
    words: str
    compared: str
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A line of the table: first, last and best figure of one run and metric."""

    metric: str
    run: str
    first: str
    last: str
    best: str
    at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """The section about runs. ``runs``: name, stage and a sentence of each; charts in the order they are shown."""

    runs: tuple[tuple[str, str, str], ...]
    validation: tuple[Curves, ...]
    training: tuple[Curves, ...]
    rows: tuple[Row, ...]


def view_training(folders: Sequence[Path]) -> Training:
    """Read the runs and lay out what to show. Raises ``InputError`` for a folder that is no run or has no metrics."""
    runs = [read_run(folder, name) for folder, name in zip(folders, run_names(folders), strict=True)]
    found = set(itertools.chain.from_iterable(run.val for run in runs))
    known = [name + suffix for suffix in ("", "_cosine") for name in _SUBJECTS]
    order = [name for name in known if name in found] + sorted(found - set(known))
    learnt = [name for name in _TRAINING if any(name in run.train for run in runs)]
    return Training(
        runs=tuple((run.name, run.about, _sentence(run)) for run in runs),
        validation=tuple(_curves(runs, name, lambda run: run.val) for name in order),
        training=tuple(_curves(runs, name, lambda run: run.train) for name in learnt),
        rows=tuple(_row(run, name, run.val[name]) for name in order for run in runs if name in run.val),
    )


def _curves(runs: Sequence[Run], metric: str, of: Callable[[Run], Mapping[str, tuple[Point, ...]]]) -> Curves:
    having = [(number, run, of(run)[metric]) for number, run in enumerate(runs) if metric in of(run)]
    thin = [(number, *thinned(points, _MOST_POINTS)) for number, _, points in having]
    drawn = plot([(number, points) for number, points, _ in thin], most=1.0 if _is_cosine(metric) else math.inf)
    size = max(size for *_, size in thin)
    notes = [
        f"Each point is the mean of up to {size} neighbouring values." if size > 1 else "",
        "The first values lie above the chart." if drawn.cut else "",
    ]
    title, better = _title(metric)
    told = [f"{run.name}: {_course(metric, points)}" for _, run, points in having]
    return Curves(
        metric=metric,
        title=title,
        better=better,
        plot=drawn,
        key=tuple(
            (number, run.name, run.about, _number(points[-1][1]), _number(_best(metric, points)[1]))
            for number, run, points in having
        ),
        words=f"{title} ({better}), by step. {'. '.join(told)}.",
        compared=_compared(metric, [(run.name, _best(metric, points)) for _, run, points in having]),
        note=" ".join(filter(None, notes)),
    )


def _title(metric: str) -> tuple[str, str]:
    subject = _SUBJECTS.get(metric.removesuffix("_cosine"), metric)
    kind, better = ("cosine", "higher is better") if _is_cosine(metric) else ("loss", "lower is better")
    title = f"{kind}, {subject}" if subject != metric else metric
    return title[0].upper() + title[1:], better


def _is_cosine(metric: str) -> bool:
    return metric.endswith("_cosine")


def _best(metric: str, points: Sequence[Point]) -> Point:
    """The best point, the earliest of equals: the largest cosine, the smallest of anything else."""
    sign = -1.0 if _is_cosine(metric) else 1.0
    return min(points, key=lambda point: sign * point[1])


def _course(metric: str, points: Sequence[Point]) -> str:
    """``1.02 at step 0, 0.41 at step 1,000; best 0.4 at step 900``."""
    (first, begin), (last, end), (at, best) = points[0], points[-1], _best(metric, points)
    if first == last:
        return f"{_number(end)} at step {last:,}"
    course = f"from {_number(begin)} at step {first:,} to {_number(end)} at step {last:,}"
    return course + (", its best" if at == last else f"; best {_number(best)} at step {at:,}")


def _sentence(run: Run) -> str:
    """How far a run came, and where its foremost figure went."""
    name = next((name for name in _SUBJECTS if name in run.val), next(iter(run.val), ""))
    kind, points = ("Validation", run.val[name]) if name else ("Training", ())
    if not name:
        name = next((known for known in _TRAINING if known in run.train), next(iter(run.train)))
        points = run.train[name]
    title = _title(name)[0]
    far = plural(run.steps, "step") + (f" ({run.epochs:.3g} epoch{'s' * (run.epochs != 1)})" if run.epochs else "")
    lost = f" {plural(run.unread, 'line')} of its metrics cannot be read." if run.unread else ""
    return f"{far}. {kind} {title[0].lower()}{title[1:]}: {_course(name, points)}.{lost}"


def _compared(metric: str, best: Sequence[tuple[str, Point]]) -> str:
    """The runs by their best figures, in words; empty for one run."""
    if len(best) < 2:
        return ""
    sign = -1.0 if _is_cosine(metric) else 1.0
    (name, (step, value)), *others = sorted(best, key=lambda item: sign * item[1][1])
    told = [f"{other} {_number(figure)}{_gap(figure, value)}" for other, (_, figure) in others]
    most = "Highest" if _is_cosine(metric) else "Lowest"
    return f"{most}: {name}, {_number(value)} at step {step:,}; then {', '.join(told)}."


def _gap(figure: float, best: float) -> str:
    """`` (8.2% more)``."""
    if not best or _number(figure) == _number(best):
        return ""
    share = abs(figure - best) / abs(best)
    return f" ({share:.1%} {'more' if figure > best else 'less'})"


def _row(run: Run, metric: str, points: Sequence[Point]) -> Row:
    at, best = _best(metric, points)
    first, last, top = (_number(value) for value in (points[0][1], points[-1][1], best))
    return Row(metric=metric, run=run.name, first=first, last=last, best=top, at=f"{at:,}")


def _number(value: float) -> str:
    return f"{value:.4g}"
