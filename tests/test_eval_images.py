"""Reading pictures and masks, and the sizes that protocols bring them to."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from frame.eval.propagate.images import (
    Rule,
    input_size,
    palette,
    read_mask,
    read_picture,
    resize_float,
    resize_nearest,
    resize_picture,
    size_note,
    write_mask,
)
from frame.manifests.errors import InputError


def test_pictures_are_rgb(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4), (250, 3, 7)).save(tmp_path / "red.png")
    picture = read_picture(tmp_path / "red.png")
    assert picture.shape == (4, 5, 3)
    assert picture[0, 0].tolist() == [250, 3, 7]


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), (b"", "empty"), (b"\xff\xd8broken", "no JPEG")])
def test_broken_pictures_are_named(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "00000.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=why) as caught:
        read_picture(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="A mask cannot be read"):
        read_mask(path)


def test_masks_are_indices_not_colours(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2], [9, 255, 3]], dtype=np.uint8)
    write_mask(tmp_path / "mask.png", ids)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), ids)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((0, 1)) == (191, 0, 0)
        image.convert("RGB").save(tmp_path / "colours.png")
    with pytest.raises(InputError, match="colours instead of ids"):
        read_mask(tmp_path / "colours.png")


def test_grey_and_one_bit_masks_are_read(tmp_path: Path) -> None:
    ids = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    Image.fromarray(ids).save(tmp_path / "grey.png")
    Image.fromarray(np.repeat(ids[..., None], 3, axis=2)).save(tmp_path / "three.png")
    Image.fromarray(ids).convert("1").save(tmp_path / "bit.png")
    assert np.array_equal(read_mask(tmp_path / "grey.png"), ids)
    assert np.array_equal(read_mask(tmp_path / "three.png"), ids)
    assert np.array_equal(read_mask(tmp_path / "bit.png"), ids > 0)
    Image.fromarray(np.array([[0, 300]], dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match="above 255"):
        read_mask(tmp_path / "deep.png")


def test_davis_colours() -> None:
    colours = palette()
    assert colours[[0, 1, 2, 7]].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 128]]
    assert [number for number in range(22) if 191 in colours[number]] == [9, 11, 13, 15, 18, 19]


@pytest.mark.parametrize(
    ("native", "rule", "sides", "patch", "expected"),
    [
        ((480, 854), "short64", (480,), 16, (480, 832)),
        ((480, 910), "short64", (480,), 8, (480, 896)),
        ((480, 1152), "short64", (480,), 16, (480, 1152)),
        ((854, 480), "short64", (480,), 16, (832, 480)),
        ((480, 480), "short64", (480,), 16, (480, 448)),
        ((240, 427), "short64", (480,), 16, (480, 832)),
        ((480, 880), "short64", (480,), 16, (480, 832)),
        ((720, 1280), "long64", (880,), 16, (448, 880)),
        ((1280, 720), "long64", (880,), 16, (880, 448)),
        ((480, 910), "short", (480,), 1, (480, 910)),
        ((240, 427), "short", (480,), 1, (480, 854)),
        ((333, 500), "fixed", (480, 880), 16, (480, 880)),
        ((480, 854), "native", (), 16, (480, 848)),
        # Patches of 14: a given side to the nearest multiple, 64 becomes 56.
        ((480, 854), "short64", (480,), 14, (476, 840)),
        ((480, 854), "fixed", (480, 880), 14, (476, 882)),
        ((240, 320), "fixed", (320, 320), 14, (322, 322)),
        ((720, 1280), "long64", (880,), 14, (448, 882)),
        ((10, 1000), "short64", (480,), 16, (480, 48000)),
        ((1000, 10), "long64", (880,), 16, (880, 64)),
    ],
)
def test_sizes(
    native: tuple[int, int], rule: Rule, sides: tuple[int, ...], patch: int, expected: tuple[int, int]
) -> None:
    assert input_size(native, rule=rule, sides=sides, patch=patch) == expected


@given(
    height=st.integers(1, 2000), width=st.integers(1, 2000), patch=st.sampled_from([8, 14, 16, 32]),
    rule=st.sampled_from(["short64", "long64", "short", "native"]),
)  # fmt: skip
def test_every_size_is_whole_patches(height: int, width: int, patch: int, rule: Rule) -> None:
    sides = () if rule == "native" else (480,)
    size = input_size((height, width), rule=rule, sides=sides, patch=patch)
    assert all(side >= patch and side % patch == 0 for side in size)
    assert input_size((width, height), rule=rule, sides=sides, patch=patch) == size[::-1] or height == width


def test_resizing_is_opencvs() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    assert np.array_equal(resize_picture(picture, (12, 16)), cv2.resize(picture, (16, 12)))
    assert resize_picture(picture, (20, 31)) is picture
    exact = resize_float(picture, (12, 16))
    assert exact.dtype == np.float32
    assert 0 < np.abs(exact - resize_picture(picture, (12, 16))).max() <= 1
    np.testing.assert_allclose(resize_float(picture, (20, 31)), picture, atol=1e-4)


def test_the_two_nearest_neighbours_differ() -> None:
    """Pillow takes the pixel below a cell's centre, OpenCV that at its corner."""
    row = np.arange(9, dtype=np.uint8)[None]
    assert resize_nearest(row, (1, 3), library="pillow").tolist() == [[1, 4, 7]]
    assert resize_nearest(row, (1, 3), library="opencv").tolist() == [[0, 3, 6]]


def test_the_result_says_where_patches_change_the_size() -> None:
    assert size_note("bear", (480, 854), rule="short64", sides=(480,), patch=16) == []
    (note,) = size_note("bear", (480, 854), rule="short64", sides=(480,), patch=14)
    assert "bear went in at 476 x 840 instead of 480 x 832" in note
