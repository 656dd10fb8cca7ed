"""A damaged checkpoint is refused, named, and the one before it is gone on from."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import StopAfter, assert_same_run, stage1
from tally import Fault

from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.train.checkpoint import FOLDER, checkpoint_steps, load_checkpoint, newest_checkpoint

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "receipt.json")


def flip(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def lengthen(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 64))


def blank(data: bytes, rng: random.Random) -> bytes:
    """A block that the file system never wrote; it begins where something was."""
    place = rng.choice([i for i in range(0, len(data), max(1, len(data) // 999)) if data[i]])
    return data[:place] + bytes(len(data[place : place + 512])) + data[place + 512 :]


DAMAGE: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, cut, flip, lengthen, flip, blank)


@pytest.mark.fault("F23")
def test_every_damage_to_any_file_is_found_and_the_one_before_is_taken(
    fault: Fault, stage1_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stage1_run / FOLDER, run / FOLDER)
    before, last = checkpoint_steps(run)[-2:]
    folder = run / FOLDER / f"{last:08d}"
    whole = load_checkpoint(run, before)
    for seed in range(fault.count(50)):
        rng, name = random.Random(seed), FILES[seed % len(FILES)]
        data = (folder / name).read_bytes()
        damaged = DAMAGE[seed // len(FILES) % len(DAMAGE)](data, rng)
        with fault.trial(seed) as trial:
            assert damaged != data
            (folder / name).write_bytes(damaged)
            found, problems = newest_checkpoint(run)
            trial.undetected += found is None or found.step != before or found.state != whole.state
            assert [f"{last:08d}" in problem.where for problem in problems] == [True]
            assert "checkpoint is damaged" in problems[0].what
        (folder / name).write_bytes(data)
    assert load_checkpoint(run, last).step == last


@pytest.mark.fault("F23")
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_or_another_checkpoints_is_found(
    fault: Fault, stage1_run: Path, tmp_path: Path, name: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stage1_run / FOLDER, run / FOLDER)
    before, last = (run / FOLDER / f"{step:08d}" / name for step in checkpoint_steps(run)[-2:])
    for way in (last.unlink, lambda: last.write_bytes(before.read_bytes()), lambda: (last.unlink(), last.mkdir())):
        with fault.trial() as trial:
            way()
            found, problems = newest_checkpoint(run)
            trial.undetected += found is None or found.step != int(before.parent.name) or len(problems) != 1


class Heard(Progress):
    """What the person watching is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.fault("F23")
def test_a_training_says_what_it_left_out_and_comes_to_the_same_bits(
    fault: Fault, train_cache: Path, stage1_run: Path, tmp_path: Path
) -> None:
    stage1(train_cache, tmp_path / "begun", progress=StopAfter(4), checkpoint_every=1)
    for seed, name in enumerate(FILES):
        run = tmp_path / name
        shutil.copytree(tmp_path / "begun", run)
        file = run / FOLDER / "00000005" / name
        file.write_bytes(flip(file.read_bytes(), random.Random(seed)))
        heard = Heard()
        with fault.trial(seed) as trial:
            with trial.recovering():
                stage1(train_cache, run, resume=True, checkpoint_every=1, progress=heard)
            trial.undetected += not any("00000005" in note and "damaged" in note for note in heard.notes)
            assert "resuming after step 4" in heard.notes
            assert_same_run(run, stage1_run)


@pytest.mark.fault("F23")
def test_without_any_intact_one_nothing_is_guessed(fault: Fault, train_cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stage1(train_cache, run, steps=2, progress=StopAfter(0))
    for step in checkpoint_steps(run):
        (run / FOLDER / f"{step:08d}" / "state.json").write_bytes(b"{}")
    with fault.trial() as trial:
        with pytest.raises(InputError, match="No checkpoint of this run is intact"):
            stage1(train_cache, run, steps=2, resume=True)
        trial.undetected += (run / "encoder").exists()
