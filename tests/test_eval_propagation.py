"""The kernel against a plain dense implementation of the references' definitions, and both against their outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from frame.eval.propagate import propagation
from frame.eval.propagate.preset import load_preset
from frame.eval.propagate.propagation import Propagation, Propagator
from frame.manifests.errors import InputError

DINO = Propagation(
    temperature=0.1, topk=5, radius=12, shape="square", mask_first=True, context=7, queue="after_first", ties="keep"
)
CRW = Propagation(
    temperature=0.7, topk=7, radius=3, shape="circle", mask_first=False, context=5, queue="padded", ties="cut"
)
SHARED = os.environ.get("FRAME_SHARED")


def dense(features_ThwD: Tensor, labels_hwC: Tensor, knobs: Propagation) -> Tensor:
    """All soft maps [T, h, w, C]: whole affinities with a whole mask, copies of frames as copies."""
    frames, height, width, _ = features_ThwD.shape
    keys_TLD = features_ThwD.flatten(1, 2)
    if knobs.cosine:
        keys_TLD = functional.normalize(keys_TLD, dim=-1)
    maps_TLC = [labels_hwC.flatten(0, 1)]
    near_LL = loop_mask(height, width, knobs)
    for now in range(1, frames):
        recent = {
            "after_first": list(range(1, now)),
            "from_first": list(range(now)),
            "padded": [0] * knobs.context + list(range(now)),
        }[knobs.queue]
        context = [0, *recent[len(recent) - min(len(recent), knobs.context) :]]
        allowed = [near_LL if place or knobs.mask_first else torch.ones_like(near_LL) for place in range(len(context))]
        similar_FLL = torch.stack([keys_TLD[now] @ keys_TLD[frame].T for frame in context]) / knobs.temperature
        similar_FLL = torch.where(torch.stack(allowed), similar_FLL, -torch.inf)
        weigh = dense_each if knobs.topk_per_frame else dense_joint
        new_LC = weigh(similar_FLL, torch.stack([maps_TLC[frame] for frame in context]), knobs)
        if knobs.minmax_stored:
            for channel in range(new_LC.shape[1]):
                if new_LC[:, channel].max() > 0:
                    new_LC[:, channel] -= new_LC[:, channel].min()
                    new_LC[:, channel] /= new_LC[:, channel].max()
        maps_TLC.append(new_LC)
    return torch.stack(maps_TLC).reshape(frames, height, width, -1)


def loop_mask(height: int, width: int, knobs: Propagation) -> Tensor:
    cells = [(row, column) for row in range(height) for column in range(width)]
    mask = torch.ones(len(cells), len(cells), dtype=torch.bool)
    for one, (row, column) in enumerate(cells):
        for two, (other_row, other_column) in enumerate(cells):
            down, right = abs(row - other_row), abs(column - other_column)
            if knobs.shape == "square":
                mask[one, two] = down <= knobs.radius and right <= knobs.radius
            elif knobs.shape == "circle":
                mask[one, two] = (down**2 + right**2) ** 0.5 < knobs.radius
    return mask


def dense_joint(similar_FLL: Tensor, labels_FLC: Tensor, knobs: Propagation) -> Tensor:
    similar_LN = similar_FLL.transpose(0, 1).flatten(1)
    best = similar_LN.topk(min(knobs.topk, similar_LN.shape[1]), dim=1)
    if knobs.ties == "keep":
        # Less the maximum: products that are not normalised would overflow.
        affinity_LN = torch.exp(similar_LN - best.values[:, :1])
        affinity_LN[similar_LN < best.values[:, -1:]] = 0
        return affinity_LN / affinity_LN.sum(dim=1, keepdim=True) @ labels_FLC.flatten(0, 1)
    weights_LS = best.values.softmax(dim=1)
    return (weights_LS[..., None] * labels_FLC.flatten(0, 1)[best.indices]).sum(dim=1)


def dense_each(similar_FLL: Tensor, labels_FLC: Tensor, knobs: Propagation) -> Tensor:
    total = torch.zeros_like(labels_FLC[0])
    for similar_LL, labels_LC in zip(similar_FLL, labels_FLC, strict=True):
        affinity_LL = similar_LL.softmax(dim=1)
        best = similar_LL.topk(min(knobs.topk, len(similar_LL)), dim=1)
        if knobs.ties == "keep":
            affinity_LL = affinity_LL.where(similar_LL >= best.values[:, -1:], 0)
        else:
            affinity_LL = torch.zeros_like(affinity_LL).scatter(1, best.indices, affinity_LL.gather(1, best.indices))
        total += affinity_LL @ labels_LC
    return total / len(similar_FLL)


def kernel(features_ThwD: Tensor, labels_hwC: Tensor, knobs: Propagation, *, held: int = 1 << 20) -> Tensor:
    with patch.object(propagation, "_HELD_CPU", held), patch.object(propagation, "_QUERIES", min(held, 100)):
        propagator = Propagator(knobs)
        propagator.begin(features_ThwD[0], labels_hwC)
        return torch.stack([labels_hwC, *(propagator.step(features_hwD) for features_hwD in features_ThwD[1:])])


def a_video(seed: int, frames: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Features of a scene that changes slowly, and first labels of three classes, not one-hot everywhere."""
    generator = torch.Generator().manual_seed(seed)
    still = torch.randn(height, width, 6, generator=generator)
    moving = 0.5 * torch.randn(frames, height, width, 6, generator=generator)
    return still + moving, torch.rand(height, width, 3, generator=generator)


