"""Files that are no video, or one that nobody should trust, and what is to be said of each."""

from __future__ import annotations

import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from clips import steady, turn, unsteady, write_video
from PIL import Image

FINE, NO_VIDEO = "fine", "not-a-video container-not-allowed"


def _text(path: Path, text: str) -> None:
    path.write_text(text)


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.mp4", b"no video")


def _socket(path: Path) -> None:
    here = socket.socket(socket.AF_UNIX)
    here.bind(str(path))
    here.close()


def _patched(path: Path, at: bytes, offset: int, value: bytes, **options: object) -> None:
    """A video whose bytes ``offset`` behind the last ``at`` are others."""
    data = bytearray(write_video(path, steady(8), **options).read_bytes())  # type: ignore[arg-type]
    start = data.rindex(at) + len(at) + offset
    data[start : start + len(value)] = value
    path.write_bytes(data)


def _giant_raw(path: Path, side: int) -> None:
    """So many pixels high and wide by its header, of pictures that are not compressed."""
    base = Fraction(1, 25)
    size = struct.pack("<ii", side, side)
    _patched(path, b"strf", 8, size, codec="rawvideo", base=base, pixels="yuv420p")


def _rare_codec(path: Path) -> None:
    write_video(path, range(8), codec="huffyuv", pixels="yuv422p", base=Fraction(1, 25))


def _without_index(path: Path) -> None:
    data = write_video(path, steady(8)).read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") - 4])


def _sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _two_sizes(path: Path) -> None:
    """Two broadcast streams, one behind the other, as a recorder leaves them when the programme changes."""
    one = write_video(path.with_name("one.ts"), steady(8)).read_bytes()
    two = write_video(path.with_name("two.ts"), [320 + tick for tick in steady(8)], size=(64, 96)).read_bytes()
    path.write_bytes(one + two)


def _two_pictures(path: Path) -> None:
    path.mkdir()
    for number in (1, 2):
        Image.new("RGB", (32 * number, 32)).save(path / f"{number}.png")


def _picture_bomb(path: Path) -> None:
    """A picture of a few bytes that says it has ten thousand million pixels."""
    path.mkdir()
    Image.new("RGB", (4, 4)).save(path / "1.png")
    data = bytearray((path / "1.png").read_bytes())
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (path / "1.png").write_bytes(data)


def _folder_of(path: Path, content: bytes) -> None:
    path.mkdir()
    (path / "1.png").write_bytes(content)


BILLION = struct.pack(">I", 10**9)

Maker = Callable[[Path], object]
HOSTILE: dict[str, tuple[Maker, str]] = {
    "no bytes.mp4": (Path.touch, "empty"),
    "text.mp4": (lambda path: _text(path, "Not Found\n" * 50), "not-a-video"),
    "page.mp4": (lambda path: _text(path, "<!DOCTYPE html><html>404</html>"), "not-a-video"),
    "zip.mp4": (_zip, NO_VIDEO),
    "playlist.m3u8": (lambda path: _text(path, "#EXTM3U\n#EXTINF:9,\nCALL/a.ts\n"), NO_VIDEO),
    "playlist.mp4": (lambda path: _text(path, "#EXTM3U\n#EXTINF:9,\nCALL/a.ts\n"), NO_VIDEO),
    "concat.mp4": (lambda path: _text(path, "ffconcat version 1.0\nfile CALL\n"), NO_VIDEO),
    "dash.mp4": (
        lambda path: _text(path, '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>CALL/</BaseURL></MPD>'),
        NO_VIDEO,
    ),
    "session.sdp": (lambda path: _text(path, "v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"), NO_VIDEO),
    "address.mp4": (lambda path: _text(path, "CALL/a.mp4"), "not-a-video"),
    "lost.mp4": (lambda path: path.symlink_to("nowhere.mp4"), "missing"),
    "round.mp4": (lambda path: path.symlink_to(path.name), "missing"),
    "device.mp4": (lambda path: path.symlink_to("/dev/zero"), "not-a-file"),
    "pipe.mp4": (os.mkfifo, "not-a-file"),
    "socket.mp4": (_socket, "not-a-file"),
    "empty folder": (Path.mkdir, "empty"),
    "no picture": (lambda path: _folder_of(path, b"text"), "decoder-error"),
    "picture bomb": (_picture_bomb, "too-large"),
    "giant.avi": (lambda path: _giant_raw(path, 12_000), "too-large"),
    "beyond giants.avi": (lambda path: _giant_raw(path, 65_535), "too-large decoder-error"),
    # How many pictures there are, by the atoms that list their sizes and their times.
    "a billion sizes.mp4": (lambda path: _patched(path, b"stsz", 8, BILLION), "cut-short container-damaged"),
    "a billion times.mp4": (lambda path: _patched(path, b"stts", 8, BILLION), "fine container-damaged"),
    "no index.mp4": (_without_index, "container-damaged cut-short"),
    "sound.mp4": (_sound, "no-video-stream"),
    "two sizes.ts": (_two_sizes, "size-changes timestamps-repeat"),
    "pictures of two sizes": (_two_pictures, "size-changes"),
    "too many.mp4": (lambda path: write_video(path, steady(41)), "too-many-frames"),
    "codec.avi": (_rare_codec, "codec-not-allowed"),
    "skewed.mp4": (lambda path: turn(write_video(path, steady(8)), (1, 1, -1, 1)), "picture-unsupported"),
    "-option.mp4": (lambda path: write_video(path.with_name("plain.mp4"), steady(8)).rename(path), FINE),
    "file:x|concat:y.mp4": (lambda path: write_video(path.with_name("plain.mp4"), steady(8)).rename(path), FINE),
    "variable rate.mp4": (lambda path: write_video(path, unsteady(8)), FINE),
    "turned.mp4": (lambda path: turn(write_video(path, steady(8)), (0, 1, -1, 0)), FINE),
    "10 bits.mp4": (lambda path: write_video(path, steady(8), pixels="yuv420p10le"), FINE),
    "see-through.mkv": (lambda path: write_video(path, steady(8), codec="ffv1", pixels="yuva420p"), FINE),
}
"""Name -> (what writes it, the reasons that fit). CALL stands for an address at which somebody listens."""
