"""The memory: places, ages, absent frames, and windows of the past."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import normal, randomise
from torch import Tensor

from frame.model import MemoryConfig
from frame.model.memory import Memory, past_windows, sine_positions

GRID, COUNT = (2, 3), 7
TOKENS = normal(2, COUNT, 128)


def memory(seed: int = 0, frames: int = 4) -> Memory:
    made = Memory(MemoryConfig(frames=frames, dim=16, layers=2), width=128, heads=2).eval()
    randomise(made, seed)
    return made


def past(frames: int = 4, seed: int = 1) -> Tensor:
    return normal(2, frames, COUNT, 16, seed=seed)


def attended(
    made: Memory,
    stored: Tensor,
    present: Tensor | None = None,
    age: Tensor | None = None,
    tokens: Tensor = TOKENS,
    grid: tuple[int, int] = GRID,
) -> Tensor:
    with torch.no_grad():
        return made.attend(tokens, stored, grid, present, age)


@given(h=st.integers(1, 9), w=st.integers(1, 9), quarter=st.integers(2, 8))
def test_positions_are_the_formula_written_out(h: int, w: int, quarter: int) -> None:
    found = sine_positions(h, w, 4 * quarter)
    assert found.shape == (h * w, 4 * quarter)
    waves = [4.0 * 16.0 ** (n / (quarter - 1)) for n in range(quarter)]
    for row in range(h):
        for column in range(w):
            wanted = []
            for place in (row, column):
                wanted += [3 * math.sin(2 * math.pi * place / wave) for wave in waves]
                wanted += [3 * math.cos(2 * math.pi * place / wave) for wave in waves]
            torch.testing.assert_close(found[row * w + column], torch.tensor(wanted), rtol=1e-4, atol=1e-4)


def test_places_are_related_alike_everywhere_and_in_every_grid() -> None:
    """What lies one down and two to the right has the same likeness from anywhere; the place itself has the most."""
    for h, w in ((8, 8), (30, 55)):
        places = sine_positions(h, w, 64).reshape(h, w, 64)
        likeness = torch.einsum("ijm,klm->ijkl", places, places)
        for row, column in ((0, 0), (3, 5), (h - 2, w - 3)):
            torch.testing.assert_close(likeness[row, column, row + 1, column + 2], likeness[0, 0, 1, 2])
            # Everything else is unlike by more than two neighbours are: nothing far away is taken for near.
            others = likeness[row, column].flatten().sort(descending=True).values
            torch.testing.assert_close(others[0], likeness[row, column, row, column])
            assert float(others[1]) < 0.9 * float(others[0])


def test_a_fresh_memory_begins_by_looking_at_the_same_place() -> None:
    made, count = Memory(MemoryConfig(frames=1), width=192, heads=3), 1 + 8 * 8
    seen: list[Tensor] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def weigh(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        seen.append(torch.softmax(query @ key.transpose(2, 3) / query.shape[3] ** 0.5, dim=3))
        result: Tensor = attention(query, key, value, **options)
        return result

    tokens = normal(1, count, 192)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", weigh)
        attended(made, made.store(normal(1, count, 192, seed=1), (8, 8)).detach()[:, None], tokens=tokens, grid=(8, 8))
    past_NK = seen[0][0].mean(dim=0)[1:, 1:count]  # of each patch, over heads, to the patches of the past frame
    own = past_NK.diagonal().mean() / (past_NK.sum() / past_NK.numel())
    assert float(own) > 5


def test_what_is_stored_is_the_small_tokens_with_their_places_and_cls_has_none() -> None:
    made = memory()
    with torch.no_grad():
        stored = made.store(TOKENS, GRID)
        small = TOKENS @ made.down.weight.T + made.down.bias
    torch.testing.assert_close(stored[:, 0], small[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stored[:, 1:], small[:, 1:] + sine_positions(*GRID, 16), rtol=1e-5, atol=1e-5)


def test_a_fresh_memory_changes_nothing() -> None:
    made = Memory(MemoryConfig(), width=128, heads=2)
    stored = normal(2, 5, COUNT, 64)
    assert torch.equal(attended(made, stored), TOKENS)
    assert torch.equal(attended(made, stored, torch.tensor([[True, False, True, False, False]] * 2)), TOKENS)


def test_a_stored_frame_is_read_with_its_age_and_the_current_one_with_its_places() -> None:
    made, stored = memory(), past(2)
    with torch.no_grad():
        aged = (stored + made.age[:2, None]).reshape(2, 2 * COUNT, 16)
        places = torch.cat([torch.zeros(1, 16), sine_positions(*GRID, 16)])
        x = TOKENS
        for layer in made.layers:
            x = layer(x, aged, places, made.up, None)
    torch.testing.assert_close(attended(made, stored), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("held", [0.0, 1e30, math.inf, -math.inf, math.nan])
def test_absent_frames_have_no_influence_whatever_they_hold(held: float) -> None:
    made, stored = memory(), past()
    present = torch.tensor([[True, False, True, False], [False, False, False, False]])
    stored[~present] = held
    found = attended(made, stored, present)
    there = attended(made, stored[:1, [0, 2]], age=torch.tensor([[1, 3]]), tokens=TOKENS[:1])
    torch.testing.assert_close(found[:1], there, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1:], attended(made, stored[1:, :0], tokens=TOKENS[1:]), rtol=1e-5, atol=1e-5)


def test_absent_frames_get_no_gradient_and_spoil_none() -> None:
    made, stored = memory(), past()
    stored[:, 1:] = math.nan
    stored.requires_grad_()
    made.attend(TOKENS, stored, GRID, torch.tensor([[True, False, False, False]] * 2)).square().mean().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in made.parameters() if p.grad is not None)
    assert stored.grad is not None
    assert float(stored.grad[:, 0].abs().max()) > 0
    assert float(stored.grad[:, 1:].abs().max()) == 0


def test_present_frames_of_all_ages_have_influence() -> None:
    made, stored = memory(), past()
    found = attended(made, stored)
    for age in range(4):
        changed = stored.clone()
        changed[:, age] += 1
        assert not torch.allclose(attended(made, changed), found, atol=1e-4)


def test_ages_matter_and_the_order_of_frames_does_not() -> None:
    made, stored = memory(), past()
    present = torch.tensor([[True, True, False, True]] * 2)
    ages, order = torch.tensor([[1, 2, 3, 4]] * 2), [2, 3, 0, 1]
    found = attended(made, stored, present)
    torch.testing.assert_close(attended(made, stored, present, ages), found)
    shuffled = attended(made, stored[:, order], present[:, order], ages[:, order])
    torch.testing.assert_close(shuffled, found, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(attended(made, stored, present, ages[:, order]), found, atol=1e-4)


def test_places_matter() -> None:
    """The same tokens in another grid are another memory, and look at the same memory in another way."""
    made = memory()
    with torch.no_grad():
        wide, tall = made.store(TOKENS, (2, 3))[:, None], made.store(TOKENS, (3, 2))[:, None]
    found = attended(made, wide)
    assert not torch.allclose(found, attended(made, tall), atol=1e-4)
    assert not torch.allclose(found, attended(made, wide, grid=(3, 2)), atol=1e-4)


@given(data=st.data(), past=st.integers(1, 4))
def test_windows_of_the_past_are_newest_first(data: st.DataObject, past: int) -> None:
    frames = data.draw(st.integers(past + 1, 8))
    x = normal(2, frames, 3, 2)
    found = past_windows(x, past)
    assert found.shape == (2, frames - past, past, 3, 2)
    for window in range(frames - past):
        for age in range(1, past + 1):
            assert torch.equal(found[:, window, age - 1], x[:, window + past - age])


def test_too_few_frames_for_a_window_are_refused() -> None:
    with pytest.raises(ValueError, match="3 frames hold no frame with 3 before it"):
        past_windows(normal(1, 3, 2), 3)
