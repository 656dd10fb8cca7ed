"""Raw videos: the right frame under each number, or a refusal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from test_eval_camvid import write

from frame.eval.data import raw_video
from frame.eval.data.camvid import open_camvid
from frame.eval.data.raw_video import RawVideo, find_video
from frame.eval.result import data_digest
from frame.manifests.errors import InputError

COUNT = 40


def picture(number: int) -> np.ndarray:
    """A bright bar on a ramp; neither repeats."""
    made = np.zeros((48, 64, 3), np.uint8) + np.linspace(0, 90, 64).astype(np.uint8)[None, :, None]
    made[:, number : number + 8] = 250
    return made


def write_video(path: Path, frames: Iterable[int] = range(COUNT)) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "12", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "0001TP.mp4"
    write_video(path)
    return path


def bar(frame: np.ndarray) -> int:
    """Where the bright bar begins: the frame's number."""
    return int(np.flatnonzero(frame[24, :, 1] > 170)[0])


def test_every_number_is_its_frame_in_any_order_of_asking(video: Path) -> None:
    raw = RawVideo(video, first=100)
    assert list(raw.numbers) == list(range(100, 100 + COUNT))
    for numbers in ([103, 104, 110], [104], [139], [100, 139]):
        assert [bar(frame) for frame in raw.pictures(numbers)] == [number - 100 for number in numbers]


def test_two_readers_at_once_do_not_disturb_each_other(video: Path) -> None:
    raw = RawVideo(video)
    pairs = zip(raw.pictures([3, 6, 9]), raw.pictures([30, 31, 35]), strict=True)
    assert [(bar(one), bar(other)) for one, other in pairs] == [(3, 30), (6, 31), (9, 35)]


def test_a_folder_of_frames_is_read_by_its_names(tmp_path: Path) -> None:
    for number in (7, 9, 12):
        Image.fromarray(picture(number)).save(tmp_path / f"0001TP_{number:06d}.png")
    (tmp_path / "notes.txt").write_text("x")
    raw = RawVideo(tmp_path)
    assert list(raw.numbers) == [7, 9, 12]
    assert [bar(frame) for frame in raw.pictures([9, 12])] == [9, 12]
    raw.check_still(9, picture(9), "still")
    assert (raw.first, raw.files) == (None, sorted(tmp_path.glob("*.png")))
    for number, still in ((9, picture(12)), (8, picture(8))):
        with pytest.raises(InputError, match="name the frames of the folder by their raw numbers") as refused:
            raw.check_still(number, still, "still")
        assert "--first" not in str(refused.value)
    for first in (0, 5):
        with pytest.raises(InputError, match=rf"numbered by their names[\s\S]*--first {tmp_path.name}={first}"):
            RawVideo(tmp_path, first=first)


def test_the_still_must_be_the_frame(video: Path) -> None:
    raw = RawVideo(video)
    raw.check_still(20, picture(20), "still")
    raw.check_still(0, picture(0), "still")
    with pytest.raises(InputError, match="number 22 is nearest"):
        raw.check_still(20, picture(22), "still")
    with pytest.raises(InputError, match="--first"):
        raw.check_still(20, 255 - picture(20), "still")
    with pytest.raises(InputError, match="holds frames 0 to 39"):
        raw.check_still(COUNT, picture(COUNT - 1), "still")


def test_a_video_that_ends_early_is_refused(video: Path, tmp_path: Path) -> None:
    raw = RawVideo(video)
    with pytest.raises(InputError, match="last readable frame is 39"):
        list(raw.pictures([COUNT]))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(InputError, match="cannot be read"):
        RawVideo(broken)
    empty = tmp_path / "folder"
    empty.mkdir()
    with pytest.raises(InputError, match="no numbered frames"):
        RawVideo(empty)


def test_there_must_be_one_video_of_the_name(video: Path, tmp_path: Path) -> None:
    assert find_video(video.parent, "0001TP") == video
    with pytest.raises(InputError, match="0006R0 is missing"):
        find_video(video.parent, "0006R0")
    for name in ("a.avi", "a.MXF"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="there twice"):
        find_video(tmp_path, "a")
    with pytest.raises(InputError, match="no such folder"):
        find_video(tmp_path / "nowhere", "a")


