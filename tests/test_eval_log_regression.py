"""The linear probe: its cut of train, its sweep, and its answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from frame.eval.recognise.log_regression import fit_and_predict, sweep_values, validation_cut
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress

QUIET = Progress(quiet=True)


def clusters(per_class: int, classes: int = 3, spread: float = 0.6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    return np.eye(classes)[labels] + spread * rng.standard_normal((len(labels), classes)), labels


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=2, max_size=120), st.integers(0, 5))
def test_a_cut_never_goes_through_a_group_nor_takes_a_whole_class(rows: list[tuple[int, int]], seed: int) -> None:
    labels = np.array([label for label, _ in rows])
    groups = [f"{label}/{group}" for label, group in rows]
    by_class = {label: {g for lab, g in zip(labels, groups, strict=True) if lab == label} for label in set(labels)}
    if all(len(own) == 1 for own in by_class.values()):
        with pytest.raises(InputError, match="one source video only"):
            validation_cut(labels, groups, seed=seed)
        return
    cut = validation_cut(labels, groups, seed=seed)
    held = {group for group, out in zip(groups, cut, strict=True) if out}
    assert held.isdisjoint({group for group, out in zip(groups, cut, strict=True) if not out})
    for own in by_class.values():
        wanted = min(max(1, round(len(own) / 10)), len(own) - 1)
        assert len(own & held) == wanted
    assert np.array_equal(cut, validation_cut(labels, groups, seed=seed))


def test_another_seed_is_another_cut() -> None:
    labels = np.zeros(50, dtype=int)
    groups = [str(number) for number in range(50)]
    cuts = {validation_cut(labels, groups, seed=seed).tobytes() for seed in range(5)}
    assert len(cuts) == 5


def test_the_sweep_is_dinov2s() -> None:
    values = sweep_values(45)
    assert len(values) == 45
    assert (values[0], values[-1]) == (pytest.approx(1e-6), pytest.approx(1e5))
    assert np.allclose(np.diff(np.log10(values)), 0.25)
    for count in (1, 0, -3):
        with pytest.raises(InputError, match="--sweep"):
            sweep_values(count)


def test_the_choice_and_the_answers_are_those_of_a_loop_over_sklearn() -> None:
    features, labels = clusters(40)
    few = np.flatnonzero((labels == 0) | (np.arange(120) % 40 < 12))  # so that a small C only knows the first class
    features, labels = features[few], labels[few]
    test, _ = clusters(30, seed=1)
    groups = [f"{label}/{number // 2}" for number, label in enumerate(labels)]
    found = fit_and_predict(features, labels, groups, test, sweep=5, seed=2, progress=QUIET)
    cut = validation_cut(labels, groups, seed=2)
    scores = []
    for value in sweep_values(5):
        model = LogisticRegression(C=value, max_iter=1000, tol=1e-12).fit(features[~cut], labels[~cut])
        scores.append(model.score(features[cut], labels[cut]))
    best = sweep_values(5)[int(np.argmax(scores))]  # the first of equals
    model = LogisticRegression(C=best, max_iter=1000, tol=1e-12).fit(features, labels)
    assert found.c == best
    assert found.accuracy == max(scores)
    assert found.held == cut.sum() > 0
    assert found.unfinished == 0
    assert np.array_equal(found.predicted, model.predict(test))
    assert len(set(scores)) > 1


def test_fits_that_do_not_end_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frame.eval.recognise.log_regression.MAX_ITERATIONS", 1)
    features, labels = clusters(10)
    groups = [str(number) for number in range(len(labels))]
    found = fit_and_predict(features, labels, groups, features[:0], sweep=3, seed=0, progress=QUIET)
    assert found.unfinished == 4
    assert len(found.predicted) == 0


def test_one_class_is_nothing_to_learn() -> None:
    with pytest.raises(InputError, match="two classes"):
        fit_and_predict(np.eye(3), np.zeros(3, dtype=int), list("abc"), np.eye(3), sweep=2, seed=0, progress=QUIET)
