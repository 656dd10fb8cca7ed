"""What a probe says of a source: its pictures' times, its size, and why it cannot be used."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.packet import Packet
from av.video.stream import VideoStream
from clips import SIZE, cut_away, picture, steady, turn, unsteady, write_video
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from frame.pipeline.decode import FOLDER_RATE, REASONS, ClipError, DecodeCage, Limits
from frame.pipeline.decode.folder import natural
from frame.pipeline.decode.limits import CONTAINERS
from frame.pipeline.decode.scan import shows_picture


@pytest.fixture(scope="module")
def cage() -> Iterator[DecodeCage]:
    with DecodeCage() as cage:
        yield cage


def refused(cage: DecodeCage, path: Path) -> ClipError:
    """The error of a source that cannot be used, after a look at what is to be stored of it."""
    with pytest.raises(ClipError) as caught:
        cage.probe(path)
    error = caught.value
    assert error.reason in REASONS
    assert str(path.parent) not in error.detail
    assert "/proc" not in error.detail
    assert "0x" not in error.detail
    assert "\n" not in error.detail
    return error


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv"])
@pytest.mark.parametrize("ticks", [steady(12), unsteady(12)], ids=["constant rate", "variable rate"])
def test_times_are_the_files_own(cage: DecodeCage, tmp_path: Path, name: str, ticks: list[int]) -> None:
    probe = cage.probe(write_video(tmp_path / name, ticks))
    assert probe.timestamps == pytest.approx([tick / 1000 for tick in ticks], abs=1e-9)
    assert (probe.width, probe.height, probe.rotation) == (*SIZE, 0)
    assert probe.rate == pytest.approx(11 * 1000 / ticks[-1])
    assert probe.codec == "h264"
    assert probe.bytes == (tmp_path / name).stat().st_size


def test_probe_is_the_same_each_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", unsteady(20))
    with DecodeCage() as one, DecodeCage() as two:
        assert one.probe(path) == one.probe(path) == two.probe(path)


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "2"}], ids=["no B pictures", "B pictures"])
def test_avi_times_count_its_pictures(cage: DecodeCage, tmp_path: Path, options: dict[str, str]) -> None:
    # AVI keeps no presentation times, and packets come in another order than pictures.
    path = write_video(tmp_path / "a.avi", range(15), base=Fraction(1, 25), codec="mpeg4", options=options)
    assert cage.probe(path).timestamps == pytest.approx([number / 25 for number in range(15)])


def test_broadcast_streams_are_counted_by_decoding(cage: DecodeCage, tmp_path: Path) -> None:
    probe = cage.probe(write_video(tmp_path / "a.ts", steady(15)))
    assert np.diff(probe.timestamps) == pytest.approx([0.04] * 14)
    assert probe.container == "mpegts"


def test_pictures_outside_the_edit_list_are_not_there(cage: DecodeCage, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(30))
    cut_away(path, 400)
    assert cage.probe(path).timestamps == pytest.approx([0.04 * number for number in range(20)])


def test_rotation_is_applied_to_the_size(cage: DecodeCage, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(3))
    turn(path, (0, 1, -1, 0))
    probe = cage.probe(path)
    assert (probe.width, probe.height, probe.rotation) == (SIZE[1], SIZE[0], 90)


def test_a_skewed_picture_is_refused(cage: DecodeCage, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(3))
    turn(path, (1, 1, -1, 1))
    assert refused(cage, path).reason == "picture-unsupported"


def test_a_matrix_of_zeros_is_ignored(cage: DecodeCage, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(3))
    turn(path, (0, 0, 0, 0))
    assert cage.probe(path).rotation == 0


def test_a_segment_is_half_open(cage: DecodeCage, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(20))
    assert cage.probe(path, start=0.2, end=0.4).timestamps == pytest.approx([0.2, 0.24, 0.28, 0.32, 0.36])
    assert len(cage.probe(path, end=0.2).timestamps) == 5
    assert len(cage.probe(path, start=0.2).timestamps) == 15
    with pytest.raises(ClipError, match="segment-empty"):
        cage.probe(path, start=5.0, end=6.0)


def test_a_segment_counts_from_where_the_file_starts(cage: DecodeCage, tmp_path: Path) -> None:
    # Streams begin their clock anywhere; a player, and whoever annotates with one, begins at zero.
    path = write_video(tmp_path / "a.ts", [tick + 7000 for tick in steady(20)])
    probe = cage.probe(path, start=0.0, end=0.2)
    assert len(probe.timestamps) == 5
    assert probe.timestamps[0] > 6


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("zero.mp4", b"", "empty"),
        ("zeros.mp4", bytes(5000), "not-a-video"),
        ("text.mp4", b"Not Found\n" * 50, "not-a-video"),
        ("page.mp4", b"<!DOCTYPE html><html>404</html>", "not-a-video"),
        ("half.mp4", b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + b"\0\0\0\x10mdat12345678", "container-damaged"),
        ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", ""),
        ("list.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n", "container-not-allowed"),
        ("tone.mp4", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\0\0\0", ""),
    ],
)
def test_what_is_not_a_video(cage: DecodeCage, tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    # FFmpeg may know a playlist by its name alone, which it is not told, or by its first line: either way, not opened.
    assert refused(cage, path).reason in ({reason} if reason else {"not-a-video", "container-not-allowed"})


def test_sound_alone(cage: DecodeCage, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert refused(cage, tmp_path / "a.mp4").reason == "no-video-stream"


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi"])
def test_a_download_that_broke_off_is_found(cage: DecodeCage, tmp_path: Path, name: str) -> None:
    codec, base = ("mpeg4", Fraction(1, 25)) if name == "a.avi" else ("libx264", Fraction(1, 1000))
    ticks = range(40) if name == "a.avi" else steady(40)
    path = write_video(tmp_path / name, list(ticks), codec=codec, base=base)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert refused(cage, path).reason in ("cut-short", "container-damaged")


def test_an_index_at_the_front_does_not_hide_a_cut(cage: DecodeCage, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", steady(40))
    with (
        av.open(str(whole)) as source,
        av.open(str(tmp_path / "b.mp4"), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    path = tmp_path / "b.mp4"
    assert len(cage.probe(path).timestamps) == 40
    path.write_bytes(path.read_bytes()[:-20])
    assert refused(cage, path).reason == "cut-short"


def test_what_is_not_a_regular_file(cage: DecodeCage, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "lost.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "round.mp4").symlink_to(tmp_path / "round.mp4")
    assert refused(cage, tmp_path / "pipe.mp4").reason == "not-a-file"
    assert refused(cage, Path("/dev/zero")).reason == "not-a-file"
    assert refused(cage, tmp_path / "lost.mp4").reason == "missing"
    assert refused(cage, tmp_path / "round.mp4").reason == "missing"
    assert refused(cage, tmp_path / "none.mp4").reason == "missing"
    assert refused(cage, tmp_path / ("n" * 300)).reason == "missing"


@pytest.mark.parametrize("name", ["-o.mp4", "a b'\"$(x).mp4", "été 視.mp4", "http:x.mp4", "%03d.mp4", "\udcff.mp4"])
def test_any_name_will_do(cage: DecodeCage, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(write_video(tmp_path / "plain.mp4", steady(3)).read_bytes())
    monkeypatch.chdir(tmp_path)
    probe = cage.probe(Path(name))
    assert cage.decode(Path(name), probe.timestamps, height=SIZE[1], width=SIZE[0]).shape == (3, SIZE[1], SIZE[0], 3)


def test_limits_are_kept(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(12))
    for limits, reason in (
        (Limits(pixels=SIZE[0] * SIZE[1] - 1), "too-large"),
        (Limits(frames=11), "too-many-frames"),
        (Limits(codecs=("hevc",)), "codec-not-allowed"),
        (Limits(containers=("matroska",)), "container-not-allowed"),
    ):
        with DecodeCage(limits=limits) as cage:
            assert refused(cage, path).reason == reason
    with DecodeCage(limits=Limits(pixels=SIZE[0] * SIZE[1], frames=12)) as cage:
        assert len(cage.probe(path).timestamps) == 12


def test_no_container_that_names_other_files() -> None:
    assert not {"hls", "dash", "concat", "image2", "sdp", "rtsp", "lavfi"} & set(CONTAINERS)


def test_a_size_declared_falsely_is_not_believed(cage: DecodeCage, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(3))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"avc1") + 4 + 24
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    probe = cage.probe(path)
    assert (probe.width, probe.height) == SIZE


def test_hidden_pictures_of_vp8_are_not_counted() -> None:
    shown, hidden = (cast("Packet[VideoStream]", av.Packet(first + b"\0\0")) for first in (b"\x10", b"\0"))
    assert shows_picture(shown, "vp8")
    assert not shows_picture(hidden, "vp8")
    assert shows_picture(hidden, "h264")


def write_folder(path: Path, names: list[str], *, size: tuple[int, int] = SIZE) -> Path:
    """A folder of pictures that show their place in ``names``."""
    path.mkdir()
    for number, name in enumerate(names):
        Image.fromarray(picture(number, size)).save(path / name)
    return path


def test_a_folder_has_the_order_a_person_sees(cage: DecodeCage, tmp_path: Path) -> None:
    path = write_folder(tmp_path / "f", ["frame_2.png", "frame_10.png", "frame_1.png"])
    (path / "notes.txt").write_text("not a picture")
    (path / ".hidden.png").write_bytes(b"")
    probe = cage.probe(path, frame_rate=10.0)
    assert probe.timestamps == (0.0, 0.1, 0.2)
    assert (probe.width, probe.height, probe.codec, probe.container) == (*SIZE, "png", "folder")
    assert cage.probe(path).timestamps[1] == 1 / FOLDER_RATE
    assert cage.probe(path, frame_rate=10.0, start=0.1, end=0.2).timestamps == (0.1,)


def test_a_folders_digest_is_of_names_and_bytes(cage: DecodeCage, tmp_path: Path) -> None:
    path = write_folder(tmp_path / "f", ["1.png", "2.png"])
    first = cage.probe(path)
    (path / "2.png").rename(path / "3.png")
    second = cage.probe(path)
    (path / "3.png").write_bytes((path / "3.png").read_bytes() + b"\0")
    assert len({first.sha256, second.sha256, cage.probe(path).sha256}) == 3


def test_folders_that_cannot_be_used(cage: DecodeCage, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert refused(cage, tmp_path / "none").reason == "empty"
    mixed = write_folder(tmp_path / "mixed", ["1.png"])
    Image.fromarray(picture(0, (64, 64))).save(mixed / "2.png")
    assert refused(cage, mixed).reason == "size-changes"
    deep = write_folder(tmp_path / "deep", ["1.png"])
    Image.fromarray(np.full((64, 64), 60000, np.uint16)).save(deep / "1.png")
    assert refused(cage, deep).reason == "picture-unsupported"
    text = write_folder(tmp_path / "text", ["1.png"])
    (text / "1.png").write_text("no picture")
    assert refused(cage, text).reason == "decoder-error"


def test_a_photographs_own_rotation_counts(cage: DecodeCage, tmp_path: Path) -> None:
    path = write_folder(tmp_path / "f", [])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(5)).save(path / "1.jpg", exif=exif)
    probe = cage.probe(path)
    assert (probe.width, probe.height) == (SIZE[1], SIZE[0])
    frames = cage.decode(path, probe.timestamps, height=probe.height, width=probe.width)
    assert abs(np.rot90(picture(5), -1).astype(int) - frames[0]).mean() < 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10**9), unique=True))
def test_natural_order_is_that_of_numbers(numbers: list[int]) -> None:
    names = [f"frame_{number}.jpg" for number in numbers]
    assert sorted(names, key=natural) == [f"frame_{number}.jpg" for number in sorted(numbers)]


@given(st.sampled_from(sorted(REASONS)), st.text())
def test_errors_survive_a_process_border_on_one_line(reason: str, detail: str) -> None:
    error = pickle.loads(pickle.dumps(ClipError(reason, detail)))  # noqa: S301
    assert (error.reason, error.detail) == (reason, " ".join(detail.split()))
    assert len(str(error).splitlines()) == 1
