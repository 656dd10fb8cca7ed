"""Every picture of a video file and its time, from its packets; decoded only where the packets do not tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from frame.pipeline.decode.container import (
    check_size,
    codec_name,
    encrypted,
    open_container,
    out_of_memory,
    says,
    short_name,
    video_stream,
)
from frame.pipeline.decode.errors import ClipError
from frame.pipeline.decode.limits import Limits
from frame.pipeline.decode.orientation import Orientation, orientation_of
from frame.pipeline.decode.parameters import ParameterSets
from frame.pipeline.decode.source import Source
from frame.pipeline.decode.whole import check_whole

PACKETS_TELL = ("mov", "matroska", "flv", "avi")
"""Containers that keep a time for each picture. The others are streams for broadcasting, or keep times now and then."""

NO_PICTURE = 19
"""An MPEG-4 packet of no more bytes is a placeholder: there may be a picture for it, or none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """What the demuxer knows of a file.

    ``ticks`` are the times of the pictures shown, in units of ``time_base`` seconds, increasing. With ``numbered``,
    the container keeps no presentation times (AVI, some MP4): the k-th picture out of the decoder has the k-th time.
    Without, a picture carries its own. ``keys`` are (presentation, decoding) times of pictures where decoding can
    begin. ``start`` is where a player's clock begins, in seconds. ``rate`` is pictures a second. ``doubt`` says why
    only PyAV may decode the file, or is "".
    """

    ticks: tuple[int, ...]
    time_base: Fraction
    numbered: bool
    keys: tuple[tuple[int, int], ...]
    start: float
    width: int
    height: int
    orientation: Orientation
    codec: str
    container: str
    rate: float
    doubt: str

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width after the rotation."""
        return (self.width, self.height) if self.orientation.transpose else (self.height, self.width)

    def seconds(self) -> tuple[float, ...]:
        """The times in seconds: each tick's exact quotient, rounded once, so that the same file gives the same bits."""
        top, bottom = self.time_base.numerator, self.time_base.denominator
        return tuple(tick * top / bottom for tick in self.ticks)


@dataclass(slots=True)
class _Packets:
    """What one pass over the packets leaves behind; ``times`` holds (pts, dts, key, shown) a packet."""

    times: list[tuple[int | None, int | None, bool, bool]]
    placeholders: bool
    sizes_may_change: bool
    first: VideoFrame


def scan(source: Source, limits: Limits) -> Scan:
    """Read all packets of the file, and decode its first picture. Raises ClipError."""
    with open_container(source, limits) as container:
        stream = video_stream(container, limits)
        name = short_name(container)
        packets = _read(source, container, stream, limits)
        shown = [(pts, dts) for pts, dts, _, shown in packets.times if shown]
        if not shown:
            raise ClipError("no-frames", "all its pictures lie outside its edit list")
        if _packets_tell(name, packets):
            numbered = name == "avi" or _without_times(stream, packets)
            ticks = _increasing([dts if numbered else pts for pts, dts in shown])
        else:
            ticks, numbered = _ticks_by_decoding(source, limits, name, packets.times[0][1])
        return Scan(
            ticks=ticks,
            time_base=_time_base(stream),
            numbered=numbered,
            keys=() if numbered else _keys(packets),
            # Sound may begin a moment before zero, to warm its decoder up: that is no part of the clock.
            start=max(0.0, (container.start_time or 0) / 1e6),
            width=packets.first.width,
            height=packets.first.height,
            orientation=orientation_of(packets.first),
            codec=codec_name(stream),
            container=name,
            rate=_rate(ticks, stream),
            doubt=_doubt(name, container, stream, packets),
        )


def shows_picture(packet: Packet[VideoStream], codec: str) -> bool:
    """Whether a picture to show comes of the packet: not one cut away by the edit list, not a hidden VP8 one."""
    if packet.is_discard:
        return False
    # VP8 keeps pictures that are only referred to; bit 4 of the first byte says "to be shown".
    return codec != "vp8" or bool(memoryview(packet)[0] & 0x10)


