"""Video object segmentation on DAVIS-2017 and 2016: the first mask carried through each sequence, J and F.

The masks found are kept as palette PNGs in ``OUT/masks/<sequence>/``, as the official evaluator reads them.
H W pixels, O objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from frame.eval.data.davis import VOID, DavisData, DavisSequence, load_davis
from frame.eval.encoder import Encoder, Picture, open_encoder
from frame.eval.metrics.davis import ObjectScores, id_scores, object_count, summarise, total
from frame.eval.present.pictures import overlay, safe_name, spread, strip, write_png
from frame.eval.propagate.images import Ids, read_picture, resize_nearest, size_note, write_mask
from frame.eval.propagate.mask_propagation import mask_knobs, propagate_masks, scored
from frame.eval.propagate.preset import Preset, load_preset
from frame.eval.request import Request
from frame.eval.result import PICTURES, Result
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress, Tick

MASKS = "masks"
DEFAULT_PRESET = "dino"
_SHOWN_SEQUENCES, _SHOWN_FRAMES = 8, 5


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """Of one sequence: the scores of its objects, which of them its first mask lacks, and a few overlays."""

    name: str
    scores: Sequence[ObjectScores]
    absent: Sequence[int]
    overlays: Sequence[Picture]


def evaluate(
    request: Request, changes: Sequence[str], progress: Progress, *, year: Literal["auto", "2017", "2016"] = "auto"
) -> Result:
    """``changes`` of single knobs as NAME=VALUE. Raises InputError for data that is not there or is damaged, and where
    no sequence can be scored."""
    preset = load_preset("davis", request.preset or DEFAULT_PRESET, changes)
    data = load_davis(request.data, request.sequences, year=year)
    encoder = open_encoder(request.encoder, weights=request.weights, device=request.device)
    chosen = spread(len(data.sequences), _SHOWN_SEQUENCES)
    found: list[_Found] = []
    pictures: list[str] = []
    with progress.bar("davis", total=sum(len(one.pictures) for one in data.sequences), unit="frames") as tick:
        for number, sequence in enumerate(data.sequences):
            one = _one(sequence, encoder, preset, request.out, tick)
            found.append(one)
            if number in chosen:
                path = write_png(request.out / PICTURES / f"davis-{safe_name(one.name)}.png", strip(one.overlays))
                pictures.append(path.relative_to(request.out).as_posix())
    return Result(
        task="davis" if data.year == "2017" else "davis2016", preset=preset.name, encoder=encoder.info.to_json(),
        scores=_scores(found, data), items=_items(found), data=data.to_json(), options=preset.options(),
        notes=_notes(found, data, encoder, preset), pictures=pictures,
    )  # fmt: skip


def _one(sequence: DavisSequence, encoder: Encoder, preset: Preset, out: Path, tick: Tick) -> _Found:
    first_HW = scored(sequence.first(), preset)
    known_HW = np.where(first_HW == VOID, np.uint8(0), first_HW)
    objects = object_count(known_HW)
    counted, frames = set(sequence.scored), list[NDArray[np.float64]]()
    shown, overlays = spread(len(sequence.pictures), _SHOWN_FRAMES), list[Picture]()
    for number, ids_HW in enumerate(_predictions(sequence, encoder, preset, known_HW)):
        path = sequence.pictures[number]
        write_mask(out / MASKS / safe_name(sequence.name) / f"{path.stem}.png", ids_HW)
        if number in counted:
            frames.append(id_scores(ids_HW, _truth(sequence, number, preset, ids_HW), objects))
        if number in shown:
            overlays.append(_overlay(path, ids_HW))
        tick()
    absent = sorted(set(range(1, objects + 1)) - set(np.unique(known_HW).tolist()))
    return _Found(name=sequence.name, scores=summarise(frames, objects), absent=absent, overlays=overlays)


def _predictions(sequence: DavisSequence, encoder: Encoder, preset: Preset, first_HW: Ids) -> Iterator[Ids]:
    """The ids of all frames; those of the first are given."""
    predicted = propagate_masks(encoder, preset, map(read_picture, sequence.pictures), sequence.first())
    next(predicted)
    yield first_HW
    yield from predicted


def _truth(sequence: DavisSequence, number: int, preset: Preset, predicted_HW: Ids) -> Ids:
    """The true ids of a frame that counts. Raises InputError for another size than the first mask's."""
    true_HW = sequence.truth(number)
    if true_HW is None:
        raise ValueError(f"frame {number} has no mask")
    true_HW = scored(true_HW, preset)
    if true_HW.shape != predicted_HW.shape:
        raise InputError(
            what="The masks of a sequence differ in size.", where=str(sequence.masks[number]),
            why=f"{true_HW.shape[0]} x {true_HW.shape[1]} pixels; the first has {predicted_HW.shape[0]} x "
            f"{predicted_HW.shape[1]}", fix="get the dataset anew",
        )  # fmt: skip
    return true_HW


def _overlay(path: Path, ids_HW: Ids) -> Picture:
    picture = read_picture(path)
    height, width = picture.shape[:2]
    return overlay(picture, resize_nearest(ids_HW, (height, width), library="opencv"))


def _scores(found: Sequence[_Found], data: DavisData) -> dict[str, float]:
    scores = total([score for one in found for score in one.scores])
    if not scores:
        raise InputError(
            what="Nothing can be scored.", where=str(data.root),
            why="the first and the last annotated frame of a sequence do not count, and no sequence with an object has "
            "another one", fix="give sequences of three annotated frames or more",
        )  # fmt: skip
    return _finite(scores)


def _items(found: Sequence[_Found]) -> list[Mapping[str, Any]]:
    return [
        {"name": f"{one.name}/{number}", **_finite(score.to_json())}
        for one in found
        for number, score in enumerate(one.scores, start=1)
    ]


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if np.isfinite(value)}


def _notes(found: Sequence[_Found], data: DavisData, encoder: Encoder, preset: Preset) -> list[str]:
    notes = [f"DAVIS-{data.year}; the sequences are {data.source}."]
    if data.year == "2016":
        whole = all(one.whole for one in data.sequences)
        notes.append(f"One object a sequence: {'masks of 0 and 255' if whole else 'all objects of a mask are one'}.")
    empty = [one.name for one in found if not one.scores]
    if empty:
        notes.append(f"Without an object in the first frame, so without a score: {', '.join(empty)}.")
    short = [one.name for one in found if one.scores and not any(np.isfinite(score.j.mean) for score in one.scores)]
    if short:
        notes.append(f"Without a score, for they have fewer than three annotated frames: {', '.join(short)}.")
    absent = [f"{one.name}/{number}" for one in found for number in one.absent]
    if absent:
        notes.append(f"Counted as the official evaluator does, though not in the first mask: {', '.join(absent)}.")
    bare = sum(mask is None for one in data.sequences for mask in one.masks)
    if bare:
        notes.append(f"{bare} frames without a mask were propagated but not scored.")
    if mask_knobs(preset).copy:
        notes.append(
            "Pictures and masks were resized (nearest) beforehand, and scored at that size, as its authors did."
        )
    return notes + _sizes(data, encoder, preset)


def _sizes(data: DavisData, encoder: Encoder, preset: Preset) -> list[str]:
    """What went into the encoder, said where its patches change the sizes of the protocol."""
    copy, first = mask_knobs(preset).copy, data.sequences[0]
    shape = read_picture(first.pictures[0]).shape
    before = (copy[0], copy[1]) if copy else (shape[0], shape[1])
    return size_note(first.name, before, rule=preset.input.rule, sides=preset.input.sides, patch=encoder.info.patch)
