"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape


def size(count: float) -> str:
    """Bytes, in powers of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.2f} TB"


def duration(seconds: float) -> str:
    """Seconds, in the unit that keeps the number small."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def shape(lengths: Sequence[int]) -> str:
    """``(196, 384)`` -> ``196 × 384``."""
    return " × ".join(f"{length}" for length in lengths)


def lost(cosine: float | None) -> str:
    """How far a cosine is from 1: ``2e-5``; a dash where none was measured.

    Cosines are kept as float32, which cannot tell smaller gaps than about 1e-7 from none.
    """
    if cosine is None:
        return "–"
    gap = 1.0 - cosine
    if gap < 1e-7:
        return "< 1e-7"
    digits, _, exponent = f"{gap:.0e}".partition("e")
    return f"{digits}e{int(exponent)}" if gap < 1e-3 else f"{gap:.4f}"


def breakable(name: str) -> Markup:
    """A column's name, escaped, that a line may end in behind a dot or an underscore."""
    return Markup(str(escape(name)).replace(".", ".<wbr>").replace("_", "_<wbr>"))


def plural(count: int, one: str, many: str = "") -> str:
    """``1 clip``, ``2 clips``; ``many`` where an s is not enough."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
