from __future__ import annotations

import json
import pickle
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_videos import write_video

from frame.eval.data.phases import PENN_PHASES, LabelledVideo, frames, read_penn_list, read_videos_list
from frame.manifests.errors import InputError
from frame.pipeline.decode import DecodeCage


def record(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {"id": number, "name": f"v{number}", "video_file": f"videos/{number}.mp4", "frame_label": [0, 1]} | changes


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_list_is_read_whatever_else_it_says(tmp_path: Path) -> None:
    labels = [0.0, -1.0, 2.0]
    (video,) = read_videos_list(write(tmp_path / "a.json", [record(frame_label=labels, seq_len=3)]), classes=3)
    assert (video.name, video.file) == ("v0", tmp_path / "videos" / "0.mp4")
    assert video.labels.tolist() == [0, -1, 2]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "no list of videos, or an empty one"),
        ({"a": 1}, "no list of videos"),
        ([3], "video 0 has no name or video_file"),
        ([record(), record(1, name=None)], "video 1 has no name"),
        ([record(video_file="../x.mp4")], "leads out of the folder"),
        ([record(video_file="/etc/x.mp4")], "leads out of the folder"),
        ([record(frame_label=[])], "no list of whole numbers"),
        ([record(frame_label=[0, 0.5])], "no list of whole numbers"),
        ([record(frame_label=[0, None])], "no list of whole numbers"),
        ([record(frame_label=[0, True])], "no list of whole numbers"),
        ([record(frame_label=[0, float("nan")])], "no list of whole numbers"),
        ([record(frame_label=[0, float("inf")])], "no list of whole numbers"),
        ([record(frame_label=[0, 10**30])], "no list of whole numbers"),
        ([record(frame_label=[0, 5])], "v0 has labels from 0 to 5"),
        ([record(frame_label=[-2, 0])], "v0 has labels from -2 to 0"),
    ],
)
def test_a_bad_list_is_refused_with_its_place(tmp_path: Path, content: object, why: str) -> None:
    with pytest.raises(InputError, match=rf"(?s)list of videos cannot be used.*a\.json.*{why}"):
        read_videos_list(write(tmp_path / "a.json", content), classes=5)


def test_text_that_is_no_json_and_a_missing_list_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[{")
    with pytest.raises(InputError, match="cannot be used"):
        read_videos_list(tmp_path / "a.json", classes=5)
    with pytest.raises(InputError, match=r"(?s)list of videos is missing.*b\.json"):
        read_videos_list(tmp_path / "b.json", classes=5)


def test_a_pickle_is_not_opened_but_the_command_given_converts_it(tmp_path: Path) -> None:
    stored = [record(frame_label=np.array([0.0, -1.0, 1.0])), record(1, frame_label=np.array([1, 1]))]
    (tmp_path / "my list.pkl").write_bytes(pickle.dumps(stored))
    with pytest.raises(InputError, match="not opened") as caught:
        read_videos_list(tmp_path / "my list.json", classes=2)
    command = shlex.split(caught.value.fix.partition(": ")[2])
    subprocess.run([sys.executable, *command[1:]], check=True)
    videos = read_videos_list(tmp_path / "my list.json", classes=2)
    assert [video.labels.tolist() for video in videos] == [[0, -1, 1], [1, 1]]


def test_penn_has_its_videos_by_action(tmp_path: Path) -> None:
    records = [record(number) for number in range(14)]
    groups = [[13, number] if number == 4 else [number] for number in range(13)]
    actions = read_penn_list(write(tmp_path / "train.json", (records, groups)))
    assert list(actions) == list(PENN_PHASES)
    assert [video.name for video in actions["clean_and_jerk"]] == ["v13", "v4"]
    by_name = dict(enumerate(groups))
    assert list(read_penn_list(write(tmp_path / "val.json", (records, by_name)))) == list(PENN_PHASES)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda records, _: records, "no pair"),
        (lambda records, groups: [records, groups[:-1]], "12 actions instead of 13"),
        (lambda records, groups: [records, [*groups[:-1], [13]]], "tennis_serve are not all between 0 and 12"),
        (lambda records, groups: [records, [*groups[:-1], 3]], "video numbers of tennis_serve"),
        (lambda records, groups: [[*records[:7], record(7, frame_label=[2]), *records[8:]], groups], "from 2 to 2"),
    ],
)
def test_a_bad_penn_list_is_refused(tmp_path: Path, change: Callable[..., object], why: str) -> None:
    records, groups = [record(number) for number in range(13)], [[number] for number in range(13)]
    with pytest.raises(InputError, match=why):
        read_penn_list(write(tmp_path / "train.json", change(records, groups)))


def video(path: Path, count: int) -> LabelledVideo:
    return LabelledVideo(name="v", file=path, labels=np.zeros(count, dtype=np.int64))


def test_the_centre_is_cut_out_at_the_references_place_and_not_resized(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=5, height=230, width=254)
    with DecodeCage() as cage:
        probe = cage.probe(path)
        whole = cage.decode(path, probe.timestamps, height=230, width=254, decoder="pyav").copy()
        cut = np.stack(list(frames(video(path, 4), cage)))
    assert np.array_equal(cut, whole[:4, 3:227, 15:239])


def test_a_video_that_does_not_fit_its_labels_is_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=5, height=224, width=224)
    small = write_video(tmp_path / "small.mp4", frames=5, height=222, width=320)
    (tmp_path / "text.mp4").write_text("no video")
    with DecodeCage() as cage:
        with pytest.raises(InputError, match="5 frames, and 6 labels"):
            next(frames(video(path, 6), cage))
        with pytest.raises(InputError, match="320 x 222 pixels, smaller than 224 x 224"):
            next(frames(video(small, 5), cage))
        with pytest.raises(InputError, match="not-a-video"):
            next(frames(video(tmp_path / "text.mp4", 5), cage))
        with pytest.raises(InputError, match="missing"):
            next(frames(video(tmp_path / "none.mp4", 5), cage))
