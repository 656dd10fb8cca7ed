"""What linear segmentation asks of a dataset: videos whose frames have numbers, some of them labelled.

H W pixels.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frame.eval.encoder import Picture
from frame.manifests.errors import InputError

_HOLE = 2  # usual steps: a memory does not reach over more
VOID = 255  # a pixel without a label
Labels = NDArray[np.uint8]  # class ids [H, W], VOID where nothing counts


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledClip:
    """One video, as far as it is at hand.

    ``numbers`` are those of the frames that can be read, ascending; ``labelled`` those of the frames with a label,
    ascending. ``pictures`` reads frames by ascending numbers, in that order; ``label`` reads one label. Between two
    frames more than ``gap`` numbers apart an encoder's memory begins anew.
    """

    name: str
    numbers: Sequence[int]
    labelled: Sequence[int]
    pictures: Callable[[Sequence[int]], Iterator[Picture]]
    label: Callable[[int], Labels]
    gap: int = 1

    def has(self, number: int) -> bool:
        """Whether the frame is at hand."""
        place = bisect_left(self.numbers, number)
        return place < len(self.numbers) and self.numbers[place] == number

    def pairs(self, delta: int) -> list[tuple[int, int]]:
        """(input, target) for each labelled frame whose frame ``delta`` numbers before is at hand."""
        return [(target - delta, target) for target in self.labelled if self.has(target - delta)]

    def window(self, number: int, memory: int) -> list[int]:
        """The frame and those before it that an encoder with so much memory looks at, oldest first."""
        last = bisect_left(self.numbers, number)
        first = last
        while first > 0 and last - first < memory and self.numbers[first] - self.numbers[first - 1] <= self.gap:
            first -= 1
        return list(self.numbers[first : last + 1])


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationData:
    """A dataset's training part and the part to test on.

    ``source`` is a sentence on where frames come from, for the result; ``files`` are all that is read below ``root``;
    ``facts`` go into the result's ``data``.
    """

    root: Path
    train: Sequence[LabelledClip]
    test: Sequence[LabelledClip]
    classes: tuple[str, ...]
    source: str
    files: Sequence[Path]
    facts: Mapping[str, Any]


def possible_deltas(clips: Sequence[LabelledClip], most: int = 8) -> list[int]:
    """The deltas above 0 that most labelled frames allow: the ``most`` commonest, ascending."""
    counts: Counter[int] = Counter()
    for clip in clips:
        for target in clip.labelled:
            place = bisect_left(clip.numbers, target)
            counts.update(target - number for number in clip.numbers[max(0, place - most) : place])
    return sorted(delta for delta, _ in counts.most_common(most))


def widest_gap(numbers: Sequence[int]) -> int:
    """The widest step between frames that still counts as going on: twice the usual one (the median)."""
    steps = [after - before for before, after in pairwise(numbers)]
    return int(_HOLE * median(steps)) if steps else 1


def require_same_size(labels_HW: Labels, mask: Path, picture: Path) -> None:
    """Raises InputError for a mask that is not as large as its picture: it may be another picture's."""
    with Image.open(picture) as opened:
        columns, rows = opened.size
    if labels_HW.shape != (rows, columns):
        raise InputError(
            what="A mask is not as large as its picture.",
            where=str(mask),
            why=f"{labels_HW.shape[0]} x {labels_HW.shape[1]} pixels, the picture {rows} x {columns}",
            fix="take both from one version of the dataset",
        )