def _read(source: Source, container: InputContainer, stream: VideoStream, limits: Limits) -> _Packets:
    codec = codec_name(stream)
    parameters = ParameterSets(codec, stream.codec_context.extradata)
    times: list[tuple[int | None, int | None, bool, bool]] = []
    first: VideoFrame | None = None
    trouble = "nothing came out of the decoder"
    placeholders = False
    for packet in _demux(container, stream):
        if packet.size:
            if encrypted(packet):
                raise ClipError("encrypted", f"encrypted {codec} pictures")
            times.append((packet.pts, packet.dts, packet.is_keyframe, shows_picture(packet, codec)))
            placeholders |= codec == "mpeg4" and packet.size <= NO_PICTURE
            parameters.look_at(packet)
            if len(times) > limits.frames:
                raise ClipError("too-many-frames", f"more than {limits.frames} pictures")
        if first is None:
            try:
                first = next(iter(packet.decode()), None)
            except av.error.FFmpegError as error:
                if out_of_memory(error):
                    raise ClipError("out-of-memory", "its first picture takes more memory than the limit") from None
                trouble = says(error)
    check_whole(source, container, stream, [dts for _, dts, _, _ in times if dts is not None])
    if not times:
        raise ClipError("no-frames", "the video stream has no packets")
    if first is None:
        raise ClipError("decoder-error", f"not one picture can be decoded: {trouble}")
    check_size(first.width, first.height, limits)
    return _Packets(times, placeholders, parameters.change, first)


