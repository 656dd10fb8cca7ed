"""Our tar shards against the stock webdataset library."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from frame.pipeline.store.tar_unit import Sample, decode_png, encode_png, encode_tar, shard_name

LONG = "k" * 200


def make_samples(keys: tuple[str, ...] = ("a", "b-2")) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(
            key=key,
            first_row=10 * i,
            info={"clip": key, "label": "Ärger", "timestamps": [0.0, 0.04]},
            arrays={
                "frames": rng.integers(0, 256, (2, 4, 6, 3), dtype=np.uint8),
                "dino.patch": rng.standard_normal((2, 3, 5)).astype(np.float16),
                "dino.patch.scale": rng.standard_normal((2, 3)).astype(np.float16),
            },
        )
        for i, key in enumerate(keys)
    ]


def read_stock(path: Path) -> list[dict[str, Any]]:
    """Samples as the stock library reads and decodes them."""
    return list(webdataset.WebDataset(str(path), shardshuffle=False).decode("rgb8"))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the stock library leaves that to the collector
@pytest.mark.parametrize("keys", [("a", "b-2"), (LONG, LONG[:-1] + "l"), ("_x", "0001")])
def test_the_stock_library_reads_every_sample(tmp_path: Path, keys: tuple[str, ...]) -> None:
    samples = make_samples(keys)
    data, _ = encode_tar(samples)
    (tmp_path / "unit.tar").write_bytes(data)
    found = read_stock(tmp_path / "unit.tar")
    assert [sample["__key__"] for sample in found] == list(keys)
    for sample, expected in zip(found, samples, strict=True):
        assert sample["json"] == expected.info
        for name in ("dino.patch", "dino.patch.scale"):
            np.testing.assert_array_equal(sample[f"{name}.npy"], expected.arrays[name])
        for i, image in enumerate(expected.arrays["frames"]):
            np.testing.assert_array_equal(sample[f"{i:04d}.png"], image)


def test_members_lie_where_they_are_said_to() -> None:
    samples = make_samples(("a", LONG))
    data, members = encode_tar(samples)
    for name in ("dino.patch", "dino.patch.scale"):
        for sample, (row, start, length, checks) in zip(samples, members[name], strict=True):
            assert row == sample.first_row
            assert data[start : start + length] == sample.arrays[name].tobytes()
            assert len(checks) == 2
    rows = [row for row, *_ in members["frames"]]
    assert rows == [0, 1, 10, 11]
    _, start, length, _ = members["frames"][3]
    image = Image.open(io.BytesIO(data[start : start + length]))
    np.testing.assert_array_equal(np.asarray(image), samples[1].arrays["frames"][1])


def test_the_same_samples_give_the_same_bytes_without_any_time_or_owner() -> None:
    data, members = encode_tar(make_samples())
    assert encode_tar(make_samples()) == (data, members)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar.getmembers():
            assert member.isreg()
            assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
            assert (member.uname, member.gname) == ("frame", "frame")
        text = tar.extractfile("a.json")
        assert text is not None
        assert json.loads(text.read())["label"] == "Ärger"


def test_a_unit_without_samples_is_an_empty_tar() -> None:
    data, members = encode_tar([])
    assert members == {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getmembers() == []


def test_arrays_that_are_not_contiguous_are_stored_by_their_values() -> None:
    values = np.arange(24, dtype=np.float16).reshape(4, 3, 2)[::2, ::-1]
    data, members = encode_tar([Sample(key="a", first_row=0, info={}, arrays={"x": values})])
    ((_, start, length, _),) = members["x"]
    assert data[start : start + length] == values.tobytes()


def test_pictures_come_back_exactly_or_not_at_all() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    data = encode_png(image)
    np.testing.assert_array_equal(decode_png(data, (5, 7, 3)), image)
    with pytest.raises(ValueError, match="promised"):
        decode_png(data, (7, 5, 3))
    grey = io.BytesIO()
    Image.fromarray(image[..., 0]).save(grey, format="PNG")
    with pytest.raises(ValueError, match="promised"):
        decode_png(grey.getvalue(), (5, 7, 3))
    jpeg = io.BytesIO()
    Image.fromarray(image).save(jpeg, format="JPEG")
    with pytest.raises(OSError, match="cannot identify"):
        decode_png(jpeg.getvalue(), (5, 7, 3))


def test_shard_names() -> None:
    assert shard_name(17, "") == "shards/000017.tar"
    assert shard_name(17, "dino") == "shards/000017.dino.tar"
