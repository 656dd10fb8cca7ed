"""What one file may cost: containers, codecs, pixels, frames, memory and time. Everything here is a choice."""

from __future__ import annotations

from dataclasses import dataclass

CONTAINERS = {
    "mov": "MP4, MOV, M4V, 3GP",
    "matroska": "Matroska, WebM",
    "avi": "AVI",
    "flv": "FLV",
    "mpegts": "MPEG transport stream",
    "mpeg": "MPEG programme stream",
    "asf": "WMV, ASF",
    "ogg": "Ogg",
}
"""Demuxers that may be opened, by the first of FFmpeg's names. Playlists (HLS, DASH, concat) are not among them:
they can name other files, and addresses."""

CODECS = (
    *("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video"),
    *("h263", "flv1", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1"),
    *("mjpeg", "theora", "prores", "ffv1", "rawvideo"),
)
"""Codecs that data sets of video are made of. FFmpeg has some 300 more, most of them seldom looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds on what one file may ask for.

    ``memory`` is in bytes, beyond what an idle decode process has and beyond the frames it hands over. ``pixels``
    is width x height of one picture, ``frames`` the pictures of one file. A request has ``seconds``, and on top of
    that a share for each second of video, each million pixels handed over and each million bytes of the file.
    """

    memory: int = 4 << 30
    pixels: int = 8192 * 4320
    frames: int = 500_000
    seconds: float = 30.0
    seconds_per_second: float = 2.0
    seconds_per_megapixel: float = 0.05
    seconds_per_megabyte: float = 1.0
    containers: tuple[str, ...] = tuple(CONTAINERS)
    codecs: tuple[str, ...] = CODECS

    def deadline(self, *, seconds: float = 0.0, pixels: int = 0, size: int = 0) -> float:
        """Seconds a request may take: ``seconds`` of video, ``pixels`` handed over, ``size`` bytes of source."""
        return (
            self.seconds
            + self.seconds_per_second * seconds
            + self.seconds_per_megapixel * pixels / 1e6
            + self.seconds_per_megabyte * size / 1e6
        )
