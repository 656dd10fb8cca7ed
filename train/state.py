"""Where a run stands: what a checkpoint remembers beside tensors. Everything else is a function of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from frame.train.losses import RunningMeans

_VERSION = 1


@dataclass(kw_only=True, slots=True)
class RunState:
    """``first`` are the raw validation losses of the untrained model, the yardstick of early stopping; ``best`` is the
    lowest score so far and ``best_step`` its step; ``stale`` counts validations since. ``ended`` says why a run that is
    over ended ("steps" or "early"), "" while it goes on."""

    step: int = 0
    means: RunningMeans = field(default_factory=RunningMeans)
    first: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    ended: str = ""

    def judge(self, losses: Mapping[str, float]) -> bool:
        """Take in one validation's raw losses; True if it is the best so far.

        The score is the mean of the raw losses, each in units of the untrained model's: scaled losses hover around one
        whatever happens (that is what scaling is for), and say nothing.
        """
        if not self.first:
            self.first = dict(losses)
        # An exact sum: a resumed run has these names in another order.
        score = math.fsum(losses[name] / max(value, 1e-12) for name, value in self.first.items()) / len(self.first)
        better = self.best is None or score < self.best
        if better:
            self.best, self.best_step, self.stale = score, self.step, 0
        else:
            self.stale += 1
        return better

    def to_json(self) -> dict[str, Any]:
        """Plain values; floats survive JSON to the bit."""
        return {
            "version": _VERSION,
            "step": self.step,
            "means": self.means.means,
            "count": self.means.count,
            "first": self.first,
            "best": self.best,
            "best_step": self.best_step,
            "stale": self.stale,
            "ended": self.ended,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> RunState:
        """The reverse of ``to_json``. Raises ``ValueError`` for another version."""
        if value.get("version") != _VERSION:
            raise ValueError(f"this state has version {value.get('version')}, not {_VERSION}")
        return RunState(
            step=value["step"],
            means=RunningMeans(means=dict(value["means"]), count=value["count"]),
            first=dict(value["first"]),
            best=value["best"],
            best_step=value["best_step"],
            stale=value["stale"],
            ended=value["ended"],
        )
