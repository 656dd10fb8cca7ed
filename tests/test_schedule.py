from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from frame.train.schedule import lr_factor


def test_warm_up_is_linear_from_a_hundredth() -> None:
    assert lr_factor(0.0, warmup=2.0, cycle=10.0) == pytest.approx(0.01)
    assert lr_factor(1.0, warmup=2.0, cycle=10.0) == pytest.approx(0.505)
    assert lr_factor(2.0, warmup=2.0, cycle=10.0) == 1.0


def test_after_the_warm_up_it_is_torchs_cosine_with_warm_restarts() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2)
    for quarter in range(4 * 80):
        theirs.step(quarter / 4)  # type: ignore[no-untyped-call]
        mine = lr_factor(1.5 + quarter / 4, warmup=1.5, cycle=10.0)
        assert mine == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)


def test_restarts_come_after_10_30_and_70_epochs() -> None:
    for restart in (10, 30, 70, 150):
        assert lr_factor(restart - 1e-6, warmup=0.0, cycle=10.0) < 1e-6
        assert lr_factor(restart, warmup=0.0, cycle=10.0) == 1.0


@given(st.floats(0, 1000), st.floats(0, 20), st.floats(0.01, 50))
def test_the_factor_stays_between_nothing_and_all(epoch: float, warmup: float, cycle: float) -> None:
    assert 0.0 <= lr_factor(epoch, warmup=warmup, cycle=cycle) <= 1.0
