"""What ``--clips`` can say: ids of clips, shell patterns over them, or a file with one a line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from pathlib import Path

from frame.manifests.errors import InputError

_NAMED = 5  # of many, on one screen
_WILD = frozenset("*?[")


def choose_clips(text: str, ids: Sequence[str]) -> set[str]:
    """``dog_*,cat_7`` or ``@FILE`` -> ids. Those without a pattern's signs are taken as they stand, there or not.

    Raises ``InputError`` for a file that cannot be read, for nothing at all, and for patterns that fit no clip.
    """
    wanted = _lines(Path(text[1:])) if text.startswith("@") else [part.strip() for part in text.split(",")]
    wanted = [item for item in wanted if item]
    if not wanted:
        raise InputError(what="--clips names no clip.", where=f"--clips {text}", fix="ids, 'dog_*', or @FILE")
    chosen = {item for item in wanted if not _WILD & set(item)}
    idle = []
    for pattern in dict.fromkeys(item for item in wanted if item not in chosen):
        fits = re.compile(translate(pattern)).match
        found = {name for name in ids if fits(name)}
        chosen |= found
        idle += [] if found else [pattern]
    if idle:
        more = f", nor {len(idle) - _NAMED} more" if len(idle) > _NAMED else ""
        raise InputError(
            what=f"No clip fits {', '.join(map(repr, idle[:_NAMED]))}{more}.",
            where=f"--clips {text}",
            why=f"the cache has {len(ids):,} clips" + (f", such as {ids[0]!r}" if ids else ""),
            fix="* is any text, ? one character, [ab] one of these; capitals count.",
        )
    return chosen


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            what="The list of clips cannot be read.",
            where=str(file),
            why=getattr(error, "strerror", None) or "it is no text in UTF-8",
            fix="A text file with an id or a pattern on each line.",
        ) from None
