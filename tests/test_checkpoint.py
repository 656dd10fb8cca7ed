from __future__ import annotations

from pathlib import Path

import pytest
from runs import same, some

from frame.manifests.errors import InputError
from frame.train.checkpoint import (
    FOLDER,
    checkpoint_steps,
    drop_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "tmp"
    folder.mkdir(parents=True)
    return folder


def save(run: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(run, some(step), tmp=run / "tmp")


def test_what_is_loaded_is_what_was_saved_to_the_bit(tmp: Path) -> None:
    save(tmp.parent, 120)
    assert same(load_checkpoint(tmp.parent, 120), some(120))
    assert not list(tmp.iterdir())


def test_a_step_that_is_saved_again_is_replaced(tmp: Path) -> None:
    save_checkpoint(tmp.parent, some(7, size=5), tmp=tmp)
    save(tmp.parent, 7)
    assert same(load_checkpoint(tmp.parent, 7), some(7))


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
