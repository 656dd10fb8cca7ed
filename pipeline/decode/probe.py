"""What a source holds, found out once and kept in the plan."""

from __future__ import annotations

from dataclasses import dataclass

FOLDER_RATE = 24.0
"""Frames a second of a folder of pictures for which nothing else is said: DAVIS and most folders of frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One source: a video file, or a folder of pictures.

    ``width`` and ``height`` are those of the decoded pictures after the file's rotation is applied. Pixels are
    taken as they are stored: where they are not square (a sample aspect ratio other than 1), nothing is stretched.
    ``rotation`` is what was applied, in degrees clockwise (mirroring is applied too).

    ``timestamps`` are the presentation times, in seconds on the file's own clock, of every picture that a player
    shows, increasing; pictures outside the edit list are not among them. With a segment, those inside it. ``rate``
    is the average number of pictures a second over the whole file, 0.0 where a single picture tells none.
    ``sha256`` is that of the file; of a folder, that of its pictures' names and bytes in order.
    """

    width: int
    height: int
    rotation: int
    timestamps: tuple[float, ...]
    rate: float
    codec: str
    container: str
    bytes: int
    sha256: str
