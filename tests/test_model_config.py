"""Configurations: kept as JSON and got back, and refused where nothing can be built from them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

from frame.manifests.errors import InputError
from frame.model import WIDTHS, MemoryConfig, ModelConfig

GOOD = {"width": 384, "size": [224, 224], "semantic_dim": 512, "spatial_dim": 384}

memories = st.builds(
    MemoryConfig, frames=st.integers(1, 9), dim=st.integers(1, 64).map(lambda n: 4 * n), layers=st.integers(1, 4)
)
configs = st.builds(
    lambda patch, rows, columns, **rest: ModelConfig(patch=patch, size=(rows * patch, columns * patch), **rest),
    patch=st.integers(1, 32), rows=st.integers(1, 50), columns=st.integers(1, 50),
    width=st.integers(1, 20).map(lambda n: 64 * n), depth=st.integers(1, 40), semantic_dim=st.integers(1, 2000),
    spatial_dim=st.integers(1, 2000), spatial_depth=st.integers(1, 4), memory=st.none() | memories,
    anticipation=st.booleans(), pixel_mean=st.tuples(*[st.floats(-2, 2)] * 3),
    pixel_std=st.tuples(*[st.floats(0.01, 2)] * 3),
)  # fmt: skip


@given(configs)
def test_a_configuration_survives_json(config: ModelConfig) -> None:
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("name", sorted(WIDTHS))
def test_widths_and_heads_are_those_of_timms_models_of_these_names(name: str) -> None:
    with torch.device("meta"):
        vit = timm.create_model(f"{name}_patch16_224")
    config = ModelConfig(width=WIDTHS[name], size=(224, 224), semantic_dim=1, spatial_dim=1)
    assert (config.width, config.depth, config.heads) == (vit.embed_dim, len(vit.blocks), vit.blocks[0].attn.num_heads)
    assert config.name == f"vit-{WIDTHS[name]}-12-16"


def test_pixels_are_normalised_as_imagenets_unless_told() -> None:
    config = ModelConfig.from_json(GOOD)
    assert config.pixel_mean == timm.data.IMAGENET_DEFAULT_MEAN
    assert config.pixel_std == timm.data.IMAGENET_DEFAULT_STD


def test_a_narrow_model_has_one_head() -> None:
    assert ModelConfig(width=24, size=(16, 16), semantic_dim=1, spatial_dim=1).heads == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"widht": 384}, "unknown: widht"),
        ({"width": None}, "width is None"),
        ({"width": 384.0}, "width is 384.0"),
        ({"width": True}, "width is True"),
        ({"width": 0}, "width is 0"),
        ({"width": 200}, "width is 200"),
        ({"depth": -1}, "depth is -1"),
        ({"size": [224]}, "size is [224]"),
        ({"size": [224, 230]}, "size is 224 x 230"),
        ({"size": "224"}, "size is '224'"),
        ({"anticipation": 1}, "anticipation is 1"),
        ({"memory": 5}, "memory is 5"),
        ({"memory": {"frames": 0}}, "memory_frames is 0"),
        ({"memory": {"dim": 30}}, "memory dim is 30"),
        ({"memory": {"slots": 5}}, "unknown: slots"),
        ({"pixel_mean": [0.5, 0.5]}, "pixel_mean is [0.5, 0.5]"),
        ({"pixel_std": [0.2, 0.0, 0.2]}, "pixel_std is (0.2, 0.0, 0.2)"),
        ({"pixel_mean": [0.5, float("nan"), 0.5]}, "pixel_mean is (0.5, nan, 0.5)"),
    ],
)
def test_what_cannot_be_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as caught:
        ModelConfig.from_json({**GOOD, **change}, where="somewhere/config.json")
    assert named in caught.value.why
    assert caught.value.where == "somewhere/config.json"


@pytest.mark.parametrize("key", sorted(GOOD))
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(InputError, match=f"missing: {key}"):
        ModelConfig.from_json({name: value for name, value in GOOD.items() if name != key})


@pytest.mark.parametrize("stored", [None, [], "vit", 3])
def test_what_is_no_object_is_no_configuration(stored: object) -> None:
    with pytest.raises(InputError, match="not a JSON object"):
        ModelConfig.from_json(stored)
