"""Training a head: the recipe's numbers, what an iteration sees, what comes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from frame.eval.segment.head_training import (
    HeadExamples,
    HeadRecipe,
    backward_loss,
    batch_places,
    crop_grid,
    learning_rate,
    recipe_for,
    train_head,
)
from frame.eval.segment.heads import make_head
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress

QUIET = Progress(quiet=True)
CPU = torch.device("cpu")


def examples(count: int = 6, grid: tuple[int, int] = (4, 5), patch: int = 4, seed: int = 0) -> HeadExamples:
    """Patches of three classes, each with its own direction in noise; labels of whole patches."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(3, size=(count, *grid))
    means = np.eye(3, 8) * 4
    features = (means[ids] + generator.normal(size=(count, *grid, 8))).astype(np.float16)
    labels = ids.repeat(patch, axis=1).repeat(patch, axis=2).astype(np.uint8)
    return HeadExamples(features=features.__getitem__, labels=labels.__getitem__, grids=[grid] * count, patch=patch)


def test_the_full_recipe_is_dinov2s() -> None:
    recipe = recipe_for("full")
    assert (recipe.iterations, recipe.batch, recipe.lr, recipe.weight_decay) == (40_000, 16, 1e-3, 1e-4)
    assert (recipe.betas, recipe.warmup, recipe.warmup_ratio, recipe.power) == ((0.9, 0.999), 1500, 1e-6, 1.0)


def test_a_shorter_schedule_warms_up_as_large_a_share() -> None:
    assert (recipe_for("short").iterations, recipe_for("short").warmup) == (1000, 37)
    assert (recipe_for("80", seed=3).iterations, recipe_for("80").warmup, recipe_for("80", seed=3).seed) == (80, 3, 3)
    assert recipe_for("1").warmup == 0


@pytest.mark.parametrize("schedule", ["", "long", "0", "-5", "1.5", "²"])
def test_other_schedules_are_refused(schedule: str) -> None:
    with pytest.raises(InputError, match="full, short"):
        recipe_for(schedule)


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    recipe = recipe_for("full")
    assert learning_rate(recipe, 0) == pytest.approx(1e-9)
    # Half-way through the warm-up: the decayed rate times (1 + ratio) / 2.
    assert learning_rate(recipe, 750) == pytest.approx(1e-3 * (1 - 750 / 40_000) * (1 + 1e-6) / 2)
    assert learning_rate(recipe, 1499) < learning_rate(recipe, 1500) == pytest.approx(1e-3 * (1 - 1500 / 40_000))
    assert learning_rate(recipe, 20_000) == pytest.approx(5e-4)
    assert learning_rate(recipe, 39_999) == pytest.approx(1e-3 / 40_000)
    assert learning_rate(recipe_for("1"), 0) == 1e-3


def test_a_pass_sees_every_example_once() -> None:
    recipe = HeadRecipe(batch=4, iterations=9)
    seen = [place for iteration in range(9) for place in batch_places(6, recipe, iteration)]
    for epoch in range(6):
        assert sorted(seen[6 * epoch : 6 * epoch + 6]) == list(range(6))
    assert seen[:6] != seen[6:12]
    assert batch_places(6, recipe, 5) == seen[20:24]  # whatever was asked before
    assert batch_places(2, HeadRecipe(batch=16), 0).count(0) == 8  # fewer examples than a batch
    assert [batch_places(6, HeadRecipe(batch=4, seed=1), i) for i in range(9)] != [
        batch_places(6, recipe, i) for i in range(9)
    ]


def test_the_head_learns_what_can_be_separated() -> None:
    data = examples()
    head = make_head("linear", 8, 3, seed=0)
    losses = train_head(head, data, HeadRecipe(iterations=150, warmup=5, lr=1e-2), CPU, QUIET)
    assert not head.training
    assert losses[0] == pytest.approx(np.log(3), abs=0.1)
    scores = head(torch.from_numpy(data.features(0).astype(np.float32)).permute(2, 0, 1)[None])
    right = scores[0].argmax(dim=0).numpy() == data.labels(0)[::4, ::4]
    assert right.mean() > 0.9


def test_training_is_a_function_of_the_seed() -> None:
    data = examples(grid=(6, 6))

    def weights(seed: int, start: int = 0) -> torch.Tensor:
        torch.manual_seed(start)  # must not matter
        head = make_head("unet", 8, 3, seed=0)
        train_head(head, data, HeadRecipe(iterations=3, warmup=0, batch=2, crop=16, seed=seed), CPU, QUIET)
        return head.classify.weight.detach()

    assert torch.equal(weights(0), weights(0, start=9))
    assert not torch.equal(weights(0), weights(1))