def _demux(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    try:
        yield from container.demux(stream)
    except av.error.FFmpegError as error:
        if out_of_memory(error):
            raise ClipError("out-of-memory", "reading its packets takes more memory than the limit") from None
        raise ClipError("container-damaged", f"its packets cannot be read to the end: {says(error)}") from None


def _packets_tell(name: str, packets: _Packets) -> bool:
    """Whether the packets' times are those of the pictures, so that nothing needs to be decoded to know them."""
    if name not in PACKETS_TELL or packets.placeholders or packets.first.interlaced_frame:
        # An interlaced picture may be two packets, a field each.
        return False
    kind = 1 if name == "avi" else 0
    times = [time[kind] for time in packets.times]
    shown = [time[kind] for time in packets.times if time[3]]
    first = times[0]
    # A picture shown before the first one decoded refers to one that was cut away: it may come out, or not.
    return (
        first is not None
        and packets.times[0][2]
        and len(set(shown)) == len(shown)
        and all(time is not None and time >= first for time in times)
    )


def _ticks_by_decoding(source: Source, limits: Limits, name: str, origin: int | None) -> tuple[tuple[int, ...], bool]:
    """The pictures' times as they come out of the decoder, and whether they are numbered only (see `Scan`).

    ``origin`` is the decoding time of the first packet.
    """
    with open_container(source, limits) as container:
        stream = video_stream(container, limits)
        base = _time_base(stream)
        times: list[tuple[int | None, int | None]] = []
        try:
            for frame in container.decode(stream):
                times.append((frame.pts, frame.dts))
                if len(times) > limits.frames:
                    raise ClipError("too-many-frames", f"more than {limits.frames} pictures")
        except av.error.FFmpegError as error:
            if out_of_memory(error):
                raise ClipError("out-of-memory", "decoding it takes more memory than the limit") from None
            raise ClipError("decoder-error", f"after {len(times)} pictures: {says(error)}") from None
    if name == "avi":
        return _from(origin or 0, _increasing(_filled([dts for _, dts in times]))), True
    shown = [pts for pts, _ in times]
    ticks = _increasing(shown)
    later = next((tick for tick, pts in zip(ticks, shown, strict=True) if tick != pts), None)
    if later is not None:
        raise disorder(later * float(base))
    return ticks, False


def disorder(seconds: float) -> ClipError:
    """The error of a file whose times contradict the order in which its codec wants its pictures shown.

    Players keep to the codec's order and make times up. Which picture a time names, nobody can say.
    """
    return ClipError(
        "timestamps-disorder", f"its pictures do not come in the order of their times, from {seconds:.3f} s on"
    )


def _from(origin: int, ticks: tuple[int, ...]) -> tuple[int, ...]:
    """A decoder that holds pictures back gives them the times of later packets, all by as much."""
    return tuple(tick - ticks[0] + origin for tick in ticks)


def _filled(times: list[int | None]) -> list[int | None]:
    """Decoding times of pictures, in the order shown, with those of the last ones, which the decoder held back."""
    filled: list[int | None] = []
    for time in times:
        held = time is None and filled and filled[-1] is not None
        filled.append(filled[-1] + 1 if held and filled[-1] is not None else time)
    return filled


def _increasing(times: list[int | None]) -> tuple[int, ...]:
    known = sorted(time for time in times if time is not None)
    if len(known) < len(times):
        raise ClipError("timestamps-missing", f"{len(times) - len(known)} of {len(times)} pictures have no time")
    repeats = len(known) - len(set(known))
    if repeats:
        raise ClipError("timestamps-repeat", f"{repeats} of {len(known)} pictures share their time with another")
    return tuple(known)


def _rate(ticks: tuple[int, ...], stream: VideoStream) -> float:
    """Pictures a second from the times themselves: what a file declares is often wrong, but all there is for one."""
    if len(ticks) < 2:
        return float(stream.average_rate or 0)
    return float((len(ticks) - 1) / ((ticks[-1] - ticks[0]) * _time_base(stream)))


def _keys(packets: _Packets) -> tuple[tuple[int, int], ...]:
    return tuple(
        (pts, dts) for pts, dts, key, shown in packets.times if key and shown and pts is not None and dts is not None
    )


def _time_base(stream: VideoStream) -> Fraction:
    if not stream.time_base:
        raise ClipError("timestamps-missing", "the stream has no clock")
    return stream.time_base


def _doubt(name: str, container: InputContainer, stream: VideoStream, packets: _Packets) -> str:
    """Why no decoder but PyAV may be used, or "".

    Each line stands for files on which decord 0.6 was seen to give other pictures than FFmpeg 8 does, to give them
    another shape, or to give up. What is left is decoded to the same bytes by both: H.264 and HEVC are exact by
    their standards, which MPEG-4 and older codecs are not.
    """
    first = packets.first
    doubts = (
        (name not in ("mov", "matroska"), f"{name} container"),
        (codec_name(stream) not in ("h264", "hevc"), f"{codec_name(stream)} pictures"),
        (first.format.name not in ("yuv420p", "yuvj420p"), f"{first.format.name} pictures"),
        (first.colorspace not in (1, 2, 4, 5, 6, 7, 9), "an uncommon colour matrix"),
        (first.interlaced_frame, "interlaced pictures"),
        (first.width % 2 or first.height % 2, "an odd width or height"),
        (min(first.width, first.height) < 32, "tiny pictures"),
        (orientation_of(first) != Orientation(), "a rotation"),
        (len(container.streams.video) > 1, "more than one video stream"),
        (_order_unsaid(stream, packets), "times that may not tell the order of pictures"),
        (not all(shown for _, _, _, shown in packets.times), "an edit list"),
        (packets.sizes_may_change, "pictures that may change in size"),
    )
    return next((why for applies, why in doubts if applies), "")


def _order_unsaid(stream: VideoStream, packets: _Packets) -> bool:
    """Whether pictures may be shown in another order than they are stored, yet no time says so: PyAV will see."""
    times = [pts for pts, _, _, _ in packets.times if pts is not None]
    return stream.codec_context.has_b_frames and times == sorted(times)


def _without_times(stream: VideoStream, packets: _Packets) -> bool:
    """Whether the times are those of decoding alone, and the codec may show its pictures in another order."""
    return stream.codec_context.has_b_frames and all(pts == dts for pts, dts, _, _ in packets.times)