KNOBS = st.builds(
    Propagation,
    temperature=st.sampled_from([0.05, 0.1, 0.7, 1.0]),
    topk=st.integers(1, 9),
    radius=st.sampled_from([0.5, 1, 1.5, 2, 3, 4.2, 12]),
    shape=st.sampled_from(["square", "circle", "none"]),
    mask_first=st.booleans(),
    context=st.integers(0, 5),
    queue=st.sampled_from(["after_first", "from_first", "padded"]),
    ties=st.sampled_from(["keep", "cut"]),
    topk_per_frame=st.booleans(),
    cosine=st.booleans(),
    minmax_stored=st.booleans(),
)
SIZES = st.tuples(st.integers(1, 6), st.integers(1, 8))


@given(knobs=KNOBS, size=SIZES, frames=st.integers(1, 8), held=st.sampled_from([1, 100, 1 << 20]), seed=st.integers(0))
def test_equals_the_dense_implementation(
    knobs: Propagation, size: tuple[int, int], frames: int, held: int, seed: int
) -> None:
    features, labels = a_video(seed % 1000, frames, *size)
    expected = dense(features, labels, knobs)
    found = kernel(features, labels, knobs, held=held)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5, equal_nan=True)


@given(knobs=KNOBS.filter(lambda knobs: knobs.ties == "keep"), size=SIZES, kinds=st.integers(1, 4), seed=st.integers(0))
def test_keeps_every_tie(knobs: Propagation, size: tuple[int, int], kinds: int, seed: int) -> None:
    """One-hot features: similarities are exactly 0 or 1, and there are ties everywhere."""
    generator = torch.Generator().manual_seed(seed % 1000)
    features = functional.one_hot(torch.randint(kinds, (6, *size), generator=generator), kinds).float()
    labels = torch.rand(*size, 3, generator=generator)
    found = kernel(features, labels, knobs, held=64)
    torch.testing.assert_close(found, dense(features, labels, knobs), atol=2e-5, rtol=1e-5, equal_nan=True)


def test_cutting_ties_keeps_that_many() -> None:
    """All keys are equal: k of them are averaged, so the sum of the weights is 1 and no label is outside its range."""
    knobs = Propagation(
        temperature=0.1, topk=3, radius=1, shape="none", mask_first=False, context=2, queue="padded", ties="cut"
    )
    labels = torch.arange(12.0).reshape(3, 4, 1)
    found = kernel(torch.ones(4, 3, 4, 5), labels, knobs)
    thirds = found[1] * 3
    torch.testing.assert_close(thirds, thirds.round())
    assert float(found.min()) >= 0
    assert float(found.max()) <= 11


