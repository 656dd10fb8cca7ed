"""Files cut short by a broken download, in containers whose demuxers end early without a word."""

from __future__ import annotations

from av.container import InputContainer
from av.video.stream import VideoStream

from frame.pipeline.decode.container import short_name
from frame.pipeline.decode.errors import ClipError
from frame.pipeline.decode.source import Source

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def check_whole(source: Source, container: InputContainer, stream: VideoStream, times: list[int]) -> None:
    """Raise ClipError when the file is shorter than its own header says; to be called when all packets are read.

    ``times`` are the packets' decoding times; those of AVI count its frames.
    """
    name = short_name(container)
    if name == "mov":
        promised = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
        if promised > source.size:
            raise ClipError("cut-short", f"{source.size} bytes, its index leads to byte {promised}")
    if name == "matroska":
        size = _matroska_size(source.head(256))
        if size is not None and size > source.size:
            raise ClipError("cut-short", f"{source.size} bytes of {size}")
    if name == "avi" and times:
        # Some writers count one frame more than they write; a broken download loses more than one in twenty.
        held = max(times) + 1
        if held < 0.95 * stream.frames:
            raise ClipError("cut-short", f"{held} frames of {stream.frames}")


def _matroska_size(head: bytes) -> int | None:
    """Bytes of a whole Matroska file by its own header; None where it does not say (a live recording)."""
    if head[:4] != _EBML:
        return None
    size, at = _number(head, 4)
    if size is None:
        return None
    at += size
    if head[at : at + 4] != _SEGMENT:
        return None
    size, at = _number(head, at + 4)
    return None if size is None else at + size


def _number(data: bytes, at: int) -> tuple[int | None, int]:
    """An EBML number, None when it is the one that means "unknown"; and the place behind it."""
    if at >= len(data) or not data[at]:
        return None, at
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), at + length
