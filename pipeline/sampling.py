"""Which frames of a clip become rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def choose_frames(
    timestamps: Sequence[float], *, fps: float | None = None, frames_per_clip: int | None = None
) -> list[float]:
    """The chosen subset of a clip's frame timestamps (seconds, increasing), in order.

    ``fps`` takes, for every tick ``first + k / fps``, the frame that a player shows at that moment; a frame that two
    ticks would take (a source slower than ``fps``) is taken once. ``frames_per_clip`` then keeps that many consecutive
    ones from the middle of the clip: titles and fades sit at the ends. A shorter clip keeps all it has.
    """
    chosen = list(timestamps)
    if fps is not None and chosen:
        times = np.asarray(chosen)
        # Half a microsecond of slack: a tick computed in floating point must not miss the frame that begins on it.
        ticks = times[0] + np.arange(int((times[-1] - times[0]) * fps + 1e-6) + 1) / fps + 5e-7
        picked = np.unique(np.searchsorted(times, ticks, side="right") - 1)
        chosen = [chosen[i] for i in picked]
    if frames_per_clip is not None and len(chosen) > frames_per_clip:
        first = (len(chosen) - frames_per_clip) // 2
        chosen = chosen[first : first + frames_per_clip]
    return chosen
