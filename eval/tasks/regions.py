"""Tracking of whole regions on DAVIS: each frame is cut into proposals, and each object takes the one whose pooled
features are nearest to its reference. FRAME, section 4 and appendix; J and F as in DAVIS-2017.

The paper compares with the first frame's token in its text and with the previous choice in its appendix: both are
reported, whichever leads. O objects, M masks, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from frame.eval.data.davis import DavisSequence, load_davis
from frame.eval.encoder import Encoder, Picture, open_encoder
from frame.eval.metrics.davis import ObjectScores, id_scores, object_count, summarise, total
from frame.eval.present.pictures import overlay, safe_name, spread, strip, write_png
from frame.eval.propagate.images import write_mask
from frame.eval.request import Request
from frame.eval.result import PICTURES, Result
from frame.eval.track.proposals import SUPERPIXELS, Digest, Masks, Proposals, open_proposals
from frame.eval.track.region_sequence import ORACLE, track
from frame.eval.track.region_tracking import KEPT, Reference
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress, Tick

MASKS, PROPOSALS = "masks", "proposals"
_ALWAYS: tuple[Reference, ...] = ("first", "previous")
_HEADS = ("J&F_mean", "J_mean", "F_mean")
_SHOWN_SEQUENCES, _SHOWN_FRAMES = 8, 5
_OF_ORACLE = "part of the oracle"


@dataclass(kw_only=True, slots=True)
class _Tally:
    """What is added up while sequences go by."""

    scores: dict[str, dict[str, list[ObjectScores]]] = field(default_factory=dict)  # by way, by sequence
    digest: Digest = field(default_factory=Digest)
    masks: int = 0
    frames: int = 0  # those with proposals: all but the first ones
    bare: int = 0  # frames without a proposal
    absent: list[str] = field(default_factory=list)  # objects that the first frame does not show


def evaluate(request: Request, *, proposals: str, reference: Reference, progress: Progress) -> Result:
    """Track every object of the sequences with the masks of ``proposals`` (see ``open_proposals``).

    ``reference`` says which way of comparing is the headline. The masks found go below ``OUT/masks``. Raises
    InputError for data and proposals that are not there or do not fit.
    """
    if reference not in get_args(Reference):
        raise InputError(
            what="There is no such reference.", where=f"--reference {reference}", fix="first, previous, ema"
        )
    data = load_davis(request.data, request.sequences)
    encoder = open_encoder(request.encoder, weights=request.weights, device=request.device)
    source = open_proposals(proposals, keep=request.out / PROPOSALS, device=encoder.device)
    tally, pictures = _Tally(), []
    chosen = spread(len(data.sequences), _SHOWN_SEQUENCES)
    with progress.bar("regions", total=sum(len(one.pictures) for one in data.sequences), unit="frames") as tick:
        for number, sequence in enumerate(data.sequences):
            overlays = _track(sequence, encoder, source, reference, request.out, tally, tick)
            if number in chosen:
                path = write_png(request.out / PICTURES / f"regions-{safe_name(sequence.name)}.png", strip(overlays))
                pictures.append(path.relative_to(request.out).as_posix())
    return Result(
        task="regions", preset=source.kind, encoder=encoder.info.to_json(), scores=_scores(tally, reference),
        items=_items(tally, reference), data=data.to_json(), options=_options(source, reference, tally),
        notes=_notes(tally, source, reference, encoder), pictures=pictures,
    )  # fmt: skip


def _track(
    sequence: DavisSequence, encoder: Encoder, source: Proposals, headline: Reference, out: Path, tally: _Tally,
    tick: Tick,
) -> list[Picture]:  # fmt: skip
    """Track one sequence to its end; returns some frames with the headline's masks on them."""
    first_HW, names = sequence.first(), [path.stem for path in sequence.pictures]
    objects = object_count(first_HW)
    present = set(np.unique(first_HW).tolist())
    tally.absent += [f"{sequence.name}/{number}" for number in range(1, objects + 1) if number not in present]

    def propose(number: int, picture_HW3: Picture) -> Masks:
        masks_MHW = source.masks(sequence.name, names[number], picture_HW3)
        tally.digest.add((sequence.name, names[number]), masks_MHW)
        tally.masks, tally.frames = tally.masks + len(masks_MHW), tally.frames + 1
        tally.bare += not len(masks_MHW)
        return masks_MHW

    ways = tuple(dict.fromkeys((*_ALWAYS, headline)))
    found: dict[str, list[NDArray[np.float64]]] = {way: [] for way in (*ways, ORACLE)}
    shown, overlays = spread(len(names), _SHOWN_FRAMES), list[Picture]()
    each = track(sequence.pictures, first_HW, objects, sequence.truth, encoder, propose, ways)
    for number, frame in enumerate(each):
        write_mask(out / MASKS / safe_name(sequence.name) / f"{names[number]}.png", frame.ids[headline])
        if number in shown:
            overlays.append(overlay(frame.picture, frame.ids[headline]))
        true_HW = sequence.truth(number)
        if number in sequence.scored and true_HW is not None:
            for way, ids_HW in frame.ids.items():
                found[way].append(id_scores(ids_HW, true_HW, objects))
        tick()
    for way, frames in found.items():
        tally.scores.setdefault(way, {})[sequence.name] = summarise(frames, objects)
    return overlays


