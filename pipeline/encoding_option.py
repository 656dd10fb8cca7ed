"""What ``--encoding`` can say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from frame.manifests.errors import InputError

STEP = 0.11
"""Of ``residual`` without a number: some 3.9 bits a value and a mean cosine of 0.99955 at 30 frames a second."""

LEAST_STEP, MOST_STEP = 0.001, 1.0
"""Of ``residual``, in standard deviations of a channel."""

_LEAST_COSINE = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A parsed ``--encoding``: ``number`` is the step of ``residual``, in standard deviations, or the mean cosine that
    ``auto`` has to reach."""

    kind: Literal["float16", "int8", "residual", "auto"]
    number: float = 0.0

    @property
    def needs_sample(self) -> bool:
        """Does it depend on the features?"""
        return self.kind in ("residual", "auto")


def parse_encoding(text: str) -> Asked:
    """``float16``, ``int8``, ``residual[:STEP]`` or ``auto:COSINE``. Raises ``InputError`` for anything else."""
    kind, colon, rest = text.partition(":")
    if text == "float16":
        return Asked(kind="float16")
    if text == "int8":
        return Asked(kind="int8")
    try:
        number = float(rest) if colon else STEP
    except ValueError:
        number = float("nan")
    if kind == "residual" and LEAST_STEP <= number <= MOST_STEP:
        return Asked(kind="residual", number=number)
    if kind == "auto" and colon and _LEAST_COSINE <= number < 1:
        return Asked(kind="auto", number=number)
    raise InputError(
        what=f"--encoding {text} makes no sense.",
        where="--encoding",
        why=f"STEP is a number from {LEAST_STEP} to {MOST_STEP:g} (standard deviations of a channel), COSINE one from "
        f"{_LEAST_COSINE} to below 1",
        fix="float16, int8, residual, residual:STEP (residual:0.2) or auto:COSINE (auto:0.9995)",
    )
