"""A training stopped after every step, and gone on with in a new process each time, is the training that was not.

To the bit: the losses, the norms of the gradients, the parameters, Adam's moments and what is remembered beside them,
compared after every single step. Each stop is a SIGTERM to a process of its own that the command runs in.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from fresh import fresh_processes
from small_runs import assert_same_run
from struck import BROKEN
from tally import Fault
from trainings import STEPS, Calm, arguments, calm, calm_run, newest, second

__all__ = ["calm"]
REQUEUE = 75
STOP = [("step", 0, signal.SIGTERM)]


@pytest.mark.fault("F20")
@pytest.mark.timeout(1800)
def test_a_training_stopped_after_every_step_is_the_same_to_the_bit(
    fault: Fault, train_cache: Path, calm: Calm, tmp_path: Path
) -> None:
    for number in range(fault.count(1)):
        # Two runs side by side: one stops after every odd step, the other after every even one.
        runs = [tmp_path / f"{number}-{which}" for which in ("odd", "even")]
        logs = [tmp_path / "odd.log", tmp_path / "even.log"]
        for odd in range(1, STEPS, 2):
            stops = (odd, odd + 1)
            # Readers take seconds to start: now and then some, of another number each time.
            workers = [{21: "1", 42: "4"}.get(stop, "0") if number % 10 == 0 else "0" for stop in stops]
            given = [
                {
                    "arguments": arguments(train_cache, run, "--workers", readers),
                    "strikes": [("step", stop - 1 - newest(run), signal.SIGTERM)],
                }
                for run, stop, readers in zip(runs, stops, workers, strict=True)
            ]
            for run, stop, ended in zip(
                runs, stops, fresh_processes().run_all(logs, "frame_train", given), strict=True
            ):
                with fault.trial(number * STEPS + stop) as trial:
                    trial.hung += ended.code is None
                    assert ended.code == (REQUEUE if stop < STEPS else 0), ended.said
                    trial.lost += newest(run) != stop or not calm.agrees(run, stop)
        assert_same_run(runs[1], calm.run)


@pytest.mark.fault("F20")
def test_stage_2_stopped_after_every_step_is_the_same_to_the_bit(
    fault: Fault, train_cache: Path, stage1_run: Path, tmp_path: Path
) -> None:
    steps = fault.count(6, most=60)
    whole = calm_run(
        tmp_path / "calm", second(train_cache, stage1_run, tmp_path / "whole", steps=steps), tmp_path / "whole"
    )
    words = second(train_cache, stage1_run, tmp_path / "run", steps=steps)
    for step in range(1, steps + 1):
        with fault.trial(step) as trial:
            ended = fresh_processes().run(
                tmp_path / "log", "recorded", arguments=words, receipts=str(tmp_path), strikes=STOP
            )
            trial.hung += ended.code is None
            assert ended.code == (REQUEUE if step < steps else 0), ended.said
            trial.lost += newest(tmp_path / "run") != step
    assert_same_run(tmp_path / "run", whole.run)


@pytest.mark.fault("F20")
@pytest.mark.parametrize("missing", BROKEN)
def test_what_a_checkpoint_leaves_out_is_noticed(fault: Fault, train_cache: Path, tmp_path: Path, missing: str) -> None:
    """Trainings that forget something when they are stopped, each compared with itself undisturbed."""
    more = ("--set", "loss_dropout=0.5") if missing == "random state" else ()
    whole = calm_run(
        tmp_path / "calm",
        arguments(train_cache, tmp_path / "whole", *more, steps=3),
        tmp_path / "whole",
        broken=missing,
    )
    words = arguments(train_cache, tmp_path / "run", *more, steps=3)
    given = {"arguments": words, "broken": missing, "receipts": str(tmp_path)}
    for strikes, code in (([("step", 1, signal.SIGTERM)], REQUEUE), ([], 0)):
        ended = fresh_processes().run(tmp_path / "log", "recorded", **given, strikes=strikes)
        assert ended.code == code, ended.said
    fault.control(caught=not whole.agrees(tmp_path / "run", 3), why=f"a checkpoint without {missing}")
