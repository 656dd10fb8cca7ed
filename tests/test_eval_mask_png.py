from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from frame.eval.data import mask_png
from frame.eval.data.mask_png import read_ids
from frame.manifests.errors import InputError

IDS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 40)))


def write_palette(path: Path, ids: np.ndarray, **options: object) -> Path:
    image = Image.fromarray(ids)
    image.putpalette([value for number in range(256) for value in (number, 255 - number, 7)])
    image.save(path, **options)
    return path


def plain(path: Path) -> bool:
    """Whether the quick reader does it without Pillow."""
    return mask_png._unpack(path.read_bytes()) is not None


@given(IDS)
def test_palette_indices_come_back(tmp_path_factory: pytest.TempPathFactory, ids: np.ndarray) -> None:
    path = write_palette(tmp_path_factory.getbasetemp() / "p.png", ids, bits=8)
    assert plain(path)
    assert np.array_equal(read_ids(path), ids)


@given(IDS)
def test_grey_values_come_back_however_they_are_filtered(
    tmp_path_factory: pytest.TempPathFactory, ids: np.ndarray
) -> None:
    path = tmp_path_factory.getbasetemp() / "g.png"
    cv2.imwrite(str(path), ids, [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB])
    assert plain(path)
    assert np.array_equal(read_ids(path), ids)
    Image.fromarray(ids).save(path)
    assert np.array_equal(read_ids(path), ids)


@pytest.mark.parametrize("name", ["NONE", "SUB", "UP", "AVG", "PAETH"])
def test_every_filter_gives_the_same(tmp_path: Path, name: str) -> None:
    ids = (np.indices((40, 70)).sum(axis=0) // 9 % 6).astype(np.uint8)
    ids[:10] = 0
    path = tmp_path / "m.png"
    cv2.imwrite(str(path), ids, [cv2.IMWRITE_PNG_FILTER, getattr(cv2, f"IMWRITE_PNG_FILTER_{name}")])
    assert plain(path) == (name in ("NONE", "SUB"))
    assert np.array_equal(read_ids(path), ids)


def test_small_palettes_and_one_bit_pictures(tmp_path: Path) -> None:
    ids = (np.indices((9, 13)).sum(axis=0) % 3).astype(np.uint8)
    assert np.array_equal(read_ids(write_palette(tmp_path / "few.png", ids, bits=4)), ids)
    Image.fromarray(ids > 0).save(tmp_path / "bit.png")
    assert np.array_equal(read_ids(tmp_path / "bit.png"), (ids > 0).astype(np.uint8))


def test_a_colour_picture_has_no_ids(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(InputError, match="a colour image, not a map of ids"):
        read_ids(tmp_path / "rgb.png")


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_ids(tmp_path / "none.png")
    path = write_palette(tmp_path / "m.png", np.ones((50, 60), dtype=np.uint8), bits=8)
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:60], whole[:-30], b"no picture" * 10):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"A mask cannot be read.*\n.*m\.png"):
            read_ids(path)


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    ids = np.zeros((50, 60), dtype=np.uint8)
    ids[10:20, 10:30] = 3
    path = write_palette(tmp_path / "m.png", ids, bits=8)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"IDAT") + 12] ^= 16
    path.write_bytes(whole)
    assert not plain(path)


def test_a_file_that_unpacks_to_more_than_it_says_is_not_unpacked_whole(tmp_path: Path) -> None:
    path = write_palette(tmp_path / "m.png", np.zeros((5, 5), dtype=np.uint8), bits=8)
    data = path.read_bytes()
    at = data.index(b"IDAT")
    packed = zlib.compress(bytes(10_000_000))
    bomb = data[: at - 4] + len(packed).to_bytes(4, "big") + b"IDAT" + packed
    bomb += zlib.crc32(b"IDAT" + packed).to_bytes(4, "big") + data[data.index(b"IEND") - 4 :]
    path.write_bytes(bomb)
    assert not plain(path)
