"""Chosen frames of many videos: the right ones, in order, and a reason for each that cannot be read."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_videos import write_video

from frame.eval.data.video_frames import VideoFrames, read_videos, segment_centres
from frame.pipeline.decode import ClipError


@given(st.integers(1, 500), st.integers(1, 16))
def test_segment_centres_are_those_of_the_formula(count: int, wanted: int) -> None:
    segment = Fraction(count, wanted)
    exact = [floor(number * segment + (segment - 1) / 2) for number in range(wanted)]
    found = segment_centres(count, wanted)
    # A segment that binary fractions do not hold may put a centre on the other side of a whole number.
    slack = 0 if segment.denominator in (1, 2, 4, 8, 16) else 1
    assert all(abs(a - min(max(b, 0), count - 1)) <= slack for a, b in zip(found, exact, strict=True))
    assert found == sorted(found)
    assert 0 <= found[0] <= found[-1] < count


@pytest.mark.parametrize(
    ("count", "centres"),
    [(80, [4, 14, 24, 34, 44, 54, 64, 74]), (8, [0, 1, 2, 3, 4, 5, 6, 7]), (3, [0, 0, 0, 0, 1, 1, 1, 2]), (1, [0] * 8)],
)
def test_segment_centres_of_known_lengths(count: int, centres: list[int]) -> None:
    assert segment_centres(count, 8) == centres


def test_frames_are_the_videos_own_cropped_as_pillow_does(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=11)
    (video,) = read_videos([path], lambda count: [count - 1, 0, 4, 4], side=48, processes=1)
    assert isinstance(video, VideoFrames)
    assert video.count == 11
    assert list(video.pictures) == [0, 4, 10]
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for number, picture in video.pictures.items():
        whole = Image.fromarray(frames[number]).resize((64, 48), Image.Resampling.BICUBIC)
        difference = np.asarray(whole.crop((8, 0, 56, 48)), dtype=int) - picture
        assert picture.shape == (48, 48, 3)
        # Pillow rounds and clips between its two passes.
        assert np.abs(difference).mean() < 0.2
        assert np.abs(difference).max() <= 6


def test_bad_videos_give_a_reason_in_their_place_and_cost_the_others_nothing(tmp_path: Path) -> None:
    good = [write_video(tmp_path / f"{number}.mp4", frames=3 + number, seed=number) for number in range(9)]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(good[0].read_bytes()[:700])
    paths = [good[0], broken, *good[1:5], tmp_path / "none.mp4", *good[5:]]
    found = list(read_videos(paths, lambda _: [0], side=32, processes=2))
    assert [isinstance(one, ClipError) for one in found] == [path not in good for path in paths]
    counts = [one.count for one in found if isinstance(one, VideoFrames)]
    assert counts == [3 + number for number in range(9)]
    missing = found[6]
    assert isinstance(missing, ClipError)
    assert missing.reason == "missing"


def test_pictures_too_narrow_to_be_cropped_are_a_failure_of_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "narrow"
    folder.mkdir()
    Image.new("RGB", (1000, 4)).save(folder / "1.png")
    (found,) = read_videos([folder], lambda _: [0], side=32, processes=1)
    assert isinstance(found, ClipError)
    assert found.reason == "too-narrow"


def test_a_reader_that_is_left_early_ends(tmp_path: Path) -> None:
    paths = [write_video(tmp_path / f"{number}.mp4", frames=2, seed=number) for number in range(6)]
    videos = read_videos(paths, lambda _: [0], side=32, processes=1)
    assert isinstance(next(videos), VideoFrames)
    videos.close()  # type: ignore[attr-defined]
