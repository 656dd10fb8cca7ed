"""Standing in front of the disk: every system call of ``frame.pipeline.store.disk`` by its number, and what it may do
instead of what it was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from frame.pipeline.store import disk


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call of an operation, the ``number``-th of all. ``perform`` makes it."""

    number: int
    name: str
    arguments: tuple[Any, ...]
    perform: Callable[[], Any]


@contextmanager
def standing_in(act: Callable[[Call], Any]) -> Iterator[list[str]]:
    """``act`` is asked instead of every operation. Yields the names of those that were called, as they are."""
    called: list[str] = []

    def stand_in(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            called.append(name)
            number = len(called) - 1
            return act(Call(number=number, name=name, arguments=arguments, perform=lambda: real(*arguments, **options)))

        return call

    with ExitStack() as stack:
        for name in disk.OPERATIONS:
            stack.enter_context(mock.patch.object(disk, name, stand_in(name, getattr(disk, name))))
        yield called


def instead_of(number: int, act: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """Nothing unusual but at one call."""
    return lambda call: act(call) if call.number == number else call.perform()


def failing(code: int) -> Callable[[Call], Any]:
    """The call is refused."""

    def act(call: Call) -> Any:
        raise OSError(code, os.strerror(code), *[str(each) for each in call.arguments[:1] if not isinstance(each, int)])

    return act


def done_but_failing(code: int) -> Callable[[Call], Any]:
    """The call is done, and said to have failed: its answer was lost, and what answered was the same call again."""

    def act(call: Call) -> Any:
        descriptor = call.perform()
        if call.name in ("create", "open_folder", "open_lock"):
            os.close(descriptor)
        raise OSError(code, os.strerror(code))

    return act


def script(name: str) -> tuple[str, dict[str, str]]:
    """A script of this folder that runs in a process of its own, and the environment in which it finds the others."""
    here = Path(__file__).parent
    return str(here / name), {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}", "OMP_NUM_THREADS": "1"}
