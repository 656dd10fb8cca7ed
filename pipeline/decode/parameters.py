"""Whether an H.264 or HEVC stream may change its picture's size on the way, from the parameter sets in its packets."""

from __future__ import annotations

from collections.abc import Iterator

from av.packet import Packet
from av.video.stream import VideoStream

# Sequence parameter sets, where the picture's size is said: NAL unit type, and where in the first byte it stands.
_SETS = {"h264": (7, 0, 0x1F), "hevc": (33, 1, 0x3F)}


class ParameterSets:
    """Looks at each packet. ``change`` is true once a sequence parameter set in a packet is not the first packet's.

    decord gives every picture the size of the first, silently: where the size may change, it must not be used. Most
    files have their parameter sets in the header alone, or the same ones in front of every key picture.
    """

    def __init__(self, codec: str, header: bytes | None) -> None:
        self.change = False
        self._kind = _SETS.get(codec)
        self._prefix = _length_bytes(codec, header or b"")
        self._first: tuple[bytes, ...] | None = None

    def look_at(self, packet: Packet[VideoStream]) -> None:
        """Take one packet's parameter sets into account; to be called in the order of the file."""
        if self._kind is None or self.change:
            return
        if packet.has_sidedata("new_extradata"):
            self.change = True
            return
        kind, shift, mask = self._kind
        units = _units(memoryview(packet), self._prefix)
        sets = tuple(bytes(unit) for unit in units if len(unit) and (unit[0] >> shift) & mask == kind)
        if self._first is None:
            self._first = sets
        elif sets and sets != self._first:
            self.change = True


def _length_bytes(codec: str, header: bytes) -> int:
    """Bytes of the length before each NAL unit; 0 where start codes part them."""
    if not header or header[0] != 1:
        return 0
    where = 4 if codec == "h264" else 21
    return (header[where] & 3) + 1 if len(header) > where else 0


def _units(data: memoryview, prefix: int) -> Iterator[memoryview]:
    if prefix:
        at = 0
        while at + prefix <= len(data):
            length = int.from_bytes(data[at : at + prefix], "big")
            yield data[at + prefix : at + prefix + length]
            at += prefix + length
        return
    whole = bytes(data)
    at = whole.find(b"\0\0\1")
    while at >= 0:
        end = whole.find(b"\0\0\1", at + 3)
        yield data[at + 3 : end if end >= 0 else len(data)]
        at = end
