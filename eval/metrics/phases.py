"""What a linear model can read from the embedding of a frame: which phase an action is in, and how far it has come.

T frames of a video, N frames of several, D width of the embeddings, K phases, B boundaries between phases. A video is
one array [T, D], with labels [T]. Protocols of CARL (Penn Action, Pouring, FineGym).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import Tensor
from torch.nn import functional

from frame.manifests.errors import InputError

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]

FRACTIONS = (0.1, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Videos:
    """Embeddings and labels of the frames of several videos, in one order. Frames labelled -1 must be gone."""

    embeddings: Sequence[Floats]  # [T, D] each
    labels: Sequence[Labels]  # [T] each

    def first(self, fraction: float, *, least: int = 1) -> Videos:
        """The first int(fraction x videos) of them, but ``least``: no shuffle, as in the reference."""
        count = max(least, int(fraction * len(self.embeddings)))
        return Videos(embeddings=self.embeddings[:count], labels=self.labels[:count])


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearRecipe:
    """How FineGym's classifier is trained: SGD over batches of whole videos, the rate falling to 0 as a cosine."""

    rate: float = 50.0
    momentum: float = 0.9
    decay: float = 1e-6
    epochs: int = 100
    videos: int = 10  # a batch; an incomplete last one is dropped
    seed: int = 0


def phase_accuracy(train: Videos, val: Videos) -> float:
    """Frame accuracy on ``val`` of a multinomial logistic regression (L-BFGS, C = 1) on all frames of ``train``.

    With two phases too the reference fits one weight vector for each. Their penalty is half that of the difference of
    the two, which is what scikit-learn fits nowadays: C = 2 there is C = 1 here.

    Raises InputError where the training frames have fewer than two phases: there is nothing to tell apart.
    """
    labels_N = np.concatenate(list(train.labels)) if len(train.labels) else np.empty(0, dtype=int)
    found = len(np.unique(labels_N))
    if found < 2:
        raise InputError(
            what="There are not two phases to tell apart.",
            why=f"the {len(train.labels)} training videos have the labels {sorted(set(labels_N.tolist()))}",
            fix="give more training videos, or a larger fraction",
        )
    model = LogisticRegression(C=2.0 if found == 2 else 1.0, max_iter=100_000)
    model.fit(np.concatenate(list(train.embeddings)), labels_N)
    return float(model.score(np.concatenate(list(val.embeddings)), np.concatenate(list(val.labels))))


def phase_progression(train: Videos, val: Videos, phases: int) -> float:
    """R squared on ``val``, mean over the boundaries, of least squares from an embedding to ``progress``.

    It can be negative. nan where R squared is not defined: fewer than two frames.
    """
    inputs_ND, val_ND = (np.concatenate(list(side.embeddings)) for side in (train, val))
    targets_NB, val_NB = (
        np.concatenate([progress(labels_T, phases) for labels_T in side.labels]) for side in (train, val)
    )
    if len(val_ND) < 2:
        return float("nan")
    predicted_NB = LinearRegression().fit(inputs_ND, targets_NB).predict(val_ND)
    return float(np.mean([_r2(val_NB[:, at], predicted_NB[:, at]) for at in range(phases - 1)]))


def progress(labels_T: Labels, phases: int) -> NDArray[np.float64]:
    """How far each frame is from the end of each phase but the last, [T, B]: (t - last frame of the phase) / T.

    A phase that a video does not have ends where the next one that it has begins, as in TCC's present code (CARL's
    fails there), and after the last frame where none follows.
    """
    count = len(labels_T)
    ends = [_end(labels_T, phase) for phase in range(phases - 1)]
    return np.stack([(np.arange(count) - end) / count for end in ends], axis=1)


def linear_accuracy(train: Videos, val: Videos, classes: int, recipe: LinearRecipe, device: torch.device) -> float:
    """Frame accuracy on ``val`` of a linear layer trained with SGD on ``train``: FineGym's classification.

    Deterministic: weights and the order of videos come from ``recipe.seed``. Raises InputError with fewer training
    videos than a batch, and where training diverged.
    """
    if len(train.embeddings) < recipe.videos:
        raise InputError(
            what="There are fewer training videos than one batch has.",
            why=f"{len(train.embeddings)} videos, and a batch has {recipe.videos}; incomplete ones are dropped",
            fix="give more training videos, or a larger fraction",
        )
    weight_KD, bias_K = _train_linear(train, classes, recipe, device)
    embeddings_ND = torch.from_numpy(np.concatenate(list(val.embeddings))).to(device, torch.float32)
    labels_N = torch.from_numpy(np.concatenate(list(val.labels))).to(device)
    return float((functional.linear(embeddings_ND, weight_KD, bias_K).argmax(dim=1) == labels_N).double().mean())


def _train_linear(train: Videos, classes: int, recipe: LinearRecipe, device: torch.device) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(recipe.seed)
    width = train.embeddings[0].shape[1]
    # The initial values of torch.nn.Linear: uniform within 1 / sqrt(width).
    start = [(torch.rand(shape, generator=chance) * 2 - 1) / width**0.5 for shape in ((classes, width), (classes,))]
    weight_KD, bias_K = (values.to(device).requires_grad_() for values in start)
    optimizer = torch.optim.SGD(
        [weight_KD, bias_K], lr=recipe.rate, momentum=recipe.momentum, weight_decay=recipe.decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=recipe.epochs)
    inputs = [torch.from_numpy(np.asarray(each)).to(device, torch.float32) for each in train.embeddings]
    targets = [torch.from_numpy(np.asarray(each)).to(device, torch.int64) for each in train.labels]
    for _ in range(recipe.epochs):
        order = torch.randperm(len(inputs), generator=chance).tolist()
        for at in range(0, len(order) - recipe.videos + 1, recipe.videos):
            batch = order[at : at + recipe.videos]
            logits_NK = functional.linear(torch.cat([inputs[number] for number in batch]), weight_KD, bias_K)
            loss = functional.cross_entropy(logits_NK, torch.cat([targets[number] for number in batch]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    if not (weight_KD.isfinite().all() and bias_K.isfinite().all()):
        raise InputError(
            what="The linear classifier diverged.", why="its weights are no longer finite", fix="use a smaller rate"
        )
    return weight_KD.detach(), bias_K.detach()


def _end(labels_T: Labels, phase: int) -> int:
    own = np.flatnonzero(labels_T == phase)
    if own.size:
        return int(own[-1])
    later = np.flatnonzero(labels_T > phase)
    return int(later[0]) if later.size else len(labels_T)


def _r2(true_N: NDArray[np.float64], predicted_N: NDArray[np.float64]) -> float:
    residual = float(np.square(true_N - predicted_N).sum())
    spread = float(np.square(true_N - true_N.mean()).sum())
    # A constant target: 1 where it was hit exactly, else 0, as scikit-learn has it.
    return 1 - residual / spread if spread else float(residual == 0)
