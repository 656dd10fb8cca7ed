"""The same windows whatever the number of ranks: every step the same ones, none missed, none twice; also where a run
goes on with another number of ranks than it was begun with."""

from __future__ import annotations

import json
import signal
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fresh import fresh_processes
from small_runs import figures
from store_caches import CLS, PATCH, make_cache
from tally import Fault
from trainings import arguments, newest

from frame.train.batches import BatchDataset, SegmentReader, Steps
from frame.train.windows import WindowPlan, WindowShape, find_spans, fitting

RANKS = (1, 2, 4, 8)
REQUEUE = 75


@pytest.mark.fault("F21")
def test_ranks_share_out_every_global_batch_of_two_epochs(fault: Fault, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", lengths=(9, 30, 0, 7, 14, 11, 6, 23, 12), rows_per_unit=16).open()
    shape = WindowShape(windows=2, past=3, future=2)
    columns = {PATCH: Steps(first=-3, stop=2), CLS: Steps(first=0, stop=4)}
    spans = fitting(find_spans(cache, 0, columns, splits_wanted="train", seed=0), shape)
    reader = SegmentReader([cache], columns)
    for seed, (ranks, parts) in enumerate((ranks, parts) for ranks in RANKS for parts in (1, 2)):
        plan = WindowPlan(spans, shape, seed=seed, max_stride=3, visits=8)
        shares = [
            BatchDataset(plan=plan, reader=reader, size=16, rank=rank, ranks=ranks, accumulation=parts)
            for rank in range(ranks)
        ]
        seen: Counter[Any] = Counter()
        with fault.trial(seed) as trial:
            for step in range(plan.per_epoch // 8):
                whole = plan.batch(step, 16)
                mine = [one for part in range(parts) for share in shares for one in share.segments(step * parts + part)]
                trial.duplicated += mine != whole
                seen.update(mine)
            # Two epochs, to the end of the last: nothing is missed, and nothing comes more often than it was planned.
            wanted = Counter(plan.segments(0, 2 * plan.per_epoch))
            trial.lost += seen != wanted


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def trained(folder: Path, words: list[str], ranks: int, code: int, strikes: list[Any]) -> list[list[Any]]:
    """Train with so many real processes; the windows of each step, as every rank has written them down."""
    folder.mkdir(exist_ok=True)
    logs = [folder / f"log{rank}" for rank in range(ranks)]
    seen = folder / f"seen-{ranks}"
    given = [{"arguments": words, "seen": str(seen), "strikes": strikes if not rank else []} for rank in range(ranks)]
    ended = fresh_processes().run_all(logs, "ranked", given, shared=free_port() if ranks > 1 else "")
    assert [one.code for one in ended] == [code] * ranks, "\n".join(one.said for one in ended)
    lines = [json.loads(line) for rank in range(ranks) for line in Path(f"{seen}.{rank}").read_text().splitlines()]
    steps = sorted({step for step, _ in lines})
    return [[step, sorted(window for at, found in lines if at == step for window in found)] for step in steps]


@pytest.mark.fault("F21")
def test_real_ranks_train_on_the_same_windows_and_a_run_goes_on_with_others(
    fault: Fault, train_cache: Path, tmp_path: Path
) -> None:
    """One rank makes six steps; then every number of ranks goes on with the run that the one before was stopped in."""
    alone = arguments(train_cache, tmp_path / "alone", steps=6)
    whole = trained(tmp_path / "1", alone, 1, 0, [])
    words, before = arguments(train_cache, tmp_path / "run", steps=6), 0
    for number, ranks in enumerate((8, 2, 4)):
        with fault.trial(ranks) as trial:
            last = number == 2
            strikes = [] if last else [("step", 1, signal.SIGTERM)]
            found = trained(tmp_path / f"{ranks}x", words, ranks, 0 if last else REQUEUE, strikes)
            after = newest(tmp_path / "run")
            trial.lost += found != whole[before:after] or after != 2 * (number + 1)
            before = after
    for mine, theirs in zip(figures(tmp_path / "run"), figures(tmp_path / "alone"), strict=True):
        assert (mine["kind"], mine["step"]) == (theirs["kind"], theirs["step"])
        assert mine["patch"] == pytest.approx(theirs["patch"], rel=1e-3)
        assert mine["cls"] == pytest.approx(theirs["cls"], rel=1e-3)
