"""The right pictures or none: every decoded picture shows the number that its time stands for."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TypedDict

import av
import numpy as np
import pytest
from clips import SIZE, cut_away, number_of, picture, steady, turn, unsteady, write_video
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from frame.manifests.errors import InputError
from frame.pipeline.decode import DECODERS, ClipError, DecodeCage, Limits, Probe
from frame.pipeline.decode.cage import Frames
from frame.pipeline.decode.scan import scan
from frame.pipeline.decode.sequential import PyavReader, landing
from frame.pipeline.decode.source import Source

HAVE_TORCHCODEC = importlib.util.find_spec("torchcodec") is not None


@pytest.fixture(scope="module")
def cage() -> Iterator[DecodeCage]:
    with DecodeCage() as cage:
        yield cage


@pytest.fixture(scope="module")
def open_groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video on which decord's random access gives wrong pictures: open groups of pictures, many B pictures."""
    return write_video(tmp_path_factory.mktemp("open") / "a.mp4", unsteady(60), options=OPEN_GROUPS)


OPEN_GROUPS = {"x264-params": "open-gop=1:keyint=8:bframes=4:b-pyramid=2"}


def all_frames(cage: DecodeCage, path: Path, decoder: str = "decord") -> tuple[Probe, Frames]:
    probe = cage.probe(path)
    return probe, cage.decode(path, probe.timestamps, decoder=decoder, sha256=probe.sha256, **shape_of(probe))


class Shape(TypedDict):
    height: int
    width: int


def shape_of(probe: Probe) -> Shape:
    return {"height": probe.height, "width": probe.width}


def numbers(frames: Frames) -> list[int]:
    return [number_of(frame) for frame in frames]


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize(
    ("name", "codec", "options", "trusted"),
    [
        ("a.mp4", "libx264", {}, True),
        ("a.mkv", "libx264", {"bf": "3"}, True),
        ("b.mp4", "libx264", OPEN_GROUPS, True),
        ("c.mp4", "libx265", {"x265-params": "log-level=none:open-gop=1:keyint=8:pools=none"}, True),
        ("a.webm", "libvpx", {}, False),
        ("b.webm", "libvpx-vp9", {}, False),
        ("d.mp4", "mpeg4", {"bf": "2"}, False),
        ("a.avi", "mpeg4", {"bf": "2"}, False),
        ("a.ts", "mpeg2video", {"bf": "2"}, False),
    ],
)
def test_each_picture_is_the_one_its_time_names(
    cage: DecodeCage, tmp_path: Path, decoder: str, name: str, codec: str, options: dict[str, str], trusted: bool
) -> None:
    constant = codec in ("mpeg4", "mpeg2video")
    base = Fraction(1, 25) if constant else Fraction(1, 1000)
    path = write_video(
        tmp_path / name, range(24) if constant else unsteady(24), base=base, codec=codec, options=options
    )
    _, frames = all_frames(cage, path, decoder)
    assert numbers(frames) == list(range(24))
    assert cage.used == ("decord" if trusted and decoder == "decord" else "pyav")


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_choice_of_times_in_pieces_of_any_size(cage: DecodeCage, open_groups: Path, data: st.DataObject) -> None:
    probe = cage.probe(open_groups)
    chosen = sorted(data.draw(st.sets(st.integers(0, 59), min_size=1)))
    if data.draw(st.booleans()):
        chosen = list(range(chosen[0], chosen[-1] + 1))
    pieces = cage.decode_pieces(
        open_groups,
        [probe.timestamps[number] for number in chosen],
        height=probe.height,
        width=probe.width,
        decoder=data.draw(st.sampled_from(("decord", "pyav"))),
        piece=data.draw(st.integers(1, 70)),
    )
    assert [number for piece in pieces for number in numbers(piece)] == chosen


