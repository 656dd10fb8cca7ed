"""One sequence tracked by its regions: features and proposals of each frame once, and every way of choosing on them.

M masks, O objects, H W pixels, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from frame.eval.encoder import Encoder, Picture
from frame.eval.propagate.images import Ids, read_picture
from frame.eval.track.pooling import Padding, padded, padding, pooled
from frame.eval.track.proposals import Masks
from frame.eval.track.region_tracking import Floats, Reference, RegionTracker, oracle, paint
from frame.manifests.errors import InputError

ORACLE = "oracle"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracked:
    """A frame: its picture, and the id map that each way of choosing found; in the first frame the given one."""

    picture: Picture
    ids: Mapping[str, Ids]


def track(
    pictures: Sequence[Path], first_HW: Ids, objects: int, truth: Callable[[int], Ids | None], encoder: Encoder,
    propose: Callable[[int, Picture], Masks], ways: Sequence[Reference],
) -> Iterator[Tracked]:  # fmt: skip
    """Follow the objects 1 to ``objects`` of ``first_HW`` through the pictures; ids by way, ``oracle`` among them.

    ``truth`` gives a frame's annotation for the oracle, or None where there is none; ``propose`` a frame's masks.
    Raises InputError for pictures of several sizes and a first map of another size.
    """
    patch, mean = encoder.info.patch, encoder.info.mean
    pad = padding(first_HW.shape[:2], patch)
    frames = (padded(_read(path, pad), pad, mean) for path in pictures)
    trackers: dict[Reference, RegionTracker] = {}
    for number, tokens in enumerate(encoder.stream(frames)):
        picture_HW3 = _read(pictures[number], pad)
        if number == 0:
            trackers = _begin(first_HW, objects, tokens.patches, pad, ways)
            yield Tracked(picture=picture_HW3, ids=dict.fromkeys((*ways, ORACLE), first_HW))
            continue
        masks_MHW = propose(number, picture_HW3)
        found_MD = _tokens(tokens.patches, masks_MHW, pad)
        ids: dict[str, Ids] = {way: paint(masks_MHW, one.step(found_MD)) for way, one in trackers.items()}
        true_HW = truth(number)
        if true_HW is not None:
            ids[ORACLE] = paint(masks_MHW, oracle(masks_MHW, true_HW, objects))
        yield Tracked(picture=picture_HW3, ids=ids)


def _begin(
    first_HW: Ids, objects: int, patches_hwD: Tensor, pad: Padding, ways: Sequence[Reference]
) -> dict[Reference, RegionTracker]:
    given_OHW = first_HW == np.arange(1, objects + 1, dtype=np.uint8)[:, None, None]
    present_O = given_OHW.any(axis=(1, 2))
    tokens_OD = np.zeros((objects, patches_hwD.shape[2]), dtype=np.float32)
    tokens_OD[present_O] = _tokens(patches_hwD, given_OHW[present_O], pad)
    return {way: RegionTracker(way, tokens_OD, present_O) for way in ways}


def _tokens(patches_hwD: Tensor, masks_MHW: Masks, pad: Padding) -> Floats:
    return np.asarray(pooled(patches_hwD, masks_MHW, pad).cpu().numpy(), dtype=np.float32)


def _read(path: Path, pad: Padding) -> Picture:
    picture_HW3 = read_picture(path)
    if picture_HW3.shape[:2] != pad.size:
        raise InputError(
            what="A frame is not as large as its sequence's first annotation.", where=str(path),
            why=f"{picture_HW3.shape[:2]} instead of {pad.size}", fix="take frames and masks of one resolution",
        )  # fmt: skip
    return picture_HW3
