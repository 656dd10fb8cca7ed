"""Trainings in a process of their own, and what befalls them at an exact place: signals, and deliberate mistakes.

Functions here are called by name, in a fork (see ``fresh``).
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from frame.pipeline.store import disk
from frame.train import cli, losses, prepare, run, update
from frame.train.batches import BatchDataset, SegmentReader
from frame.train.checkpoint import FOLDER
from frame.train.loop import Loop
from frame.train.update import Updater
from frame.train.validate import Validator

# Places that a run comes by: once a step, except for the last four.
PLACES: dict[str, tuple[Any, str]] = {
    "batch": (BatchDataset, "segments"),
    "reading": (SegmentReader, "read"),
    "step": (Loop, "_step"),
    "forward": (Updater, "_part"),
    "optimiser": (Updater, "_update"),
    "metrics": (Loop, "_note"),
    "validation": (Validator, "_mine"),
    "preparing": (prepare, "_spans"),
    "ending": (run, "write_curves"),
}

Strike = tuple[str, int, int]
"""Place, which time (from 0), signal. The place ``saving`` counts the operations on the disk within the first save of
this process that is not the beginning's; a negative signal goes to the whole group, as from a scheduler."""


def frame_train(arguments: Sequence[str], strikes: Sequence[Strike] = (), *, drawn: bool = False) -> None:
    """The command ``frame-train``. Curves are drawn only if they are asked for: they take longer than a short run."""
    multiprocessing.set_forkserver_preload(["frame.train.batches"])
    if not drawn:
        run.write_curves = lambda *_args, **_named: None
    for place, when, number in strikes:
        if place == "saving":
            _count_saving(when, number)
        else:
            _stand_before(*PLACES[place], when=when, number=number)
    sys.argv = ["frame-train", *arguments]
    cli.main()


def recorded(arguments: Sequence[str], receipts: str, broken: str = "", strikes: Sequence[Strike] = ()) -> None:
    """The same, and keeps the receipt of every checkpoint that is made: it holds the digests of all its bytes."""
    if broken:
        BROKEN[broken]()
    real = run.save_checkpoint

    def keeping(path: Path, checkpoint: Any, *, tmp: Path) -> None:
        real(path, checkpoint, tmp=tmp)
        receipt = path / FOLDER / f"{checkpoint.step:08d}" / "receipt.json"
        (Path(receipts) / str(checkpoint.step)).write_bytes(receipt.read_bytes())

    run.save_checkpoint = keeping
    frame_train(arguments, strikes)


def ranked(arguments: Sequence[str], seen: str, strikes: Sequence[Strike] = ()) -> None:
    """The same as one rank of several; writes which windows this rank has trained on, a line a step."""
    real = Updater.__call__

    def telling(self: Updater, parts: Sequence[Any], *, step: int, **named: Any) -> Any:
        with Path(f"{seen}.{os.environ.get('RANK', '0')}").open("a") as file:
            windows = [[s.cache, s.clip, s.first, s.stride] for batch in parts for s in batch.segments]
            file.write(json.dumps([step, windows]) + "\n")
        return real(self, parts, step=step, **named)

    Updater.__call__ = telling  # type: ignore[method-assign]
    frame_train(arguments, strikes)


def _send(number: int) -> None:
    if number < 0:
        os.killpg(0, -number)
    else:
        os.kill(os.getpid(), number)


def _stand_before(owner: Any, name: str, *, when: int, number: int) -> None:
    real, calls = getattr(owner, name), itertools.count()

    def struck(*args: Any, **named: Any) -> Any:
        if next(calls) == when:
            _send(number)
        return real(*args, **named)

    setattr(owner, name, struck)


def _count_saving(when: int, number: int) -> None:
    """Send the signal before operation ``when`` of a save, of as many as there are (counted round)."""
    real_save, calls, saving = run.save_checkpoint, itertools.count(), [False]

    def save(path: Path, checkpoint: Any, *, tmp: Path) -> None:
        saving[0] = checkpoint.step > 0
        real_save(path, checkpoint, tmp=tmp)
        saving[0] = False

    def before(real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **named: Any) -> Any:
            if saving[0] and next(calls) == when:
                _send(number)
            return real(*args, **named)

        return operation

    run.save_checkpoint = save
    for name in disk.OPERATIONS:
        setattr(disk, name, before(getattr(disk, name)))


def _forget_moments() -> None:
    real = run.save_checkpoint

    def save(path: Path, checkpoint: Any, *, tmp: Path) -> None:
        kept = {name: torch.zeros_like(x) if "exp_avg" in name else x for name, x in checkpoint.optimizer.items()}
        real(path, type(checkpoint)(**{**_fields(checkpoint), "optimizer": kept}), tmp=tmp)

    run.save_checkpoint = save


def _forget_means() -> None:
    real = run.save_checkpoint

    def save(path: Path, checkpoint: Any, *, tmp: Path) -> None:
        state = {**checkpoint.state["run"], "means": {}, "count": 0}
        kept = {**checkpoint.state, "run": state}
        real(path, type(checkpoint)(**{**_fields(checkpoint), "state": kept}), tmp=tmp)

    run.save_checkpoint = save


def _fields(checkpoint: Any) -> dict[str, Any]:
    return {name: getattr(checkpoint, name) for name in ("step", "model", "optimizer", "state")}


def _forget_position() -> None:
    real = run.batches
    run.batches = lambda dataset, start, stop, **named: real(dataset, 0, stop - start, **named)


def _draw_from_the_process() -> None:
    """A loss left out by the process's own random numbers, which no checkpoint holds."""
    torch.manual_seed(7)

    def kept(names: list[str], **_named: Any) -> dict[str, float]:
        return dict(zip(names, (0.5 + torch.rand(len(names))).tolist(), strict=True))

    losses.kept_terms = update.kept_terms = kept


BROKEN: dict[str, Callable[[], None]] = {
    "moments": _forget_moments,
    "means": _forget_means,
    "position": _forget_position,
    "random state": _draw_from_the_process,
}
