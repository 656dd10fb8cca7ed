"""A training that is told to stop, or is killed, at any step and in any of its doings.

Signals come to real processes at exact places: while a batch is read, in the step, in a validation, between any two
operations of a save, before the loop and after it; twice, and followed by SIGKILL as when the grace is over.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from fresh import Ended, fresh_processes
from small_runs import assert_same_run
from struck import Strike
from tally import Fault
from trainings import Calm, arguments, calm, newest

from frame.train.checkpoint import newest_checkpoint
from frame.train.run_folder import read_metrics

__all__ = ["calm"]
TERM, USR1, INT, KILL = signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGKILL
REQUEUE, INTERRUPTED = 75, 130
EVERY = 4  # steps between checkpoints
OPERATIONS = 16  # on the disk, in a save


def strikes_at(now: int, rng: random.Random) -> tuple[list[Strike], int]:
    """What befalls the process in its step ``now`` (from 0), and how the process then has to end."""
    later = rng.randrange(OPERATIONS)
    first: Strike = (rng.choice(["batch", "step", "forward", "optimiser", "metrics"]), now, TERM)
    return rng.choice(
        [
            ([first], REQUEUE),
            ([(first[0], now, USR1)], REQUEUE),
            ([(first[0], now, INT)], INTERRUPTED),
            ([("validation", now // 3 + 1, TERM)], REQUEUE),
            ([("step", now, TERM), ("optimiser", now, TERM)], REQUEUE),
            ([("step", now, USR1), ("saving", later, TERM)], REQUEUE),
            ([("saving", later, TERM)], REQUEUE),
            ([("step", now, TERM), ("ending", 0, TERM)], REQUEUE),
            ([("preparing", 0, TERM)], REQUEUE),
            ([("preparing", 1, USR1)], REQUEUE),
            ([("step", now, INT), ("optimiser", now, INT)], INTERRUPTED),
            ([("step", now, TERM), ("saving", later, KILL)], -KILL),
            ([first, ("ending", 0, KILL)], -KILL),
            ([(first[0], now, KILL)], -KILL),
        ]
    )


def losses_of(run: Path, before: int, ended: Ended) -> str:
    """What is gone that was promised: "" if nothing is."""
    found, problems = newest_checkpoint(run)
    now = found.step if found is not None else 0
    done = max((line["step"] for line in read_metrics(run) if line["kind"] == "train"), default=0)
    if problems or now < before:
        return f"a checkpoint: {problems}, step {now} after {before}"
    # One that was stopped before it began leaves the lines that a killed one before it has written.
    if ended.code == REQUEUE and now > before and done != now:
        return f"steps, though it had time to save: {done} done, {now} saved"
    if done - now > EVERY + 1:
        return f"more steps than there are between two checkpoints: {done} done, {now} saved"
    return ""


@pytest.mark.fault("F19")
@pytest.mark.timeout(1800)
def test_a_training_that_is_stopped_or_killed_at_any_step_goes_on_to_the_same_bits(
    fault: Fault, train_cache: Path, calm: Calm, tmp_path: Path
) -> None:
    for pair in range(-(-fault.count(40) // 40)):
        # Two runs side by side, the one struck in every odd step up to the fortieth, the other in every even one.
        runs = [tmp_path / f"{pair}-{which}" for which in ("odd", "even")]
        logs = [tmp_path / "odd.log", tmp_path / "even.log"]
        words = [arguments(train_cache, run, every=EVERY) for run in runs]
        for odd in range(0, 40, 2):
            seeds, before = [pair * 40 + odd, pair * 40 + odd + 1], [newest(run) for run in runs]
            # Of the process, which may begin a few steps before, or one behind: whatever was saved last.
            places = [max(step - at, 0) for step, at in zip((odd, odd + 1), before, strict=True)]
            chosen = [strikes_at(now, random.Random(seed)) for now, seed in zip(places, seeds, strict=True)]
            given = [{"arguments": one, "strikes": each} for one, (each, _) in zip(words, chosen, strict=True)]
            ended = fresh_processes().run_all(logs, "frame_train", given)
            for i in range(2):
                with fault.trial(seeds[i]) as trial:
                    trial.hung += ended[i].code is None
                    assert ended[i].code == chosen[i][1], (chosen[i], ended[i].said)
                    problem = losses_of(runs[i], before[i], ended[i])
                    trial.lost += bool(problem)
                    assert not problem, (chosen[i], problem)
        given = [{"arguments": one, "drawn": True} for one in words]
        for run, whole in zip(runs, fresh_processes().run_all(logs, "frame_train", given), strict=True):
            assert whole.code == 0, whole.said
            assert_same_run(run, calm.run)
            assert not (run / "tmp").exists()


@pytest.mark.fault("F19")
def test_a_scheduler_signals_readers_too(fault: Fault, train_cache: Path, calm: Calm, tmp_path: Path) -> None:
    """Each signal goes to every process of the run, the second while the step goes on that the first let finish."""
    run = tmp_path / "run"
    words = arguments(train_cache, run, "--workers", "1", every=EVERY)
    strikes = [("forward", 1, -TERM), ("optimiser", 1, -TERM), ("metrics", 1, -USR1)]
    with fault.trial(0) as trial:
        ended = fresh_processes().run(tmp_path / "log", "frame_train", arguments=words, strikes=strikes)
        trial.hung += ended.code is None
        assert ended.code == REQUEUE, ended.said
        trial.lost += bool(losses_of(run, 0, ended)) or newest(run) != 3 or not calm.agrees(run, 3)
