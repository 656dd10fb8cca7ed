from __future__ import annotations

import json
import random

import pytest

from frame.train.state import RunState


def test_a_state_survives_json_and_judges_alike_afterwards() -> None:
    draw = random.Random(3)
    names = ["patch", "cls", "future_patch", "future_cls"]
    state = RunState()
    for step in range(20):
        state.step = step
        state.means.update({name: draw.random() for name in names})
        losses = {name: draw.random() + 0.1 for name in names}
        other = RunState.from_json(json.loads(json.dumps(state.to_json(), sort_keys=True)))
        assert other == state
        assert other.judge(losses) == state.judge(losses)
        assert other == state


def test_the_score_is_in_units_of_the_untrained_model() -> None:
    state = RunState()
    assert state.judge({"patch": 40.0, "cls": 0.5})
    assert state.best == 1.0
    state.step = 5
    assert state.judge({"patch": 20.0, "cls": 0.5})
    assert (state.best, state.best_step, state.stale) == (0.75, 5, 0)
    state.step = 6
    assert not state.judge({"patch": 10.0, "cls": 0.75})
    assert (state.best, state.best_step, state.stale) == (0.75, 5, 1)


def test_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 2"):
        RunState.from_json({**RunState().to_json(), "version": 2})
