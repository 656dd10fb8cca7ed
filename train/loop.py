"""The loop: update, note, validate, save, stop when told or when nothing improves. It knows no method in particular."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from frame.manifests.errors import InputError
from frame.train.batches import Batch
from frame.train.config import TrainConfig
from frame.train.run_folder import Metrics
from frame.train.schedule import lr_factor
from frame.train.signals import StopRequest
from frame.train.state import RunState
from frame.train.update import Updater
from frame.train.validate import Validator


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How steps, segments and epochs relate: ``batch`` segments a step, ``per_epoch`` an epoch."""

    batch: int
    per_epoch: int
    total_steps: int
    eval_every: int

    def epoch(self, step: int) -> float:
        """Epochs that are behind after ``step`` steps."""
        return step * self.batch / self.per_epoch

    def validates(self, step: int) -> bool:
        """Is there a validation after ``step`` steps?"""
        if step == self.total_steps or self.eval_every:
            return step == self.total_steps or step % self.eval_every == 0
        return step * self.batch // self.per_epoch > (step - 1) * self.batch // self.per_epoch


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Everything wired up. ``validator`` is None where there is nothing to validate on. ``save`` makes a checkpoint of
    the present state; ``track`` passes figures on to the tracker; ``tick`` shows progress."""

    config: TrainConfig
    pace: Pace
    state: RunState
    update: Updater
    validator: Validator | None
    metrics: Metrics | None
    save: Callable[[], None]
    track: Callable[[dict[str, float], int], None]
    tick: Callable[..., Any]
    stop: StopRequest

    def run(self, batches: Iterator[Batch]) -> bool:
        """Train until the end; False if asked to stop before. ``batches`` begin with the state's step.

        Whatever the state was resumed from, the losses are those of a run that was never stopped.
        """
        if not self.state.step and not self.state.first:
            self._validate()
            self.save()  # nothing may ever be better than the beginning
        stopping = False
        while not self.state.ended and not stopping:
            waited = time.monotonic()
            parts = list(itertools.islice(batches, self.config.accumulate))
            began = time.monotonic()
            figures, stopping = self._step(parts)
            self._note(figures, began - waited, time.monotonic() - waited)
            self._conclude(stopping)
        return bool(self.state.ended)

    def _step(self, parts: Sequence[Batch]) -> tuple[dict[str, float], bool]:
        epoch = self.pace.epoch(self.state.step)
        lr = self.config.lr * learning_rate(self.config, epoch, self.pace)  # type: ignore[operator]
        figures, stopping = self.update(
            parts, step=self.state.step, lr=lr, means=self.state.means, stop=bool(self.stop.signal)
        )
        self.state.step += 1
        return {**figures, "lr": lr}, stopping

    def _note(self, figures: dict[str, float], waited: float, took: float) -> None:
        windows = self.pace.batch * self.config.segment
        timed = {**figures, "windows_per_second": windows / took, "data_wait": waited / took}
        self._add("train", timed)
        self.tick(1, remark="  ".join(f"{name} {figures[name]:.4f}" for name in self.update.base))

    def _conclude(self, stopping: bool) -> None:
        """What follows a step: a validation, the end, a checkpoint."""
        state, step = self.state, self.state.step
        validated = self.pace.validates(step)
        if validated:
            self._validate()
        if step == self.pace.total_steps:
            state.ended = "steps"
        elif self.config.patience and state.stale >= self.config.patience:
            state.ended = "early"
        if validated or stopping or state.ended or step % self.config.checkpoint_every == 0:
            self.save()

    def _validate(self) -> None:
        if self.validator is None:
            return
        figures = self.validator()
        if bad := [name for name, value in figures.items() if not math.isfinite(value)]:
            raise InputError(
                what="Training stopped: a validation figure is infinite or no number.",
                where=f"step {self.state.step}: {', '.join(bad)}",
                fix="lower --lr, or use --precision no. --resume goes on from the last checkpoint.",
            )
        self.state.judge({name: figures[name] for name in self.update.base})
        self._add("val", figures)

    def _add(self, kind: str, figures: dict[str, float]) -> None:
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        if self.metrics is not None:
            self.metrics.add(kind, self.state.step, self.pace.epoch(self.state.step), finite)
        self.track({f"{kind}/{name}": value for name, value in finite.items()}, self.state.step)


def learning_rate(config: TrainConfig, epoch: float, pace: Pace) -> float:
    """The factor of the learning rate; a cycle of 0 epochs is one that ends with the run."""
    warmup = config.warmup_epochs or 0.0
    cycle = config.cycle_epochs or max(pace.epoch(pace.total_steps) - warmup, 1e-9)
    return lr_factor(epoch, warmup=warmup, cycle=cycle)