class _Recorder(nn.Module):
    """Keeps what a head is given."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(40))
        self.seen: list[torch.Tensor] = []

    def forward(self, features_BDhw: torch.Tensor) -> torch.Tensor:
        self.seen.append(features_BDhw.detach().clone())
        return self.bias[None, :, None, None].expand(len(features_BDhw), -1, *features_BDhw.shape[2:])


def test_crops_and_flips_keep_features_and_labels_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each patch's feature is its own number, and so is its label."""
    grid = (5, 7)
    numbers = np.arange(35).reshape(grid)
    data = HeadExamples(
        features=lambda _: numbers[..., None].astype(np.float16),
        labels=lambda _: numbers.repeat(2, axis=0).repeat(2, axis=1).astype(np.uint8),
        grids=[grid], patch=2,
    )  # fmt: skip
    targets = []

    def spy(scores: torch.Tensor, labels: torch.Tensor) -> float:
        targets.append(labels)
        return backward_loss(scores, labels)

    monkeypatch.setattr("frame.eval.segment.head_training.backward_loss", spy)
    head = _Recorder()
    train_head(head, data, HeadRecipe(iterations=8, warmup=0, batch=4, crop=6), CPU, QUIET)
    corners, flips = set(), set()
    for features, labels in zip(head.seen, targets, strict=True):
        assert features.shape == (4, 1, 3, 3)
        assert torch.equal(features[:, 0].long(), labels[:, ::2, ::2])
        assert torch.equal(labels[:, ::2, ::2], labels[:, 1::2, 1::2])
        corners |= {int(one.min()) for one in features}
        flips |= {bool(one[0, 0, 0] > one[0, 0, 1]) for one in features}
    assert flips == {False, True}
    assert len(corners) > 8
    assert max(corners) == 2 * 7 + 4  # the last corner is reached


def test_a_crop_avoids_one_class_alone() -> None:
    """A small spot of a second class: most crops without attempts would miss it."""
    labels = np.zeros((40, 40), dtype=np.uint8)
    labels[24:28, 24:28] = 1
    data = HeadExamples(
        features=lambda _: labels[..., None].astype(np.float16), labels=lambda _: labels, grids=[(40, 40)], patch=1
    )
    head = _Recorder()
    train_head(head, data, HeadRecipe(iterations=20, warmup=0, batch=4, crop=6), CPU, QUIET)
    share = torch.cat(head.seen).mean(dim=(1, 2, 3))
    assert float((share > 0).float().mean()) > 0.1  # 0.05 of single draws


def test_crops_are_as_small_as_the_smallest_example_asks() -> None:
    sizes = HeadExamples(
        features=lambda _: np.zeros((1, 1, 1), np.float16), labels=lambda _: np.zeros((1, 1), np.uint8),
        grids=[(22, 30), (40, 16)], patch=16,
    )  # fmt: skip
    assert crop_grid(sizes, 512) == (22, 16)
    assert crop_grid(sizes, 300) == (18, 16)
    assert crop_grid(sizes, 1) == (1, 1)


def test_the_loss_is_that_of_labelled_pixels_alone() -> None:
    """Against torch's own upsampling and mean, with the gradients."""
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(3, 4, 2, 3, generator=generator, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    labels = torch.randint(0, 4, (3, 10, 9), generator=generator)
    labels[0, :4], labels[2] = 255, 255
    large = functional.interpolate(theirs, size=(10, 9), mode="bilinear", align_corners=False)
    expected = functional.cross_entropy(large, labels, ignore_index=255)
    expected.backward()  # type: ignore[no-untyped-call]
    assert backward_loss(ours, labels) == pytest.approx(expected.item(), rel=1e-5)
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert not ours.grad[2].any()


def test_a_training_on_void_alone_ends_well() -> None:
    data = examples()
    void = HeadExamples(
        features=data.features, labels=lambda _: np.full((16, 20), 255, np.uint8), grids=data.grids, patch=4
    )
    assert train_head(make_head("linear", 8, 3, 0), void, HeadRecipe(iterations=2), CPU, QUIET) == [0, 0]


def test_nothing_to_learn_from_and_broken_features_are_refused() -> None:
    data = examples()
    none = HeadExamples(features=data.features, labels=data.labels, grids=[], patch=4)
    with pytest.raises(InputError, match="no labelled frame"):
        train_head(make_head("linear", 8, 3, 0), none, HeadRecipe(), CPU, QUIET)
    broken = HeadExamples(
        features=lambda _: np.full((4, 5, 8), np.nan, np.float32), labels=data.labels, grids=data.grids, patch=4
    )
    with pytest.raises(InputError, match="no number"):
        train_head(make_head("linear", 8, 3, 0), broken, HeadRecipe(iterations=2), CPU, QUIET)
