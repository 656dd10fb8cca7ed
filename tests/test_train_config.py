from __future__ import annotations

import json
from typing import Any

import pytest

from frame.manifests.errors import InputError
from frame.train.config import UPKEEP, TrainConfig, changed, differences


def test_settings_from_a_command_line_get_the_types_of_their_fields() -> None:
    given = {"lr": "5e-4", "depth": "8", "anticipation": "false", "student": "vit_tiny", "share": "0.4", "log": "none"}
    config = changed(TrainConfig(stage="stage1"), given, where="command line")
    found = (config.lr, config.depth, config.anticipation, config.student, config.share, config.log)
    assert found == (5e-4, 8, False, "vit_tiny", 0.4, "none")


def test_settings_survive_json() -> None:
    config = changed(TrainConfig(stage="stage2"), {"lr": 0.1, "memory_frames": 3}, where="")
    stored = json.loads(json.dumps(config.to_json()))
    values = {name: value for name, value in stored.items() if name != "stage" and value is not None}
    assert changed(TrainConfig(stage="stage2"), values, where="") == config


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lerning_rate", 1, "no setting"),
        ("stage", "stage2", "no setting"),
        ("depht", 12, "depth"),
        ("depth", "twelve", "whole number"),
        ("depth", 1.5, "whole number"),
        ("depth", True, "whole number"),
        ("depth", "nan", "whole number"),
        ("lr", "fast", "a number"),
        ("anticipation", "maybe", "true or false"),
        ("scaling", "median", "mean, gradient, none"),
        ("share", 1.5, "share must be"),
        ("share", 0, "share must be"),
        ("lr", -1, "lr must be"),
        ("memory_dim", 30, "multiple of 4"),
        ("loss_dropout", 1, "loss_dropout"),
        ("batch_size", 0, "batch_size must be"),
        ("epochs", "nan", "epochs must be"),
        ("epochs", "inf", "epochs must be"),
        ("lr", "inf", "lr must be finite"),
        ("clip", "nan", "clip must be finite"),
        ("warmup_epochs", -3, "warmup_epochs must not be negative"),
        ("weight_decay", -1, "weight_decay and"),
        ("seed", 2**64 - 1, "seed must be"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, value: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        changed(TrainConfig(stage="stage1"), {name: value}, where="--set")


def test_combinations_that_make_no_run_are_refused() -> None:
    with pytest.raises(InputError, match="nothing of its own"):
        TrainConfig(stage="stage2", memory_frames=0, anticipation=False)
    with pytest.raises(InputError, match="frozen encoder"):
        TrainConfig(stage="stage2", tokens="student", encoder="finetune")
    with pytest.raises(InputError, match="1 frame ahead"):
        TrainConfig(stage="stage2", future_spatial=0)


def test_differences_name_what_decides_a_run_and_nothing_else() -> None:
    saved = TrainConfig(stage="stage1").to_json()
    asked = TrainConfig(stage="stage1", lr=0.1, workers=7, log="none", keep=9, checkpoint_every=1).to_json()
    assert differences(saved, asked) == ["lr: run None, asked 0.1"]
    assert set(UPKEEP) <= set(saved)
    before = {name: value for name, value in saved.items() if name != "train_encoder"}  # from before there was one
    assert not differences(before, saved)
    assert differences(before, {**saved, "train_encoder": False}) == ["train_encoder: run True, asked False"]
