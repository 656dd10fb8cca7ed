"""A training run's folder as a command: settings, metrics, checkpoints saved and dropped; nothing is computed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from commits import Findings, Promise, nobody
from store_caches import tree

from frame.manifests.errors import InputError
from frame.train.checkpoint import (
    FOLDER,
    Checkpoint,
    drop_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from frame.train.run_folder import Metrics, owned, read_config, read_metrics, write_config

FIRST, LAST, KEEP, BEST = 3, 4, 2, 2
CONFIG = {"stage": "stage1", "settings": {"lr": 0.1}}


def some(step: int, *, size: int = 64) -> Checkpoint:
    """The checkpoint of a step, the same each time."""
    generator = torch.Generator().manual_seed(step)
    return Checkpoint(
        step=step,
        model={"a.weight": torch.randn(size, 3, generator=generator), "a.bias": torch.zeros(0)},
        optimizer={"a.weight/exp_avg": torch.randn(size, 3, generator=generator), "a.weight/step": torch.tensor(3.0)},
        state={"run": {"step": step, "best": 0.1 + 0.2, "means": {"patch": 1 / 3}}, "scaler": {}},
    )


def same(a: Checkpoint, b: Checkpoint) -> bool:
    """Are they equal to the bit?"""
    tensors = [(a.model, b.model), (a.optimizer, b.optimizer)]
    return (a.step, a.state) == (b.step, b.state) and all(
        x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x) for x, y in tensors
    )


@dataclass(frozen=True, kw_only=True)
class RunCommand:
    """`frame-train --resume` as the disk sees it, from the newest checkpoint to step ``last``."""

    last: int
    before: Mapping[str, bytes]
    whole: Mapping[str, bytes]

    def run(self, path: Path, promise: Promise = nobody) -> None:
        with owned(path) as tmp:
            checkpoint, problems = newest_checkpoint(path)
            done = checkpoint.step if checkpoint else 0
            if done and not problems:
                drop_checkpoints(path, step=done, keep=KEEP, best=BEST, tmp=tmp)
            write_config(path, CONFIG, tmp=tmp)
            metrics = Metrics.resumed(path, upto=done, tmp=tmp)
            for step in range(done + 1, self.last + 1):
                metrics.add("train", step, step / 4, {"patch": 1 / step})
                metrics.flush()
                save_checkpoint(path, some(step), tmp=tmp)
                promise(str(step))
                drop_checkpoints(path, step=step, keep=KEEP, best=BEST, tmp=tmp)
        promise("finished")

    def findings(self, path: Path, promised: list[str]) -> Findings:
        checkpoint, problems = newest_checkpoint(path)
        # That of step 4 is damaged from the beginning, so that it has to be replaced.
        torn = [str(problem) for problem in problems if not problem.where.rstrip("/").count(f"{FIRST + 1:08d}")]
        step = checkpoint.step if checkpoint else 0
        lost = [f"step {name}" for name in promised if name.isdigit() and int(name) > step]
        if self.before and step < FIRST:
            lost.append("the checkpoint that was there")
        if checkpoint is not None and not same(checkpoint, some(step)):
            torn.append(f"step {step}")
        if step > FIRST or promised:
            lost += _lost_records(path, step)
        return Findings(lost=tuple(lost), torn=tuple(torn))


def _lost_records(path: Path, step: int) -> list[str]:
    """Records that a checkpoint promises, and the best one."""
    lost = []
    if [line["step"] for line in read_metrics(path) if line["step"] <= step] != list(range(1, step + 1)):
        lost.append("metrics")
    try:
        read_config(path)
        if step >= BEST and not same(load_checkpoint(path, BEST), some(BEST)):
            lost.append("the best checkpoint is another")
    except InputError as error:
        lost.append(str(error))
    return lost


def run_commands(scratch: Path) -> dict[str, RunCommand]:
    """A new run, and one that is resumed where the newest checkpoint is damaged."""
    path = scratch / "calm"
    commands = {}
    for name, first, last in (("new", 0, 1), ("resumed", FIRST, LAST)):
        trees = []
        for upto in (first, last):
            if upto:
                RunCommand(last=upto, before={}, whole={}).run(path)
            trees.append(tree(path) if upto else {})
            if upto == FIRST:
                shutil.copytree(path / FOLDER / f"{FIRST:08d}", path / FOLDER / f"{FIRST + 1:08d}")
                trees[0] = tree(path)
        commands[name] = RunCommand(last=last, before=trees[0], whole=trees[1])
    shutil.rmtree(path)
    return commands
