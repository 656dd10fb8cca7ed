"""Features of frames on disk: found again, or remade."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from frame.eval.segment.feature_store import FeatureStore, picture_digest
from frame.manifests.errors import InputError


def features(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 3, 5)).astype(np.float32)


@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_what_was_written_is_read(tmp_path: Path, stored: str) -> None:
    store = FeatureStore(tmp_path, stored)
    key = store.key("encoder", ["a"])
    assert not store.holds(key)
    store.write(key, features())
    assert store.holds(key)
    for mapped in (False, True):
        kept = store.read(key, mapped=mapped)
        assert kept.dtype == stored
        np.testing.assert_array_equal(kept, features().astype(stored))


def test_the_key_is_of_the_encoder_the_past_and_the_type(tmp_path: Path) -> None:
    half, full = FeatureStore(tmp_path), FeatureStore(tmp_path, "float32")
    keys = [
        half.key("encoder", ["a", "b"]), half.key("encoder", ["b"]), half.key("encoder", ["b", "a"]),
        half.key("other", ["a", "b"]), full.key("encoder", ["a", "b"]),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert keys[0] == FeatureStore(tmp_path / "elsewhere").key("encoder", ["a", "b"])


def test_the_digest_is_of_pixels_and_shape() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert picture_digest(picture) == picture_digest(np.asfortranarray(picture))
    assert picture_digest(picture) != picture_digest(picture.reshape(4, 2, 3))
    assert picture_digest(picture) != picture_digest(picture + 1)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_file_does_not_count_and_is_remade(tmp_path: Path, damage: str) -> None:
    store = FeatureStore(tmp_path)
    key = store.key("encoder", ["a"])
    store.write(key, features())
    (path,) = tmp_path.rglob("*.npy")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-40] ^= 1  # in the numbers
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-1]), "empty": b""}[damage])
    assert not store.holds(key)
    store.write(key, features())
    assert store.holds(key)
    assert [one.name for one in path.parent.iterdir()] == [path.name]  # nothing half written beside it


def test_a_number_too_large_for_its_type_is_refused(tmp_path: Path) -> None:
    large = np.full((1, 1, 2), 1e5, dtype=np.float32)
    with pytest.raises(InputError, match="float32"):
        FeatureStore(tmp_path).write("ab", large)
    FeatureStore(tmp_path, "float32").write("ab", large)
    with pytest.raises(InputError, match="weights are broken"):
        FeatureStore(tmp_path, "float32").write("cd", large * np.nan)


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float16 or float32"):
        FeatureStore(tmp_path, "int8")  # type: ignore[arg-type]