def _totals(tally: _Tally, way: str) -> dict[str, float]:
    return total([score for scores in tally.scores[way].values() for score in scores])


def _scores(tally: _Tally, headline: Reference) -> dict[str, float]:
    """All of the headline, J&F, J and F of the other ways and of the oracle."""
    scores = _totals(tally, headline)
    if not scores:
        raise InputError(what="Nothing can be scored.", why="no sequence has three annotated frames")
    for way in tally.scores:
        if way != headline:
            scores |= {f"{name} ({way})": value for name, value in _totals(tally, way).items() if name in _HEADS}
    best = scores[f"{_HEADS[0]} ({ORACLE})"]
    return scores | ({_OF_ORACLE: scores[_HEADS[0]] / best} if best > 0 else {})


def _items(tally: _Tally, headline: Reference) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    for name, scores in tally.scores[headline].items():
        for number, score in enumerate(scores):
            row = {"name": f"{name}/{number + 1}", **score.to_json()}
            for way in tally.scores:
                if way != headline:
                    row[f"{_HEADS[0]} ({way})"] = tally.scores[way][name][number].to_json()[_HEADS[0]]
            rows.append({key: value for key, value in row.items() if not _undefined(value)})
    return rows


def _undefined(value: object) -> bool:
    return isinstance(value, float) and not np.isfinite(value)


def _options(source: Proposals, reference: Reference, tally: _Tally) -> dict[str, Any]:
    options: dict[str, Any] = {
        "reference": reference, "pooling": "mean of bilinearly upsampled features", "proposals": tally.digest.text()
    }  # fmt: skip
    if reference == "ema":
        options["kept of the old reference"] = KEPT
    if source.kind == "superpixels":
        options["superpixels"] = list(SUPERPIXELS)
    return options


def _notes(tally: _Tally, source: Proposals, reference: Reference, encoder: Encoder) -> list[str]:
    notes = [
        source.note,
        f"{tally.masks / max(tally.frames, 1):.0f} proposals a frame. Each object takes one; the oracle takes the one "
        "that overlaps most with the truth, and is the ceiling of these proposals.",
        f"The headline compares with the {'running mean' if reference == 'ema' else reference + ' token'}; frames are "
        f"padded to whole patches of {encoder.info.patch} pixels, not resized.",
    ]
    if tally.bare:
        notes.append(f"Frames without any proposal, where no object was found: {tally.bare}.")
    if tally.absent:
        notes.append(f"Not in the first frame, so never found: {', '.join(tally.absent)}.")
    unscored = [name for name, scores in tally.scores[reference].items() if not _known(scores)]
    if unscored:
        notes.append(f"Without a score, having fewer than three annotated frames: {', '.join(unscored)}.")
    return notes


def _known(scores: Sequence[ObjectScores]) -> bool:
    return any(not _undefined(score.to_json()[_HEADS[0]]) for score in scores)
