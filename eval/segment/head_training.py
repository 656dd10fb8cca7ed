"""Training a head on features that were taken once: DINOv2's linear segmentation recipe, as far as cached features go.

Kept: AdamW (1e-3, weight decay 1e-4 on everything, betas 0.9 and 0.999), linear warm-up, a learning rate that falls
linearly to 0, 16 pictures an iteration, cross entropy of the bilinearly upsampled scores, void left out, crops of at
most 512 pixels a side of which no class fills more than three quarters (ten attempts), flips.

Dropped, because the features are those of whole, unchanged frames: photometric distortion and resizing by 0.5 to 2. A
crop is a crop of the features of the whole frame, at whole patches, and a flip mirrors the feature map (which changes
nothing for the linear head, whose loss is symmetric, and does for the U-Net).

Every draw is a pure function of the seed and the iteration. B batch, D width, C classes, h w grid, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from frame.eval.segment.feature_store import Features
from frame.eval.segment.heads import upsampled
from frame.eval.segment.labelled_clip import VOID, Labels
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress

FULL_ITERATIONS = 40_000
SHORT_ITERATIONS = 1_000
_CROP_ATTEMPTS = 10
_MOST_OF_ONE_CLASS = 0.75
# What a draw is for, so that no two draws share their numbers.
_ORDER, _CROPS = 0, 1


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadRecipe:
    """How a head is trained. ``warmup`` iterations rise linearly from ``warmup_ratio`` of the rate; ``crop`` is the
    longest side of a crop in pixels.
    """

    iterations: int = FULL_ITERATIONS
    warmup: int = 1_500
    batch: int = 16
    lr: float = 1e-3
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_ratio: float = 1e-6
    power: float = 1.0
    crop: int = 512
    seed: int = 0


def recipe_for(schedule: str, seed: int = 0) -> HeadRecipe:
    """``full`` (40,000 iterations), ``short`` (1,000) or a number of iterations; the warm-up keeps its share (3.75 %).

    Raises InputError for anything else.
    """
    named = {"full": FULL_ITERATIONS, "short": SHORT_ITERATIONS}
    if schedule not in named and not (schedule.isascii() and schedule.isdigit() and int(schedule) > 0):
        raise InputError(
            what="There is no such schedule.",
            where=f"--schedule {schedule}",
            fix="use full, short, or a number of iterations",
        )
    iterations = named[schedule] if schedule in named else int(schedule)
    whole = HeadRecipe()
    return HeadRecipe(iterations=iterations, warmup=iterations * whole.warmup // whole.iterations, seed=seed)


def learning_rate(recipe: HeadRecipe, iteration: int) -> float:
    """Of one iteration, counted from 0: polynomial decay to 0, times the warm-up."""
    rate: float = recipe.lr * (1 - iteration / recipe.iterations) ** recipe.power
    if iteration < recipe.warmup:
        rate *= 1 - (1 - iteration / recipe.warmup) * (1 - recipe.warmup_ratio)
    return rate


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadExamples:
    """Frames to learn from: features [h, w, D] by place, labels [h x patch, w x patch] by place, and the grids."""

    features: Callable[[int], Features]
    labels: Callable[[int], Labels]
    grids: Sequence[tuple[int, int]]
    patch: int


def train_head(
    head: nn.Module, examples: HeadExamples, recipe: HeadRecipe, device: torch.device, progress: Progress,
    what: str = "head",
) -> list[float]:  # fmt: skip
    """Train ``head`` in place and leave it in evaluation mode; the loss of every iteration.

    Raises InputError where there is nothing to learn from, and where the loss stops being a number.
    """
    if not examples.grids:
        raise InputError(what="There is no labelled frame to learn from.", where=what)
    head.to(device).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
    losses = []
    with progress.bar(f"training {what}", total=recipe.iterations, unit="iterations") as tick:
        for iteration in range(recipe.iterations):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, iteration)
            features_BDhw, labels_BHW = _batch(examples, recipe, iteration)
            optimizer.zero_grad(set_to_none=True)
            losses.append(backward_loss(head(features_BDhw.to(device)), labels_BHW.to(device)))
            optimizer.step()
            if not math.isfinite(losses[-1]):
                raise InputError(
                    what="The head's loss is no number any more.",
                    where=f"{what}, iteration {iteration}",
                    fix="check the features: --store float32 where float16 is too coarse",
                )
            tick(remark=f"loss {losses[-1]:.3f}")
    head.eval()
    return losses


def backward_loss(scores_BChw: Tensor, labels_BHW: Tensor) -> float:
    """Mean cross entropy over the labelled pixels of a batch, 0 where all is void, and its gradients in the head.

    One picture at a time: scores at the size of the labels would take gigabytes for a batch of many classes.
    """
    labelled = (labels_BHW != VOID).sum().clamp(min=1)
    leaf_BChw = scores_BChw.detach().float().requires_grad_()
    total = torch.zeros((), device=scores_BChw.device)
    for scores_Chw, labels_HW in zip(leaf_BChw, labels_BHW, strict=True):
        scores_1CHW = upsampled(scores_Chw[None], (labels_HW.shape[0], labels_HW.shape[1]))
        summed = functional.cross_entropy(scores_1CHW, labels_HW[None], ignore_index=VOID, reduction="sum")
        part = summed / labelled
        part.backward()  # type: ignore[no-untyped-call]
        total += part.detach()
    scores_BChw.backward(leaf_BChw.grad)  # type: ignore[no-untyped-call]
    return total.item()


def batch_places(count: int, recipe: HeadRecipe, iteration: int) -> list[int]:
    """Which examples an iteration sees: one shuffled pass after the other, cut into batches."""
    places = []
    shuffled: dict[int, NDArray[np.int64]] = {}
    for drawn in range(iteration * recipe.batch, (iteration + 1) * recipe.batch):
        epoch, place = divmod(drawn, count)
        if epoch not in shuffled:
            shuffled[epoch] = np.random.default_rng([recipe.seed, _ORDER, epoch]).permutation(count)
        places.append(int(shuffled[epoch][place]))
    return places


def crop_grid(examples: HeadExamples, crop: int) -> tuple[int, int]:
    """Rows and columns of patches that every example can give: at most ``crop`` pixels, at least one patch."""
    most = max(1, crop // examples.patch)
    return min(most, *(rows for rows, _ in examples.grids)), min(most, *(columns for _, columns in examples.grids))


def _batch(examples: HeadExamples, recipe: HeadRecipe, iteration: int) -> tuple[Tensor, Tensor]:
    """float32 [B, D, h, w] and int64 [B, H, W]."""
    generator = np.random.default_rng([recipe.seed, _CROPS, iteration])
    grid = crop_grid(examples, recipe.crop)
    features, labels = [], []
    for place in batch_places(len(examples.grids), recipe, iteration):
        whole_HW = examples.labels(place)
        row, column = _corner(whole_HW, examples.grids[place], grid, examples.patch, generator)
        one_hwD = examples.features(place)[row : row + grid[0], column : column + grid[1]]
        one_HW = _cut(whole_HW, (row, column), grid, examples.patch)
        if generator.random() < 0.5:
            one_hwD, one_HW = one_hwD[:, ::-1], one_HW[:, ::-1]
        features.append(one_hwD)
        labels.append(one_HW)
    features_BDhw = torch.from_numpy(np.stack(features).astype(np.float32)).permute(0, 3, 1, 2)
    return features_BDhw.contiguous(), torch.from_numpy(np.stack(labels).astype(np.int64))


def _corner(
    labels_HW: Labels, whole: tuple[int, int], grid: tuple[int, int], patch: int, generator: np.random.Generator
) -> tuple[int, int]:
    """Where to cut: the first of ten draws in which no class has more than three quarters, else the tenth."""
    room = [own - wanted for own, wanted in zip(whole, grid, strict=True)]
    corner = (0, 0)
    if not any(room):
        return corner
    for _ in range(_CROP_ATTEMPTS):
        corner = (int(generator.integers(room[0] + 1)), int(generator.integers(room[1] + 1)))
        cut = _cut(labels_HW, corner, grid, patch)
        counts = np.bincount(cut[cut != VOID], minlength=1)
        if np.count_nonzero(counts) > 1 and counts.max() < _MOST_OF_ONE_CLASS * counts.sum():
            break
    return corner


def _cut(labels_HW: Labels, corner: tuple[int, int], grid: tuple[int, int], patch: int) -> Labels:
    top, left = (place * patch for place in corner)
    return labels_HW[top : top + grid[0] * patch, left : left + grid[1] * patch]
