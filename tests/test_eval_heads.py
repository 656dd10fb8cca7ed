"""Heads: their parts, their shapes, their seeds."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from frame.eval.segment.heads import LinearHead, UNetHead, make_head, upsampled
from frame.manifests.errors import InputError


def test_the_linear_head_is_batch_norm_and_one_map_a_token() -> None:
    head = make_head("linear", 6, 3, seed=0)
    assert isinstance(head, LinearHead)
    features = torch.randn(4, 6, 2, 5, generator=torch.Generator().manual_seed(0)) * 3 + 2
    given = head(features)  # in training: the statistics of the batch
    mean, var = features.mean(dim=(0, 2, 3)), features.var(dim=(0, 2, 3), unbiased=False)
    normal = (features - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    weight = head.classify.weight[:, :, 0, 0]
    torch.testing.assert_close(given, torch.einsum("bdhw,cd->bchw", normal, weight), atol=1e-5, rtol=1e-4)
    assert sum(p.numel() for p in head.parameters()) == 2 * 6 + 6 * 3 + 3


def test_in_evaluation_a_frame_does_not_depend_on_its_batch() -> None:
    head = make_head("linear", 6, 3, seed=0)
    features = torch.randn(4, 6, 2, 5, generator=torch.Generator().manual_seed(0))
    head(features)
    head.eval()
    torch.testing.assert_close(head(features)[:1], head(features[:1]))
    head.train()
    assert not torch.allclose(head(features)[:1], head(features[:1]))


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (3, 4), (5, 7)])
def test_the_unet_gives_twice_the_grid(grid: tuple[int, int]) -> None:
    head = make_head("unet", 12, 4, seed=0)
    assert isinstance(head, UNetHead)
    assert head(torch.randn(2, 12, *grid)).shape == (2, 4, 2 * grid[0], 2 * grid[1])


def test_the_unet_sees_neighbours_and_the_linear_head_does_not() -> None:
    features = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    other = features.clone()
    other[0, :, 3, 3] += 1
    for name, moved in (("linear", False), ("unet", True)):
        head = make_head(name, 8, 3, seed=0).eval()  # type: ignore[arg-type]
        assert torch.equal(head(features)[..., 0, 0], head(other)[..., 0, 0]) != moved


def test_a_seed_is_a_head_and_the_global_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (make_head("unet", 8, 3, seed) for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.classify.weight, other.classify.weight)
    linear = make_head("linear", 4000, 20, seed=0)
    assert 0.0095 < float(linear.classify.weight.detach().std()) < 0.0105
    assert not linear.classify.bias.any()


def test_scores_are_upsampled_with_corners_not_aligned() -> None:
    scores = torch.tensor([0.0, 1.0])[None, None, None]
    torch.testing.assert_close(upsampled(scores, (1, 4))[0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))


@pytest.mark.parametrize("size", [(3, 5), (1, 1), (48, 80), (50, 79), (2, 4)])
def test_upsampling_is_torchs_own(size: tuple[int, int]) -> None:
    scores = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsampled(scores, size), expected)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(InputError, match="linear or unet"):
        make_head("segmenter", 8, 3, seed=0)  # type: ignore[arg-type]


def test_there_is_no_dropout() -> None:
    assert not any(isinstance(module, nn.Dropout) for module in make_head("linear", 8, 3, seed=0).modules())
