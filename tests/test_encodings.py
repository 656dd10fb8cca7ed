"""What --encoding says, and how it is settled on a sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frame.manifests.errors import InputError
from frame.pipeline.encoding_option import STEP, Asked, parse_encoding
from frame.pipeline.encodings import encoded_as, settle, spread_of, try_out
from frame.pipeline.store.columns import Column
from frame.pipeline.teach import scales_of
from frame.pipeline.teachers import encode

WIDTH = 24
PATCH = Column(name="dino.patch", shape=(49, WIDTH), encoding="float16", teacher="dino")
FRAMES = Column(name="frames", shape=(8, 8, 3), encoding="raw")


def walk(seed: int, *, frames: int = 16, change: float = 0.42, clips: int = 3) -> list[np.ndarray]:
    """Features that change by ``change`` of their deviation from frame to frame, as real ones do; channels have means
    and deviations of their own."""
    rng = np.random.default_rng(seed)
    keep = 1 - change**2 / 2  # of a first-order process of this step
    found = []
    for _ in range(clips):
        x = [rng.standard_normal((49, WIDTH))]
        for _ in range(frames - 1):
            x.append(keep * x[-1] + np.sqrt(1 - keep**2) * rng.standard_normal((49, WIDTH)))
        found.append((np.stack(x) * np.linspace(0.8, 3, WIDTH) + np.linspace(-2, 2, WIDTH)).astype(np.float32))
    return found


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("float16", Asked(kind="float16")),
        ("int8", Asked(kind="int8")),
        ("residual", Asked(kind="residual", number=STEP)),
        ("residual:0.2", Asked(kind="residual", number=0.2)),
        ("auto:0.9995", Asked(kind="auto", number=0.9995)),
    ],
)
def test_what_can_be_asked_for(text: str, asked: Asked) -> None:
    assert parse_encoding(text) == asked


@pytest.mark.parametrize(
    "text",
    [
        *("", "float32", "float16:", "int8:3", "residual:", "residual:x", "residual:0", "residual:-1", "residual:2"),
        *("auto", "auto:", "auto:1", "auto:0.5", "auto:nan", "residual:nan", "residual:inf", "residual:0.1:2"),
    ],
)
def test_what_cannot_be_is_one_screen(text: str) -> None:
    with pytest.raises(InputError, match="makes no sense"):
        parse_encoding(text)


def test_plain_encodings_need_no_sample_and_leave_the_frames_alone() -> None:
    columns, trials = settle({"frames": FRAMES, PATCH.name: PATCH}, parse_encoding("int8"), {})
    assert columns == {"frames": FRAMES, PATCH.name: replace(PATCH, encoding="int8")}
    assert trials == []


def test_a_step_is_a_share_of_its_channels_deviation() -> None:
    sample = walk(0)
    columns, trials = settle({PATCH.name: PATCH}, parse_encoding("residual:0.2"), {PATCH.name: sample})
    steps = columns[PATCH.name].steps
    assert steps is not None
    tokens = np.concatenate(sample).reshape(-1, WIDTH).astype(np.float64)
    assert np.allclose(steps.step, 0.2 * tokens.std(axis=0), rtol=1e-6)
    assert np.allclose(steps.mean, tokens.mean(axis=0), rtol=1e-4, atol=1e-6)
    assert [np.float32(value) for value in (*steps.step, *steps.mean)] == [*steps.step, *steps.mean]
    (chosen,) = (trial for trial in trials if trial.chosen)
    assert chosen.name == "residual:0.2"
    assert {trial.encoding for trial in trials} == {"float16", "int8", "residual"}


def test_a_channel_that_does_not_move_in_the_sample_may_move_later() -> None:
    sample = walk(0)
    for features in sample:
        features[..., 5] = 1.0
    column = encoded_as(PATCH, "residual", 0.1, spread_of(sample))
    assert column.steps is not None
    moved = torch.from_numpy(sample[0].copy())
    moved[..., 5] = 300.0
    assert bool(encode(moved, "residual", scales_of(column.steps, "cpu")).finite.all())


def test_one_sample_without_a_finite_feature_is_refused() -> None:
    with pytest.raises(InputError, match="finite"):
        spread_of([np.full((2, 49, WIDTH), np.nan, np.float32)])


def test_rows_that_are_not_finite_do_not_count() -> None:
    sample = walk(0)
    column = encoded_as(PATCH, "residual", 0.1, spread_of(sample))
    whole = try_out(column, sample)
    spoiled = [features.copy() for features in sample]
    spoiled[0][3, 2, 1] = np.inf
    assert encoded_as(PATCH, "residual", 0.1, spread_of(spoiled)).steps is not None
    assert abs(try_out(column, spoiled).mean_cosine - whole.mean_cosine) < 1e-5


@settings(max_examples=12, deadline=None)
@given(cosine=st.sampled_from([0.99, 0.995, 0.999, 0.9995, 0.9999]), seed=st.integers(0, 99))
def test_auto_takes_the_cheapest_that_reaches_the_cosine(cosine: float, seed: int) -> None:
    sample = walk(seed)
    columns, trials = settle({PATCH.name: PATCH}, Asked(kind="auto", number=cosine), {PATCH.name: sample})
    (chosen,) = (trial for trial in trials if trial.chosen)
    assert chosen.encoding == "residual"
    assert chosen.mean_cosine >= cosine
    assert chosen.mean_cosine < 1 - (1 - cosine) / 2  # and not much more was paid for
    assert all(trial.bits >= chosen.bits for trial in trials if trial.mean_cosine >= chosen.mean_cosine)
    again = try_out(columns[PATCH.name], sample)
    assert (again.bits, again.mean_cosine) == (chosen.bits, chosen.mean_cosine)


def test_auto_says_when_nothing_is_exact_enough() -> None:
    with pytest.raises(InputError, match="No encoding of dino"):
        settle({PATCH.name: PATCH}, Asked(kind="auto", number=1 - 1e-12), {PATCH.name: walk(0)})


def test_less_change_from_frame_to_frame_takes_fewer_bits() -> None:
    bits = []
    for change in (0.1, 0.4, 1.0):
        sample = walk(0, change=change)
        bits.append(try_out(encoded_as(PATCH, "residual", 0.1, spread_of(sample)), sample).bits)
    assert bits == sorted(bits)
    assert bits[0] < bits[2] - 1


def test_the_same_sample_settles_the_same() -> None:
    a, b = (settle({PATCH.name: PATCH}, Asked(kind="auto", number=0.999), {PATCH.name: walk(1)}) for _ in range(2))
    assert a == b