def write_stills(root: Path, *, train: Iterable[int], test: Iterable[int], before: int = 0) -> None:
    """Stills of frames of the video, whose raw numbers are ``before`` higher."""
    for part, frames in (("train", train), ("test", test)):
        for frame in frames:
            name = f"0001TP_{before + frame:06d}.png"
            write(root, part, name)
            Image.fromarray(picture(frame)).save(root / part / name)


def test_camvid_takes_its_frames_from_raw_videos(video: Path, tmp_path: Path) -> None:
    write_stills(tmp_path, train=[10], test=[30], before=100)
    data = open_camvid(tmp_path, videos=video.parent, first={"0001TP": 100})
    (clip,) = data.test
    assert clip.pairs(0) == [(130, 130)]
    assert clip.pairs(4) == [(126, 130)]
    assert clip.pairs(31) == []
    assert clip.window(126, 2) == [124, 125, 126]
    assert [bar(frame) for frame in clip.pictures([124, 126])] == [24, 26]
    assert data.facts["frames"] == "raw videos"
    with pytest.raises(InputError, match="--first"):
        open_camvid(tmp_path, videos=video.parent, first={"0001TP": 102})
    with pytest.raises(InputError, match="no such video"):
        open_camvid(tmp_path, videos=video.parent, first={"0001tp": 100})
    write(tmp_path, "test", "Seq05VD_f00030.png")
    first = {"0001TP": 100, "Seq05VD": 5}
    with pytest.raises(InputError, match=r"not used[\s\S]*--first Seq05VD=5[\s\S]*used are 0001TP"):
        open_camvid(tmp_path, videos=video.parent, sequences=["0001TP"], first=first)


DROPPED_LATE = [*range(25), *range(26, COUNT)]  # from 25 on, each frame is under the number before its own
DROPPED_AND_MADE_GOOD = [*range(12), *range(13, 30), 30, 30, *range(31, COUNT)]  # wrong in the middle only


@pytest.mark.parametrize(("frames", "wrong"), [(DROPPED_LATE, 34), (DROPPED_AND_MADE_GOOD, 20)])
def test_a_frame_dropped_on_the_way_is_noticed(tmp_path: Path, frames: list[int], wrong: int) -> None:
    write_stills(tmp_path, train=[3, 20], test=[34])
    (tmp_path / "raw").mkdir()
    write_video(tmp_path / "raw" / "0001TP.mp4", frames)
    with pytest.raises(InputError, match=rf"frame {wrong}, against [\s\S]* number {wrong - 1} is nearest"):
        open_camvid(tmp_path, videos=tmp_path / "raw")


def test_the_stills_are_compared_in_one_go(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stills(tmp_path, train=[20, 34], test=[5])
    begun: list[Path] = []
    decoded = raw_video._decoded
    monkeypatch.setattr(raw_video, "_decoded", lambda path: (begun.append(path), decoded(path))[1])
    open_camvid(tmp_path, videos=video.parent)
    assert begun == [video]


def test_results_by_other_raw_videos_are_told_apart(video: Path, tmp_path: Path) -> None:
    write_stills(tmp_path, train=[10], test=[30])
    other, folder = tmp_path / "other", tmp_path / "frames"
    other.mkdir()
    write_video(other / "0001TP.mp4", range(COUNT - 1))
    (folder / "0001TP").mkdir(parents=True)
    for number in range(COUNT):
        Image.fromarray(picture(number)).save(folder / "0001TP" / f"{number}.png")
    facts = [open_camvid(tmp_path, videos=one).facts for one in (video.parent, other, folder)]
    assert facts[0]["videos_digest"] == data_digest(video.parent, [video])
    assert len({one["videos_digest"] for one in facts}) == 3
    assert [one["first"] for one in facts] == [{"0001TP": 0}, {"0001TP": 0}, {}]
    assert open_camvid(tmp_path, videos=video.parent, first={"0001TP": 0}).facts == facts[0]
    Image.fromarray(picture(COUNT)).save(folder / "0001TP" / "0.png")
    assert open_camvid(tmp_path, videos=folder).facts["videos_digest"] != facts[2]["videos_digest"]
    (tmp_path / "later").mkdir()
    write_stills(tmp_path / "later", train=[10], test=[30], before=100)
    later = open_camvid(tmp_path / "later", videos=video.parent, first={"0001TP": 100}).facts
    assert later == facts[0] | {"first": {"0001TP": 100}}
    with pytest.raises(InputError, match="numbered by their names"):
        open_camvid(tmp_path, videos=folder, first={"0001TP": 0})
