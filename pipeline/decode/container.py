"""Opening a container with FFmpeg's demuxers, those on the list alone, and choosing its one video stream."""

from __future__ import annotations

import errno

import av
import av.error
import av.logging
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from frame.pipeline.decode.errors import ClipError
from frame.pipeline.decode.limits import CONTAINERS, Limits
from frame.pipeline.decode.source import Source

# What FFmpeg has to say comes as exceptions; its log would only repeat it, with addresses in it.
av.logging.set_level(av.logging.PANIC)

_STILLS = Disposition.attached_pic | Disposition.timed_thumbnails

_MAGIC = (
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (8, b"AVI ", "avi"),
    (0, b"FLV", "flv"),
)


def open_container(source: Source, limits: Limits) -> InputContainer:
    """Open the file with one of the allowed demuxers, and with no way to any other file or address."""
    # FFmpeg matches a demuxer with any of its comma-separated names.
    options = {"format_whitelist": ",".join(limits.containers), "protocol_whitelist": "file"}
    try:
        return av.open(source.path, "r", container_options=options, metadata_errors="replace")
    except (MemoryError, av.error.FFmpegError) as error:
        raise _refused(error, source) from None


def video_stream(container: InputContainer, limits: Limits) -> VideoStream:
    """The stream a player shows: FFmpeg's choice, cover pictures aside. One decoding thread."""
    if not len(container.streams):
        raise ClipError("container-damaged", "it opens, but no stream can be made out in it")
    moving = [stream for stream in container.streams.video if not stream.disposition & _STILLS]
    if not moving:
        raise ClipError("no-video-stream", f"its streams: {_kinds(container)}")
    best = container.streams.best("video")
    stream = best if best in moving else moving[0]
    _allowed(stream, limits)
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(limits.pixels)}
    return stream


def short_name(container: InputContainer) -> str:
    """The first of FFmpeg's names for the container, a key of `CONTAINERS`."""
    return str(container.format.name.split(",")[0])


def codec_name(stream: VideoStream) -> str:
    """FFmpeg's name for the codec, whichever library decodes it ("av1", not "libdav1d")."""
    return str(stream.codec_context.codec.canonical_name)


def encrypted(packet: Packet[VideoStream]) -> bool:
    """Whether a packet says that its picture is encrypted.

    It does not always fail to decode: H.264 pictures encrypted in part come out as noise without a word.
    """
    return packet.has_sidedata("encryption_info") or packet.has_sidedata("encryption_init_info")


def says(error: BaseException) -> str:
    """FFmpeg's message alone, without the path and the address that the exception adds."""
    return getattr(error, "strerror", None) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python, or of FFmpeg, means that memory was refused."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM


def _allowed(stream: VideoStream, limits: Limits) -> None:
    if stream.codec_context is None:
        raise ClipError("codec-not-allowed", "a codec that FFmpeg does not know")
    name = codec_name(stream)
    if name not in limits.codecs:
        raise ClipError("codec-not-allowed", f"{name} is not on the list")
    if stream.codec_context.codec_tag in ("encv", "drmi") or "enc_key_id" in stream.metadata:
        raise ClipError("encrypted", f"an encrypted {name} stream")
    check_size(stream.width, stream.height, limits)


def check_size(width: int, height: int, limits: Limits) -> None:
    """Raise ClipError when a picture is larger than the limit."""
    if width * height > limits.pixels:
        raise ClipError("too-large", f"{width} x {height} is more than {limits.pixels} pixels")


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams}))


def _refused(error: BaseException, source: Source) -> ClipError:
    if out_of_memory(error):
        return ClipError("out-of-memory", "opening it takes more memory than the limit")
    if getattr(error, "errno", None) == errno.EINVAL:
        # How FFmpeg answers when the file is of a kind that it knows and the list does not have.
        return ClipError("container-not-allowed", "not one of " + ", ".join(CONTAINERS.values()))
    head = source.head()
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return ClipError("container-damaged", f"{CONTAINERS[name]} by its first bytes, but: {says(error)}")
    return ClipError("not-a-video", f"no video container: {says(error)}")