def test_decoders_give_the_same_bytes(cage: DecodeCage, open_groups: Path) -> None:
    _, one = all_frames(cage, open_groups, "decord")
    assert cage.used == "decord"
    _, two = all_frames(cage, open_groups, "pyav")
    with av.open(str(open_groups)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(one, two)
    assert np.array_equal(one, np.stack(plain))


@pytest.mark.parametrize(
    ("matrix", "degrees", "mirrored"),
    [
        ((1, 0, 0, 1), 0, False),
        ((0, 1, -1, 0), 90, False),
        ((-1, 0, 0, -1), 180, False),
        ((0, -1, 1, 0), 270, False),
        ((-1, 0, 0, 1), 0, True),
        ((0, 1, 1, 0), 270, True),
        ((1, 0, 0, -1), 180, True),
        ((0, -1, -1, 0), 90, True),
    ],
)
def test_pictures_are_held_the_right_way_up(
    cage: DecodeCage, tmp_path: Path, matrix: tuple[int, int, int, int], degrees: int, mirrored: bool
) -> None:
    path = write_video(tmp_path / "a.mp4", steady(3))
    _, stored = all_frames(cage, path)
    turn(path, matrix)
    probe, shown = all_frames(cage, path)
    assert probe.rotation == degrees
    held = stored[:, :, ::-1] if mirrored else stored
    assert np.array_equal(shown, np.rot90(held, -degrees // 90, axes=(1, 2)))


def test_pictures_cut_away_are_not_given(cage: DecodeCage, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(30))
    cut_away(path, 400)
    probe, frames = all_frames(cage, path)
    assert numbers(frames) == list(range(10, 30))
    assert probe.timestamps[0] == 0
    # decord does not know of edit lists, and would give the first twenty.
    assert cage.used == "pyav"


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mp4"])
def test_a_change_of_size_is_refused(cage: DecodeCage, tmp_path: Path, name: str) -> None:
    one = write_video(tmp_path / "1.ts", steady(10), options={"bf": "0"})
    two = write_video(tmp_path / "2.ts", [tick + 400 for tick in steady(10)], size=(96, 48), options={"bf": "0"})
    (tmp_path / "12.ts").write_bytes(one.read_bytes() + two.read_bytes())
    path = tmp_path / "12.ts"
    if name != "a.ts":
        path = tmp_path / name
        with av.open(str(tmp_path / "12.ts")) as source, av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
    # decord would scale the later pictures to the size of the first, without a word.
    with pytest.raises(ClipError, match=f"size-changes: from {SIZE[0]} x {SIZE[1]} to 96 x 48"):
        all_frames(cage, path)


def test_a_picture_that_cannot_be_decoded_costs_the_clip(cage: DecodeCage, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(30), options={"g": "5", "bf": "0"})
    probe = cage.probe(path)
    with av.open(str(path)) as container:
        where = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][20]
    data = bytearray(path.read_bytes())
    at, size = where
    assert at is not None
    data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    reasons = set()
    for decoder in ("decord", "pyav"):
        with pytest.raises(ClipError) as caught:
            cage.decode(path, probe.timestamps, height=probe.height, width=probe.width, decoder=decoder)
        reasons.add(str(caught.value))
    assert reasons == {"decoder-error: after 20 pictures: Invalid data found when processing input"}


def damaged(cage: DecodeCage, path: Path, content: bytearray) -> list[bytes]:
    """What comes of the damaged content with decord, and with PyAV: pictures, or a reason."""
    path.write_bytes(content)
    outcomes = []
    for decoder in ("decord", "pyav"):
        try:
            outcomes.append(all_frames(cage, path, decoder)[1].tobytes())
        except ClipError as error:
            outcomes.append(str(error).encode())
    return outcomes


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_damaged_pictures_are_given_alike_or_refused(
    cage: DecodeCage, open_groups: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(open_groups.read_bytes())
    begin, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(begin, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    decord, pyav = damaged(cage, tmp_path_factory.mktemp("damaged") / "a.mp4", content)
    # A bit that changes a picture's place in its codec's order is seen by PyAV alone: it then contradicts its time.
    assert decord == pyav or pyav.split(b":")[0] in (b"timestamps-disorder", b"frames-missing")


def test_times_that_contradict_the_codecs_order_are_refused(
    cage: DecodeCage, open_groups: Path, tmp_path: Path
) -> None:
    # Two pictures of the middle change places by their times: nobody can say any more which one a time means.
    content = bytearray(open_groups.read_bytes())
    at = content.index(b"ctts") + 12
    offsets = [at + 8 * number + 4 for number in range(20)]
    values = [bytes(content[offset : offset + 4]) for offset in offsets]
    swap = next(number for number in range(8, 19) if values[number] != values[number + 1])
    one, two = offsets[swap], offsets[swap + 1]
    content[one : one + 4], content[two : two + 4] = content[two : two + 4], content[one : one + 4]
    _, outcome = damaged(cage, tmp_path / "a.mp4", content)
    assert outcome.split(b":")[0] in (b"timestamps-disorder", b"timestamps-repeat", b"frames-missing")


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_file_that_keeps_no_times_of_showing_is_in_the_codecs_order(
    cage: DecodeCage, tmp_path: Path, decoder: str
) -> None:
    path = write_video(tmp_path / "a.mp4", steady(24), options={"bf": "3"})
    bare = tmp_path / "b.mp4"
    with av.open(str(path)) as source, av.open(str(bare), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = 40 * number
            target.mux(packet)
    probe, frames = all_frames(cage, bare, decoder)
    assert numbers(frames) == list(range(24))
    assert np.diff(probe.timestamps) == pytest.approx([0.04] * 23)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", OPEN_GROUPS),
        ("a.mkv", "libx264", OPEN_GROUPS),
        ("b.mp4", "libx265", {"x265-params": "log-level=none:open-gop=1:keyint=8:pools=none"}),
        ("c.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=8"}),
        ("a.webm", "libvpx", {"g": "8"}),
    ],
)
def test_a_jump_far_into_a_file_arrives(
    cage: DecodeCage, tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write_video(tmp_path / name, steady(120, step=250), codec=codec, options=options)
    probe, frames = all_frames(cage, path, "pyav")
    scanned = scan(Source(path), Limits())
    assert landing(scanned, scanned.ticks[70]) is None
    assert landing(scanned, scanned.ticks[100]) is not None
    times = probe.timestamps[100:115]
    there = cage.decode(path, times, height=probe.height, width=probe.width)
    assert np.array_equal(there, frames[100:115])
    assert numbers(there) == list(range(100, 115))


def test_a_jump_that_lands_too_late_is_made_good(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(120, step=250), options={"g": "8"})
    scanned = scan(Source(path), Limits())
    reader = PyavReader(Source(path), scanned, Limits(), scanned.ticks[100:110], 0)
    # As if a broken index had led to the last key picture of all.
    reader._key = scanned.keys[-1]
    reader._pictures = reader._decode(reader._key)
    out = np.empty((10, SIZE[1], SIZE[0], 3), np.uint8)
    reader.read(out)
    assert numbers(out) == list(range(100, 110))


def test_taking_up_again_changes_no_byte(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(120, step=250), options=OPEN_GROUPS)
    scanned = scan(Source(path), Limits())
    for first, given_before in ((0, 7), (100, 13)):
        wanted = scanned.ticks[first:]
        whole = np.empty((len(wanted), SIZE[1], SIZE[0], 3), np.uint8)
        PyavReader(Source(path), scanned, Limits(), wanted, 0).read(whole)
        rest = np.empty_like(whole[given_before:])
        PyavReader(Source(path), scanned, Limits(), wanted, given_before).read(rest)
        assert np.array_equal(rest, whole[given_before:])


def test_what_is_not_as_planned_is_refused(cage: DecodeCage, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(12))
    probe = cage.probe(path)
    shape, other = shape_of(probe), Shape(height=64, width=64)
    for times, size in (([0.04, 0.05], shape), ([9.0], shape), ([0.0], other)):
        with pytest.raises(ClipError, match="frames-differ"):
            cage.decode(path, times, **size)
    write_video(path, steady(13))
    with pytest.raises(ClipError, match="source-changed"):
        cage.decode(path, probe.timestamps, sha256=probe.sha256, **shape)
    path.unlink()
    with pytest.raises(ClipError, match="missing"):
        cage.decode(path, probe.timestamps, sha256=probe.sha256, **shape)


def test_a_change_of_one_byte_in_place_is_seen(cage: DecodeCage, tmp_path: Path) -> None:
    # The child remembers the last source, and must not take a rewritten one for it.
    path = write_video(tmp_path / "a.mp4", steady(12))
    probe, _ = all_frames(cage, path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ClipError, match="source-changed"):
        cage.decode(path, probe.timestamps, height=probe.height, width=probe.width, sha256=probe.sha256)


@pytest.mark.parametrize("times", [[], [0.0, 0.0], [0.04, 0.0]])
def test_times_out_of_order_are_a_mistake(cage: DecodeCage, tmp_path: Path, times: list[float]) -> None:
    with pytest.raises(ValueError, match="increasing"):
        cage.decode(tmp_path / "a.mp4", times, height=1, width=1)


def test_a_folder_is_a_video(cage: DecodeCage, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(picture(number)).save(folder / f"frame_{number}.png")
    probe = cage.probe(folder, frame_rate=10.0)
    shape, digest = shape_of(probe), probe.sha256
    pieces = cage.decode_pieces(folder, probe.timestamps[::2], sha256=digest, frame_rate=10.0, piece=4, **shape)
    frames = [frame for piece in pieces for frame in piece]
    assert np.array_equal(np.stack(frames), np.stack([picture(number) for number in range(0, 12, 2)]))
    assert cage.used == "pillow"
    data = (folder / "frame_3.png").read_bytes()
    (folder / "frame_3.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ClipError, match="source-changed"):
        cage.decode(folder, probe.timestamps, sha256=digest, frame_rate=10.0, **shape)
    with pytest.raises(ClipError, match=r"decoder-error: frame_3\.png: OSError"):
        cage.decode(folder, probe.timestamps, frame_rate=10.0, **shape)


def test_decoders_that_cannot_be_had_are_named(cage: DecodeCage) -> None:
    for decoder in ("decord", "pyav"):
        cage.check(decoder)
    with pytest.raises(InputError, match="no decoder 'opencv'"):
        cage.check("opencv")
    assert "torchcodec" in DECODERS


@pytest.mark.skipif(HAVE_TORCHCODEC, reason="torchcodec is installed")
def test_without_torchcodec_the_way_to_it_is_told(cage: DecodeCage) -> None:
    with pytest.raises(InputError, match="pip install"):
        cage.check("torchcodec")


@pytest.mark.skipif(not HAVE_TORCHCODEC, reason="torchcodec is not installed")
def test_torchcodec_gives_the_same_bytes(cage: DecodeCage, open_groups: Path) -> None:
    _, one = all_frames(cage, open_groups, "torchcodec")
    assert cage.used == "torchcodec"
    _, two = all_frames(cage, open_groups, "pyav")
    assert np.array_equal(one, two)
