"""Charts of figures over steps, as SVG that needs no script: axes with round marks, and a line a run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[int, float]
"""A step, and the figure measured there."""

WIDTH, HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 34  # room for the marks' texts
_MARKS = 4  # about so many an axis
# An untrained model's figure may be many times those that follow: it is cut off where it would take more than so much
# of the axis from what runs differ in.
_CROWDED = 2.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One run's line: SVG path data, where it ends, and which run it is (its place in the legend)."""

    run: int
    path: str
    end: tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A chart in a box of ``WIDTH`` x ``HEIGHT``: marks as (place, text), lines; ``cut``: one leaves it at the top."""

    lines: tuple[Line, ...]
    steps: tuple[tuple[float, str], ...]
    values: tuple[tuple[float, str], ...]
    cut: bool
    width: int = WIDTH
    height: int = HEIGHT
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM


def plot(series: Sequence[tuple[int, Sequence[Point]]], *, most: float = math.inf) -> Plot:
    """Lines of (run, points); every run has a point at least. ``most``: the figure's largest possible value."""
    low, high, step = value_axis([[value for _, value in points] for _, points in series], most=most)
    last = max(points[-1][0] for _, points in series)
    marks = nice_step(last, _MARKS)

    def across(at: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * at / max(last, 1)

    def down(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)

    lines = []
    for run, points in series:
        placed = [(across(at), down(value)) for at, value in points]
        lines.append(Line(run=run, path=_path(placed, ceiling=_TOP), end=_tidy(placed[-1])))
    return Plot(
        lines=tuple(lines),
        steps=tuple((round(across(at), 1), _count(at)) for at in _multiples(0, last, max(marks, 1.0))),
        values=tuple((round(down(value), 1), _figure(value, step)) for value in _multiples(low, high, step)),
        cut=any(value > high for _, points in series for _, value in points),
    )


def value_axis(columns: Sequence[Sequence[float]], *, most: float = math.inf) -> tuple[float, float, float]:
    """Where an axis that shows the values of several runs begins and ends, and the distance of its marks.

    The runs' first values are left above the end where they would crowd all the others together; ``most`` is never
    passed.
    """
    everything = list(itertools.chain.from_iterable(columns))
    later = [value for values in columns for value in values[1:]] if all(len(v) > 2 for v in columns) else everything
    low, high = min(everything), max(everything)
    if high - low > _CROWDED * (max(later) - low) and max(later) > low:
        high = max(later)
    if high == low:
        margin = abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin
    step = nice_step(high - low, _MARKS)
    end = step * math.ceil(high / step - 1e-9)
    return step * math.floor(low / step + 1e-9), min(end, most) if max(everything) <= most else end, step


def nice_step(length: float, marks: int) -> float:
    """1, 2 or 5 times a power of ten, that divides ``length`` into about ``marks`` parts; 1 for no length."""
    if length <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(length / marks))
    return next((power * times for times in (1, 2, 5) if length / (power * times) <= marks), power * 10)


def thinned(points: Sequence[Point], most: int) -> tuple[list[Point], int]:
    """At most ``most`` points, each the mean of so many neighbours as the second value says, at the last one's step."""
    size = -(-len(points) // most) if points else 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], math.fsum(value for _, value in group) / len(group)) for group in groups], size


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * number for number in range(first, last + 1)]


def _path(placed: Sequence[tuple[float, float]], *, ceiling: float) -> str:
    """SVG path data through the points; where they lie above ``ceiling``, the line ends at it."""
    parts: list[str] = []
    for (x0, y0), (x1, y1) in itertools.pairwise(placed):
        if y0 < ceiling and y1 < ceiling:
            continue
        begin, end = (x0, y0), (x1, y1)
        if y0 < ceiling or y1 < ceiling:
            crossing = (x0 + (x1 - x0) * (ceiling - y0) / (y1 - y0), ceiling)
            begin, end = (crossing, end) if y0 < ceiling else (begin, crossing)
        parts += [] if parts and parts[-1] == _spot(begin) else ["M", _spot(begin)]
        parts += ["L", _spot(end)]
    return "".join(parts)


def _tidy(point: tuple[float, float]) -> tuple[float, float]:
    return round(point[0], 1), round(max(point[1], _TOP), 1)


def _spot(point: tuple[float, float]) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"


def _count(number: float) -> str:
    """``20,000`` as ``20k``."""
    return f"{number / 1000:g}k" if number >= 10_000 else f"{number:,.0f}"


def _figure(value: float, step: float) -> str:
    """A mark's text, with as many decimals as its distance to the next needs."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{value:.{decimals}f}" if decimals <= 6 else f"{value:.3g}"
    return text.removeprefix("-") if float(text) == 0 else text
