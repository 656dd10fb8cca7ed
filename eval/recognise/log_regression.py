"""A linear classifier on frozen features: logistic regression by L-BFGS, its regularisation chosen on a part of train.

DINOv2's and DINOv3's recipe (``eval/log_regression.py`` there): features as they are, in float64; C out of 45 values
from 1e-6 to 1e5; the last fit on all of train with the C chosen. N training clips, M others, D width.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from frame.manifests.errors import InputError
from frame.manifests.progress import Progress

MAX_ITERATIONS = 1000
TOLERANCE = 1e-12
HELD_OUT = 0.1
VALUES = 45
_EXPONENTS = (-6.0, 5.0)

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """``predicted`` labels [M]; ``c``, which the sweep chose for its accuracy on the ``held`` clips; how many fits were
    ``unfinished`` after all iterations."""

    predicted: Ints
    c: float
    accuracy: float
    held: int
    unfinished: int


def validation_cut(labels_N: Ints, groups: list[str], *, seed: int) -> NDArray[np.bool_]:
    """True for the clips held out: in each class about a tenth of its groups, at least one, never all.

    Clips of one group look alike, so that a cut through a group would choose a C that remembers clips. Groups are of
    one class each; a class of one group is not held out. Raises InputError where nothing would be.
    """
    generator = np.random.default_rng(seed)
    held: set[str] = set()
    names = np.array(groups)
    for label in np.unique(labels_N):
        own = sorted(set(names[labels_N == label].tolist()))
        count = min(max(1, round(HELD_OUT * len(own))), len(own) - 1)
        held.update(own[place] for place in generator.permutation(len(own))[:count])
    cut = np.array([group in held for group in groups], dtype=bool)
    if not cut.any():
        raise InputError(
            what="No part of train can be held out to choose the regularisation.", where="the training list",
            why="every class has clips of one source video only",
            fix="evaluate on more training clips",
        )  # fmt: skip
    return cut


def sweep_values(count: int) -> list[float]:
    """``count`` values of C, evenly spaced in the logarithm from 1e-6 to 1e5. Raises InputError for less than two."""
    if count < 2:
        raise InputError(what="A sweep needs two values at least.", where=f"--sweep {count}", fix=f"use {VALUES}")
    return [float(value) for value in 10 ** np.linspace(*_EXPONENTS, count)]


def fit_and_predict(
    train_ND: Floats, labels_N: Ints, groups: list[str], test_MD: Floats, *, sweep: int, seed: int, progress: Progress
) -> Fitted:
    """Choose C on a cut of train (the smallest of the best), fit all of train with it, predict the others' labels."""
    if len(np.unique(labels_N)) < 2:
        raise InputError(what="A classifier needs clips of two classes to learn from.", where="the training list")
    values = sweep_values(sweep)
    cut = validation_cut(labels_N, groups, seed=seed)
    best, best_accuracy, unfinished = values[0], -1.0, 0
    with progress.bar("linear probe", total=len(values) + 1, unit="fits") as tick:
        for value in values:
            model = _fit(train_ND[~cut], labels_N[~cut], value)
            accuracy = float(np.mean(model.predict(train_ND[cut].astype(np.float64)) == labels_N[cut]))
            unfinished += _unfinished(model)
            if accuracy > best_accuracy:
                best, best_accuracy = value, accuracy
            tick()
        model = _fit(train_ND, labels_N, best)
        tick()
    predicted_M = model.predict(test_MD.astype(np.float64)) if len(test_MD) else np.empty(0, dtype=np.int64)
    unfinished += _unfinished(model)
    return Fitted(predicted=predicted_M, c=best, accuracy=best_accuracy, held=int(cut.sum()), unfinished=unfinished)


def _fit(features_ND: Floats, labels_N: Ints, c: float) -> LogisticRegression:
    model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS, tol=TOLERANCE, solver="lbfgs")
    with warnings.catch_warnings():
        # Counted instead: see ``unfinished``. A line search that ends at rounding is as good as done.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features_ND.astype(np.float64), labels_N)


def _unfinished(model: LogisticRegression) -> int:
    return int(max(model.n_iter_) >= MAX_ITERATIONS)
