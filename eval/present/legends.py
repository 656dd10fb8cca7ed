"""What the pictures of each task show, in a sentence or two."""

from __future__ import annotations

_AHEAD = (
    "Segmentation (named …-ahead-…): the frame seen and the one it is about, once where they are the same; then over"
    " the latter what is true, what was predicted, and, where it is ahead, the present prediction copied."
)
_LEGENDS = {
    "davis": "The predicted masks over some frames of a sequence.",
    "vip": "The predicted body parts over some frames of a video.",
    "regions": "The regions found over some frames of a sequence.",
    "jhmdb": "Some frames of a clip; predicted joints are discs, true ones rings, a colour a joint.",
    "camvid": _AHEAD,
    "vspw": _AHEAD,
    "sprites": f"Masks: predicted in the upper row, true in the lower. {_AHEAD}",
    "deltas": "How far a column's features are from those so many rows later; a ring marks the suggested delta.",
}


def legend(task: str) -> str:
    """How to read the pictures of ``task``; empty for one that has none."""
    return _LEGENDS.get(task, "")
