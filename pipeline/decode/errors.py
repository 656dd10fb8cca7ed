"""Why a clip cannot be used: one short code, and one line that is the same on every machine and every day."""

from __future__ import annotations

REASONS = {
    "missing": "there is no such file or folder",
    "not-a-file": "neither a regular file nor a folder",
    "unreadable": "the operating system refuses to read it",
    "empty": "nothing is in it",
    "not-a-video": "no video container is recognised in it",
    "container-not-allowed": "a kind of file that is never opened, such as a playlist",
    "container-damaged": "a video container that cannot be read to its end",
    "cut-short": "the container promises more than the file holds",
    "codec-not-allowed": "a codec that is never opened",
    "no-video-stream": "sound or text only",
    "encrypted": "its pictures are encrypted",
    "too-large": "its pictures are larger than the limit",
    "too-many-frames": "it has more frames than the limit",
    "no-frames": "not one picture is in it",
    "segment-empty": "no picture lies in the segment asked for",
    "timestamps-missing": "pictures without a time of their own",
    "timestamps-repeat": "several pictures for one time",
    "timestamps-disorder": "its pictures come in another order than their times",
    "size-changes": "its pictures are not all of one size",
    "too-narrow": "too long and narrow to be cropped to a square",
    "picture-unsupported": "a kind of picture that cannot be turned into RGB faithfully",
    "decoder-error": "the decoder refused the data",
    "decoder-crashed": "the decoder died on it, twice",
    "decoder-timeout": "the decoder did not answer in time",
    "out-of-memory": "decoding it takes more memory than the limit",
    "frames-missing": "planned pictures did not come out of the decoder",
    "frames-differ": "it does not have the pictures that were planned",
    "source-changed": "its bytes are not those that were planned",
}
"""Every reason, with what it means. The codes are stored in receipts: they may be added to, never renamed."""


class ClipError(Exception):
    """One clip cannot be used.

    ``reason`` is a key of `REASONS`. ``detail`` is one line for a person. Both are stored in caches that must be
    the same byte for byte wherever they are built, so neither holds a folder, a time of day, an address or a
    process number.
    """

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}")
        # Positional arguments alone, so that pickle rebuilds it without help.
        super().__init__(reason, " ".join(detail.split()))

    @property
    def reason(self) -> str:
        """The short code, a key of `REASONS`."""
        return str(self.args[0])

    @property
    def detail(self) -> str:
        """One line for a person."""
        return str(self.args[1])

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