def test_sharp_temperatures_do_not_overflow() -> None:
    features, labels = a_video(0, 3, 4, 5)
    knobs = Propagation(
        temperature=0.001, topk=5, radius=12, shape="square", mask_first=True, context=7, queue="after_first",
        ties="keep",
    )  # fmt: skip
    found = kernel(features, labels, knobs)
    assert found.isfinite().all()
    best = functional.normalize(features[1].flatten(0, 1), dim=1) @ functional.normalize(features[0].flatten(0, 1)).T
    close = labels.flatten(0, 1)[best.argmax(dim=1)].reshape(4, 5, 3)
    assert float((found[1] - close).abs().median()) < 1e-3


def test_a_video_forgets_the_one_before() -> None:
    features, labels = a_video(1, 5, 3, 4)
    propagator = Propagator(CRW)
    found = []
    for _ in range(2):
        propagator.begin(features[0], labels)
        found.append(torch.stack([propagator.step(features_hwD) for features_hwD in features[1:]]))
    assert torch.equal(*found)


def test_refuses_what_does_not_fit_together() -> None:
    features, labels = a_video(1, 2, 3, 4)
    propagator = Propagator(DINO)
    with pytest.raises(ValueError, match="do not continue"):
        propagator.step(features[0])
    with pytest.raises(ValueError, match="do not fit"):
        propagator.begin(features[0], labels[:2])
    propagator.begin(features[0], labels)
    with pytest.raises(ValueError, match="do not continue"):
        propagator.step(features[1][:2])


@pytest.mark.parametrize(
    ("name", "value"),
    [("topk", 0), ("context", -1), ("temperature", 0.0), ("temperature", float("nan")), ("radius", 0.0),
     ("shape", "hexagon"), ("queue", "later"), ("ties", "some")],
)  # fmt: skip
def test_refuses_knobs_without_sense(name: str, value: Any) -> None:
    knobs: dict[str, Any] = {
        "temperature": 0.1, "topk": 5, "radius": 12.0, "shape": "square", "mask_first": True, "context": 7,
        "queue": "after_first", "ties": "keep",
    }  # fmt: skip
    with pytest.raises(InputError, match=f"{name}="):
        Propagation(**(knobs | {name: value}))


def test_patches_of_8_at_480p_hold_little() -> None:
    """60 x 104 cells and 8 frames: a whole affinity has 311 million entries, a band less than a hundredth of that."""
    propagator = Propagator(load_preset("davis", "dino").propagation)
    features, labels = torch.randn(9, 60, 104, 2), torch.rand(60, 104, 2)
    propagator.begin(features[0], labels)
    with patch.object(propagation, "_similarities", wraps=propagation._similarities) as spied:
        for features_hwD in features[1:]:
            propagator.step(features_hwD)
    held = [call.args[2] for call in spied.call_args_list]
    entries = [8 * (band.end - band.begin) * (band.last - band.first) * band.short**2 for band in held[-10:]]
    assert max(entries) < 8 * (60 * 104) ** 2 / 100


@pytest.mark.skipif(not SHARED, reason="FRAME_SHARED names no folder with the reference's outputs")
@pytest.mark.parametrize("run", [kernel, dense])
def test_reference_dino(run: Any) -> None:
    with np.load(Path(SHARED or "") / "golden" / "dino_lp_a.npz") as stored:
        features, first, soft = (torch.from_numpy(stored[name]) for name in ("feats", "first", "soft"))
    found = run(features.reshape(-1, 8, 12, 16), first[0].permute(1, 2, 0), DINO)
    torch.testing.assert_close(found[1:].permute(0, 3, 1, 2), soft, atol=1e-5, rtol=0)


@pytest.mark.skipif(not SHARED, reason="FRAME_SHARED names no folder with the reference's outputs")
@pytest.mark.parametrize("run", [kernel, dense])
def test_reference_crw(run: Any) -> None:
    with np.load(Path(SHARED or "") / "golden" / "crw_lp_a.npz") as stored:
        features, first, soft = (torch.from_numpy(stored[name]) for name in ("feats", "first", "soft"))
    torch.testing.assert_close(run(features.permute(1, 2, 3, 0), first, CRW), soft, atol=1e-5, rtol=0)
