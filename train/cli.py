"""``frame-train``: says that it is not there yet, instead of a missing command or a silent success."""

from __future__ import annotations

import sys

from frame.manifests.errors import InputError


def main() -> None:
    """Print one screen and fail."""
    error = InputError(
        what="Training is not part of this release.",
        where="frame-train",
        why="this release computes and stores the teachers' features (phase 1)",
        fix="Build caches with `frame-cache` now; they will be read as they are.",
    )
    print(error.screen(), file=sys.stderr)
    sys.exit(1)
