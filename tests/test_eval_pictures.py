"""Overlays, colours of features, strips, names of files, films: what a person looks at is what was found."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from frame.eval.present.film import write_mp4
from frame.eval.present.pictures import VOID, overlay, safe_name, spread, stack, strip, write_png
from frame.manifests.errors import InputError

GREY = np.full((12, 16, 3), 100, dtype=np.uint8)


def test_an_overlay_colours_objects_outlines_them_and_leaves_the_rest() -> None:
    mask = np.zeros((12, 16), dtype=np.uint8)
    mask[2:9, 3:10] = 1
    mask[10:, 14:] = VOID
    shown = overlay(GREY, mask)
    assert (shown[5, 6] == [114, 50, 50]).all()  # half grey, half DAVIS's first colour (128, 0, 0)
    assert (shown[2, 3:10] == 255).all()
    assert (shown[mask != 1] == 100).all()
    assert (GREY == 100).all()


def test_neighbouring_objects_have_a_line_between_them_and_different_colours() -> None:
    mask = np.ones((12, 16), dtype=np.uint8)
    mask[:, 8:] = 2
    shown = overlay(GREY, mask)
    assert (shown[:, 7:9] == 255).all()
    assert (shown[4, 2] == [114, 50, 50]).all()
    assert (shown[4, 13] == [50, 114, 50]).all()


@given(st.integers(1, 254))
def test_every_id_has_a_colour_that_is_no_grey(number: int) -> None:
    inside = overlay(GREY, np.full((12, 16), number, dtype=np.uint8))[5, 5]
    assert number % 21 == 7 or len(set(inside.tolist())) > 1  # DAVIS's seventh colour is grey


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="does not lie on"):
        overlay(GREY, np.zeros((12, 15), dtype=np.uint8))


def test_strips_and_stacks_keep_proportions() -> None:
    wide, tall = np.zeros((10, 40, 3), np.uint8), np.zeros((40, 10, 3), np.uint8)
    row = strip([wide, tall], height=20)
    assert row.shape == (20, 80 + 4 + 5, 3)
    assert (row[:, 80:84] == 255).all()
    both = stack([row, strip([tall], height=20)])
    assert both.shape == (44, 89, 3)
    assert (both[24:, 5:] == 255).all()
    with pytest.raises(ValueError, match="needs a picture"):
        strip([])


@given(st.integers(0, 300), st.integers(1, 9))
def test_places_are_spread_from_first_to_last(count: int, most: int) -> None:
    places = spread(count, most)
    assert len(places) == min(count, most)
    assert all(0 <= place < count for place in places)
    if count and most > 1:
        assert (places[0], places[-1]) == (0, count - 1)


@given(st.text(max_size=120))
def test_names_are_safe_and_stay_apart(text: str) -> None:
    name = safe_name(text)
    assert name
    assert name.isascii()
    assert not set(name) & set('/\\\0\n"<>:')
    assert not name.startswith((".", "-"))
    assert len(name) < 100
    assert name == text or name != safe_name(text + "x")


def test_plain_names_are_kept() -> None:
    assert safe_name("bmx-trees_01.b") == "bmx-trees_01.b"
    assert len({safe_name(name) for name in ("a/b", "a b", "a_b", "../a_b", "")}) == 5


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write_png(tmp_path / "new" / "a.png", GREY)
    with Image.open(io.BytesIO(path.read_bytes())) as opened:
        assert (np.asarray(opened) == GREY).all()
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]
    (tmp_path / "b.png").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_png(tmp_path / "b.png", GREY)


def test_a_film_has_every_picture_at_its_rate_and_odd_sides_do_not_matter(tmp_path: Path) -> None:
    pictures = [np.full((33, 47, 3), 20 * number, dtype=np.uint8) for number in range(7)]
    path = write_mp4(tmp_path / "film.mp4", pictures, 30000 / 1001)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate or 0) == pytest.approx(30000 / 1001)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(34, 48, 3)] * 7
    assert [round(float(frame.mean())) for frame in frames] == pytest.approx([20 * n for n in range(7)], abs=3)
    first = path.read_bytes()
    assert write_mp4(tmp_path / "again.mp4", pictures, 30000 / 1001).read_bytes() == first
    with pytest.raises(ValueError, match="needs a picture"):
        write_mp4(tmp_path / "none.mp4", [], 24)
    assert not (tmp_path / "none.mp4").exists()
