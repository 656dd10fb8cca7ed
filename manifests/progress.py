"""What a person sees while a command works: progress with a rate and a time left, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

_PLAIN_SECONDS = 10.0

Tick = Callable[..., None]


class Progress:
    """Bars on a terminal, a plain line now and then elsewhere (a batch job's log), nothing at all when ``quiet``."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._console = Console(stderr=True, quiet=quiet, highlight=False)

    def note(self, text: str) -> None:
        """One line for the person watching."""
        self._console.print(text, markup=False, soft_wrap=True)  # a command must be copied whole

    @contextmanager
    def bar(self, what: str, *, total: int, unit: str) -> Iterator[Tick]:
        """Show the progress of ``total`` things. The yielded function counts ``amount`` (1) more, with a remark."""
        if self.quiet or not self._console.is_terminal:
            yield _Plain(what, total, unit, quiet=self.quiet)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[remark]}"),
        )
        with RichProgress(*columns, console=self._console) as rich:
            yield _Bar(rich, rich.add_task(what, total=total, rate="", remark=""), unit)


class _Bar:
    def __init__(self, rich: RichProgress, task: TaskID, unit: str) -> None:
        self._rich, self._task, self._unit = rich, task, unit
        self._began, self._done = time.monotonic(), 0

    def __call__(self, amount: int = 1, remark: str = "") -> None:
        self._done += amount
        rate = self._done / max(time.monotonic() - self._began, 1e-9)
        self._rich.update(self._task, advance=amount, rate=f"{rate:,.1f} {self._unit}/s", remark=remark)


class _Plain:
    def __init__(self, what: str, total: int, unit: str, *, quiet: bool) -> None:
        self._what, self._total, self._unit, self._quiet = what, total, unit, quiet
        self._began = self._said = time.monotonic()
        self._done = 0

    def __call__(self, amount: int = 1, remark: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if self._quiet or (self._done < self._total and now - self._said < _PLAIN_SECONDS):
            return
        self._said = now
        rate = self._done / max(now - self._began, 1e-9)
        left = (self._total - self._done) / rate if rate else 0.0
        line = f"{self._what}: {self._done:,}/{self._total:,} {self._unit}, {rate:,.1f}/s, {_clock(left)} left {remark}"
        print(line.rstrip(), file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
