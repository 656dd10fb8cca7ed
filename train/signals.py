"""Being asked to stop: by the scheduler (SIGTERM; SIGUSR1 where ``sbatch --signal=USR1@300`` says so) or at the
keyboard (SIGINT). The loop finishes its step and saves."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

REQUEUE = 75  # EX_TEMPFAIL: run the same command again, with --resume
INTERRUPTED = 130
STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@dataclass(kw_only=True, slots=True)
class StopRequest:
    """``signal`` is the one that came, 0 before."""

    signal: int = 0

    @property
    def exit_code(self) -> int:
        """What the command exits with after saving."""
        return INTERRUPTED if self.signal == signal.SIGINT else REQUEUE


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch ``STOPS``; a second SIGINT interrupts at once."""
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        if request.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        request.signal = number

    before = {number: signal.signal(number, note) for number in STOPS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
