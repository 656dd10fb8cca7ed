from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from frame.manifests.errors import InputError
from frame.train.checkpoint import (
    FOLDER,
    Checkpoint,
    checkpoint_steps,
    drop_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)


def some(step: int, *, size: int = 64) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    return Checkpoint(
        step=step,
        model={"a.weight": torch.randn(size, 3, generator=generator), "a.bias": torch.zeros(0)},
        optimizer={"a.weight/exp_avg": torch.randn(size, 3, generator=generator), "a.weight/step": torch.tensor(3.0)},
        state={"run": {"step": step, "best": 0.1 + 0.2, "means": {"patch": 1 / 3}}, "scaler": {}},
    )


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "tmp"
    folder.mkdir(parents=True)
    return folder


def save(run: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(run, some(step), tmp=run / "tmp")


def same(a: Checkpoint, b: Checkpoint) -> bool:
    tensors = [(a.model, b.model), (a.optimizer, b.optimizer)]
    return (a.step, a.state) == (b.step, b.state) and all(
        x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x) for x, y in tensors
    )


def test_what_is_loaded_is_what_was_saved_to_the_bit(tmp: Path) -> None:
    save(tmp.parent, 120)
    assert same(load_checkpoint(tmp.parent, 120), some(120))
    assert not list(tmp.iterdir())


def test_a_step_that_is_saved_again_is_replaced(tmp: Path) -> None:
    save_checkpoint(tmp.parent, some(7, size=5), tmp=tmp)
    save(tmp.parent, 7)
    assert same(load_checkpoint(tmp.parent, 7), some(7))


def test_every_flipped_bit_cut_or_missing_file_is_found(tmp: Path) -> None:
    run = tmp.parent
    save(run, 3)
    folder = run / FOLDER / "00000003"
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        for position in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
            file.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
            with pytest.raises(InputError, match="checkpoint is damaged"):
                load_checkpoint(run, 3)
        for cut in (0, len(data) // 2, len(data) - 1):
            file.write_bytes(data[:cut])
            with pytest.raises(InputError, match="checkpoint is damaged"):
                load_checkpoint(run, 3)
        file.unlink()
        with pytest.raises(InputError, match="checkpoint is damaged"):
            load_checkpoint(run, 3)
        file.write_bytes(data)
    assert same(load_checkpoint(run, 3), some(3))


def test_a_checkpoint_under_another_steps_name_is_refused(tmp: Path) -> None:
    run = tmp.parent
    save(run, 3)
    (run / FOLDER / "00000003").rename(run / FOLDER / "00000004")
    with pytest.raises(InputError, match="step 3"):
        load_checkpoint(run, 4)


def test_the_newest_intact_one_is_taken_and_the_damaged_ones_are_named(tmp: Path) -> None:
    run = tmp.parent
    save(run, 10, 20, 30)
    (run / FOLDER / "00000030" / "receipt.json").unlink()
    (run / FOLDER / "00000020" / "model.safetensors").write_bytes(b"")
    found, problems = newest_checkpoint(run)
    assert found is not None
    assert found.step == 10
    assert ["00000030" in problems[0].where, "00000020" in problems[1].where] == [True, True]


def test_without_checkpoints_there_is_none(tmp: Path) -> None:
    assert newest_checkpoint(tmp.parent) == (None, [])


def test_old_ones_go_but_the_best_stays(tmp: Path) -> None:
    run = tmp.parent
    save(run, 1, 2, 3, 4, 5)
    drop_checkpoints(run, step=5, keep=2, best=2, tmp=tmp)
    assert checkpoint_steps(run) == [2, 4, 5]


def test_what_lies_ahead_of_a_resumed_run_is_damaged_and_goes_first(tmp: Path) -> None:
    run = tmp.parent
    save(run, 4, 6, 8)
    save(run, 5)  # resumed after 4, because 6 and 8 were damaged
    drop_checkpoints(run, step=5, keep=2, best=None, tmp=tmp)
    assert checkpoint_steps(run) == [4, 5]


class DiskFull:
    """Lets ``allowed`` flushes through, then there is no room."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed

    def __call__(self, _descriptor: int) -> None:
        if not self.allowed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.allowed -= 1


@pytest.mark.parametrize("allowed", range(6))
def test_a_disk_that_fills_during_a_save_leaves_the_checkpoint_before_it(tmp: Path, allowed: int) -> None:
    run = tmp.parent
    save(run, 10)
    with mock.patch.object(os, "fsync", DiskFull(allowed)):
        if allowed < 5:
            with pytest.raises(InputError, match="disk is full"):
                save_checkpoint(run, some(20), tmp=tmp)
    found, problems = newest_checkpoint(run)
    assert found is not None
    assert same(found, some(10))
    assert not problems
    assert not list(tmp.iterdir())


@pytest.mark.parametrize("at", range(12))
def test_a_kill_at_any_operation_leaves_a_whole_checkpoint(tmp: Path, at: int) -> None:
    """Every call that changes the file system is a place to die at; afterwards the folder is as it is."""
    run = tmp.parent
    save(run, 10)
    done = [0]

    class Killed(BaseException):
        pass

    def counted(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            done[0] += 1
            if done[0] > at:
                raise Killed
            return real(*args, **kwargs)

        return call

    patches = [mock.patch.object(os, name, counted(getattr(os, name))) for name in ("fsync", "rename", "mkdir")]
    patches.append(mock.patch.object(shutil, "rmtree", counted(shutil.rmtree)))
    try:
        for patch in patches:
            patch.start()
        save_checkpoint(run, some(20), tmp=tmp)
    except Killed:
        pass
    finally:
        mock.patch.stopall()
    found, problems = newest_checkpoint(run)
    assert found is not None
    assert not problems
    assert same(found, some(found.step))
    survived = done[0] <= at
    assert found.step == 20 if survived else found.step in (10, 20)
