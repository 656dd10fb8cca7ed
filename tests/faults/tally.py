"""What the fault tests did: how often each fault was injected, and what it cost. The table of README.md is made here.

A test opens a trial for every fault that it injects and says what it found *before* it asserts that it found nothing,
so that the table would show a loss and not only miss a row.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

NAMES = {
    "F01": "kill before and after every system call of a commit",
    "F02": "kill of a worker",
    "F03": "kill of the driver",
    "F04": "kill of all processes at once",
    "F05": "power cut: what was not flushed is gone",
    "F06": "every system call fails once",
    "F07": "full disk",
    "F08": "a shard cut short",
    "F09": "one bit flipped in any file",
    "F10": "a file deleted, swapped or stale",
    "F11": "corrupt video",
    "F12": "hostile video, or a decoder that hangs, aborts, crashes, eats memory",
    "F13": "hostile store",
    "F14": "renames as network file systems do them",
    "F15": "two builds at once, killed or not",
    "F16": "clocks wrong, jumping, going back",
    "F17": "a worker out of memory",
    "F18": "a teacher that fails or says NaN",
    "F19": "preemption of training",
    "F20": "training stopped after every step and resumed",
    "F21": "another number of ranks",
    "F22": "windows of random clips, strides and failures",
    "F23": "a damaged checkpoint",
    "F24": "training where no teacher can be imported",
    "F25": "soak: build and train with faults mixed at random",
    "F26": "a stranger at Ray's ports",
    "F27": "an object store that resets connections",
}
_COLUMNS = (
    "fault",
    "trials",
    "seeds",
    "silent losses",
    "duplicates",
    "undetected",
    "hangs",
    "longest recovery",
    "rate at 95 %",
    "controls caught",
)
_BEGIN, _END = "<!-- faults: made by `make faults` -->", "<!-- faults end -->"


@dataclass(kw_only=True)
class Trial:
    """One injected fault. ``lost``: what was committed or promised and is gone or other without a word;
    ``duplicated``: made twice in the outcome; ``undetected``: damage that was taken for data; ``hung``: no end in time;
    ``recovery``: seconds that the command after the fault took to make things whole, where one was needed."""

    lost: int = 0
    duplicated: int = 0
    undetected: int = 0
    hung: int = 0
    recovery: float = 0.0

    @contextmanager
    def recovering(self) -> Iterator[None]:
        """Times the recovery."""
        began = time.monotonic()
        yield
        self.recovery += time.monotonic() - began

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.undetected or self.hung)


@dataclass(kw_only=True)
class Fault:
    """All trials of one fault in this session. ``scale`` multiplies the counts of a normal run."""

    code: str
    scale: float
    trials: list[Trial] = field(default_factory=list)
    seeds: set[int] = field(default_factory=set)
    controls: int = 0
    caught: int = 0

    def count(self, normal: int, *, most: int | None = None) -> int:
        """How many trials to run where a normal run has ``normal``; at most ``most`` where there are no more."""
        return min(max(1, round(normal * self.scale)), most or 1 << 60)

    @contextmanager
    def trial(self, seed: int | None = None) -> Iterator[Trial]:
        """Count one injected fault. What is raised inside and is no finding of the trial's own counts as a loss."""
        trial = Trial()
        self.trials.append(trial)
        if seed is not None:
            self.seeds.add(seed)
        try:
            yield trial
        except BaseException:
            trial.lost += trial.clean
            raise
        assert trial.clean, f"{self.code}, seed {seed}: {trial}"

    def control(self, *, caught: bool, why: str) -> None:
        """A deliberately broken variant was tried: the test has to notice."""
        self.controls += 1
        self.caught += caught
        assert caught, f"{self.code}: the test does not notice {why}"

    def row(self) -> str:
        """Its line in the table."""
        losses, duplicates, undetected, hangs = (
            sum(getattr(trial, name) for trial in self.trials) for name in ("lost", "duplicated", "undetected", "hung")
        )
        count, failures = len(self.trials), sum(not trial.clean for trial in self.trials)
        longest = max(trial.recovery for trial in self.trials)
        seeds = (
            f"{min(self.seeds)}–{max(self.seeds)}" if len(self.seeds) > 1 else "".join(map(str, self.seeds)) or "all"
        )
        cells = [
            f"{self.code} {NAMES[self.code]}",
            f"{count:,}",
            seeds,
            f"{losses}",
            f"{duplicates}",
            f"{undetected}",
            f"{hangs}",
            f"{longest:.1f} s" if longest else "–",
            f"< {_bound(count):.2g} %" if not failures else f"{failures} failed",
            f"{self.caught} of {self.controls}" if self.controls else "–",
        ]
        return f"| {' | '.join(cells)} |"


def _bound(trials: int) -> float:
    """Upper end of the 95 % interval of a rate of which 0 of ``trials`` were seen, in percent."""
    return 100 * (1 - 0.05 ** (1 / trials))


@dataclass(kw_only=True)
class Tally:
    """The faults of a session, by code."""

    scale: float
    faults: dict[str, Fault] = field(default_factory=dict)

    def __getitem__(self, code: str) -> Fault:
        if code not in NAMES:
            raise KeyError(code)
        return self.faults.setdefault(code, Fault(code=code, scale=self.scale))

    def table(self) -> str:
        """Markdown: a row a fault that was tried."""
        head = f"| {' | '.join(_COLUMNS)} |"
        tried = [fault.row() for _, fault in sorted(self.faults.items()) if fault.trials]
        return "\n".join([head, f"|{' --- |' * len(_COLUMNS)}", *tried])


def replace_table(readme: Path, tally: Tally, remark: str) -> None:
    """Put the table of this session in the place of the one in ``readme``. The row of the soak, run apart, stays."""
    soak = [line for line in _block(readme).splitlines() if line.startswith("| F25 ")]
    head, bar, *rows = tally.table().splitlines()
    _replace_block(readme, f"{remark}\n\n" + "\n".join([head, bar, *sorted({*soak, *rows})]))


def keep_row(readme: Path, fault: Fault) -> None:
    """Put the row of one fault into the table that ``readme`` has."""
    lines = [line for line in _block(readme).splitlines() if not line.startswith(f"| {fault.code} ")]
    rows = [line for line in lines if line.startswith("| F")]
    above = [line for line in lines if line not in rows] or Tally(scale=1).table().splitlines()
    _replace_block(readme, "\n".join([*above, *sorted([*rows, fault.row()])]))


_PLACE = re.compile(f"(?<={re.escape(_BEGIN)}\n).*?(?={re.escape(_END)})", re.DOTALL)


def _block(readme: Path) -> str:
    found = _PLACE.findall(readme.read_text("utf-8"))
    if len(found) != 1:
        raise AssertionError(f"{readme} has {len(found)} places for the table of faults")
    return str(found[0]).strip("\n")


def _replace_block(readme: Path, block: str) -> None:
    _block(readme)
    readme.write_text(_PLACE.sub(lambda _: f"{block}\n", readme.read_text("utf-8")), "utf-8")
