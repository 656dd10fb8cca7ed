"""Label propagation: the labels of a video's first frame, carried through it by the similarity of features.

One kernel with the knobs of all the protocols in use: DINO, CRW (videowalk, CropMAE, T-CoRe, CatMAE), RSP, VFS, and
UVC as a variant. Written from their definitions; a test holds it against a plain dense implementation.

h w grid of cells, D width, C label channels. Inside, the grid's longer side comes first (a b), so that the keys which a
band of queries can reach are one block of memory: L = a x b cells of a frame, T context slots, F frames that the
neighbourhood masks, Q queries of a band, K keys within its reach, S selected keys of a query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from frame.eval.propagate.neighbourhood import Band, Shape, band_mask, bands, near, reach
from frame.manifests.errors import InputError

Queue = Literal["after_first", "from_first", "padded"]
Ties = Literal["keep", "cut"]

# Similarities held at once: what stays in a processor's cache, or a small part of an accelerator's memory.
_HELD_CPU, _HELD_ACCELERATOR = 1 << 20, 1 << 26
# Fewer queries at a time make slow matrix products.
_QUERIES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Propagation:
    """The knobs. Raises InputError for values that define no propagation.

    ``temperature`` divides the similarity. ``topk`` keys of all context frames together give their labels to a query,
    weighted by the softmax over them; with ``topk_per_frame`` (UVC) that many of each frame, weighted by the softmax
    over *all* keys of the frame and not normalised again, and the maps are averaged over the frames. ``ties``: more
    keys may equal the last one; ``keep`` them all (DINO, UVC), or ``cut`` the list (CRW, VFS; which of them stay is
    arbitrary there as here).

    ``shape``: a key counts if it is at most ``radius`` cells away along each side (``square``), less than ``radius``
    in a straight line (``circle``), or always (``none``). ``mask_first``: in the first frame too.

    The first frame is always in the context, and besides it the last ``context`` frames. ``queue`` says when the first
    frame is one of these as well: never (``after_first``: DINO), while it is recent (``from_first``: VFS, where it then
    counts twice), or from the start as often as it takes to fill the queue (``padded``: CRW).

    ``cosine``: features are normalised first. ``minmax_stored``: every channel of a new map is stretched to 0..1 before
    it is used further (UVC on JHMDB).
    """

    temperature: float
    topk: int
    radius: float
    shape: Shape
    mask_first: bool
    context: int
    queue: Queue
    ties: Ties
    topk_per_frame: bool = False
    cosine: bool = True
    minmax_stored: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("shape", get_args(Shape)), ("queue", get_args(Queue)), ("ties", get_args(Ties))):
            if getattr(self, name) not in allowed:
                raise _wrong(name, getattr(self, name), f"one of {', '.join(allowed)}")
        for name, least in (("topk", 1), ("context", 0)):
            if getattr(self, name) < least:
                raise _wrong(name, getattr(self, name), f"a whole number from {least}")
        if not 0 < self.temperature < float("inf"):
            raise _wrong("temperature", self.temperature, "a number above 0")
        if self.shape != "none" and not 0 < self.radius < float("inf"):
            raise _wrong("radius", self.radius, "a number above 0; without a neighbourhood: shape=none")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Context:
    """Frame 0 in slot 0, the recent ones behind it, in no order."""

    features: Tensor  # [T, L, D]
    labels: Tensor  # [T, L, C]
    masked: slice  # the slots that the neighbourhood masks
    again: int  # how often frame 0 is among the recent frames as well

    @property
    def free(self) -> bool:
        """Whether the first frame is seen whole."""
        return bool(self.masked.start == 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Similar:
    """Similarities of one band's queries: with frame 0 as a whole, where it is not masked, and within reach.

    The mask is yet to be added: to the few similarities that may matter, not to those of every frame.
    """

    band: Band
    free: Tensor | None  # [Q, L]
    masked: Tensor  # [F, Q, K]
    mask: Tensor  # [Q, K]: 0 or -inf


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chosen:
    """Of each query, the most similar keys: similarity, place among all T x L labels, how often the key is there."""

    values: Tensor  # [Q, S]
    places: Tensor  # [Q, S]
    counts: Tensor  # [Q, S], float32

    def best(self, count: int) -> _Chosen:
        """The ``count`` most similar, in order."""
        values_QS, order = self.values.topk(min(count, self.values.shape[1]), dim=1)
        return _Chosen(values=values_QS, places=self.places.gather(1, order), counts=self.counts.gather(1, order))


class Propagator:
    """Carries the labels through one video after another. Holds the context's features and soft labels only."""

    def __init__(self, knobs: Propagation) -> None:
        self.knobs = knobs
        self._seen = 0  # frames of this video

    def begin(self, features_hwD: Tensor, labels_hwC: Tensor) -> None:
        """The first frame of a video and its labels (any real values), on one device. Forgets the video before."""
        if features_hwD.ndim != 3 or labels_hwC.ndim != 3 or features_hwD.shape[:2] != labels_hwC.shape[:2]:
            raise ValueError(f"features {tuple(features_hwD.shape)} and labels {tuple(labels_hwC.shape)} do not fit")
        self._shape = features_hwD.shape
        self._turned = self._shape[1] > self._shape[0]
        features_LD, labels_LC = self._features(features_hwD), self._inside(labels_hwC)
        slots = 1 + self.knobs.context
        self._features_TLD = features_LD.new_empty(slots, *features_LD.shape)
        self._labels_TLC = labels_LC.new_empty(slots, *labels_LC.shape)
        self._seen = 0
        self._store(0, features_LD, labels_LC)

    def step(self, features_hwD: Tensor) -> Tensor:
        """The soft labels of the next frame, float32 [h, w, C]; as they are returned they join the context."""
        if not self._seen or features_hwD.shape != self._shape:
            raise ValueError(f"features {tuple(features_hwD.shape)} do not continue a video")
        features_LD = self._features(features_hwD)
        labels_LC = self._propagated(features_LD)
        if self.knobs.minmax_stored:
            labels_LC = stretched(labels_LC)
        # The slots of the recent frames are a ring.
        self._store(1 + (self._seen - 1) % max(self.knobs.context, 1), features_LD, labels_LC)
        short, long = sorted(self._shape[:2])
        labels_abC = labels_LC.reshape(long, short, -1)
        return labels_abC.transpose(0, 1) if self._turned else labels_abC

    def _inside(self, values_hwX: Tensor) -> Tensor:
        """float32 [L, X], the longer side first."""
        values = values_hwX.transpose(0, 1) if self._turned else values_hwX
        return values.float().flatten(0, 1).contiguous()

    def _features(self, features_hwD: Tensor) -> Tensor:
        features_LD = self._inside(features_hwD)
        return functional.normalize(features_LD, dim=-1) if self.knobs.cosine else features_LD

    def _store(self, slot: int, features_LD: Tensor, labels_LC: Tensor) -> None:
        if slot < len(self._features_TLD):
            self._features_TLD[slot], self._labels_TLC[slot] = features_LD, labels_LC
        self._seen += 1

    def _context(self) -> _Context:
        wanted, seen = self.knobs.context, self._seen
        again = {"after_first": 0, "from_first": int(seen <= wanted), "padded": max(0, wanted - seen + 1)}
        return _Context(
            features=self._features_TLD, labels=self._labels_TLC, again=again[self.knobs.queue],
            masked=slice(0 if self.knobs.mask_first else 1, 1 + min(seen - 1, wanted)),
        )  # fmt: skip

    def _propagated(self, queries_LD: Tensor) -> Tensor:
        knobs, context = self.knobs, self._context()
        short, long = sorted(self._shape[:2])
        weigh = _each_frame if knobs.topk_per_frame else _joint
        held = _HELD_CPU if queries_LD.device.type == "cpu" else _HELD_ACCELERATOR
        frames = max(1, context.masked.stop - context.masked.start)
        labels_LC = torch.empty_like(context.labels[0])
        for band in bands(long, short, far=reach(knobs.shape, knobs.radius), held=held, frames=frames, least=_QUERIES):
            similar = _similarities(queries_LD[band.queries], context, band, knobs)
            labels_LC[band.queries] = weigh(similar, context, knobs)
        return labels_LC


def stretched(labels_LC: Tensor) -> Tensor:
    """Every channel less its minimum and divided by its new maximum, as UVC and DINO do it.

    A channel without a positive value stays as it is. A positive channel of one value becomes nan: 0/0.
    """
    shifted_LC = labels_LC - labels_LC.amin(dim=0)
    return torch.where(labels_LC.amax(dim=0) > 0, shifted_LC / shifted_LC.amax(dim=0), labels_LC)


def _similarities(queries_QD: Tensor, context: _Context, band: Band, knobs: Propagation) -> _Similar:
    """float32 products."""
    free_QL = queries_QD @ context.features[0].T if context.free else None
    keys_FDK = context.features[context.masked, band.keys].transpose(1, 2)
    mask_QK = band_mask(knobs.shape, knobs.radius, band, queries_QD.device)
    # A product for every frame by itself: identical frames get identical values, and ties stay ties.
    masked_FQK = torch.bmm(queries_QD.expand(len(keys_FDK), -1, -1), keys_FDK)
    mask_QK = mask_QK.expand(masked_FQK.shape[1:])
    return _Similar(band=band, free=free_QL, masked=masked_FQK, mask=mask_QK)


def _joint(similar: _Similar, context: _Context, knobs: Propagation) -> Tensor:
    """New labels [Q, C]: the best keys of all frames together."""
    wanted = knobs.topk + (knobs.ties == "keep")  # one more shows whether there are ties to keep
    chosen = _choose(similar, context, knobs, wanted)
    weights_QS, tied_Q = _weights(chosen, knobs)
    labels_QSC = context.labels.flatten(0, 1)[chosen.places]
    labels_QC = torch.einsum("qs,qsc->qc", weights_QS, labels_QSC)
    if knobs.ties == "keep" and chosen.values.shape[1] == wanted and bool(tied_Q.any()):
        labels_QC[tied_Q] = _all_ties(similar, context, knobs, chosen, tied_Q)
    return labels_QC


def _choose(similar: _Similar, context: _Context, knobs: Propagation, wanted: int) -> _Chosen:
    """The ``wanted`` best keys, and how often each is in the context."""
    parts: list[_Chosen] = []
    cells = context.labels.shape[1]
    if similar.free is not None:
        values_QS, places_QS = similar.free.topk(min(wanted, cells), dim=1)
        inside_QS = near(knobs.shape, knobs.radius, similar.band, places_QS)
        parts.append(_Chosen(values=values_QS, places=places_QS, counts=1 + context.again * inside_QS.float()))
    if len(similar.masked):
        parts.append(_choose_masked(similar, context, wanted))
    return _Chosen(
        values=torch.cat([part.values for part in parts], dim=1),
        places=torch.cat([part.places for part in parts], dim=1),
        counts=torch.cat([part.counts for part in parts], dim=1),
    ).best(wanted)


def _choose_masked(similar: _Similar, context: _Context, wanted: int) -> _Chosen:
    """The best of the masked frames. The best keys lie at the cells whose best frame is among the best: so only the
    maxima over the frames are searched, and then all frames at the few cells found."""
    masked_FQK, cells = similar.masked, context.labels.shape[1]
    best_QK = masked_FQK.amax(dim=0) + similar.mask
    places_QS = best_QK.topk(min(wanted, best_QK.shape[1]), dim=1, sorted=False).indices
    values_FQS = masked_FQK.gather(2, places_QS.expand(len(masked_FQK), -1, -1)) + similar.mask.gather(1, places_QS)
    slots_F11 = torch.arange(context.masked.start, context.masked.stop, device=places_QS.device)[:, None, None]
    places_FQS = slots_F11 * cells + (places_QS + similar.band.keys.start)
    counts_FQS = (1.0 + context.again * (slots_F11 == 0)).expand_as(values_FQS)
    values, places, counts = (part.transpose(0, 1).flatten(1) for part in (values_FQS, places_FQS, counts_FQS))
    return _Chosen(values=values, places=places, counts=counts)


def _weights(chosen: _Chosen, knobs: Propagation) -> tuple[Tensor, Tensor]:
    """Weights [Q, S] that add up to 1, and which queries have ties that were not all chosen, [Q]."""
    values_QS, counts_QS = chosen.values, chosen.counts
    before_QS = counts_QS.cumsum(dim=1) - counts_QS
    least_Q1 = values_QS.where(before_QS < knobs.topk, torch.inf).amin(dim=1, keepdim=True)
    if knobs.ties == "keep":
        counts_QS = counts_QS * (values_QS >= least_Q1)
    else:
        counts_QS = torch.minimum((knobs.topk - before_QS).clamp(min=0), counts_QS)
    # Less the maximum, so that no temperature makes an exponential overflow.
    weights_QS = counts_QS * torch.exp((values_QS - values_QS[:, :1]) / knobs.temperature)
    tied_Q = (values_QS[:, -1] == least_Q1[:, 0]) & values_QS[:, -1].isfinite()
    return weights_QS / weights_QS.sum(dim=1, keepdim=True), tied_Q


def _all_ties(similar: _Similar, context: _Context, knobs: Propagation, chosen: _Chosen, tied_Q: Tensor) -> Tensor:
    """Labels of the queries of which more keys equal the last one than were chosen: every such key counts."""
    least_Q1, most_Q1 = chosen.values[tied_Q, -1:], chosen.values[tied_Q, :1]

    def weights(values_QK: Tensor, counts: Tensor | float) -> Tensor:
        return counts * torch.exp((values_QK - most_Q1) / knobs.temperature) * (values_QK >= least_Q1)

    parts: list[tuple[Tensor, Tensor]] = []
    first_LC = context.labels[0]
    if similar.free is not None:
        every_QL = torch.arange(len(first_LC), device=first_LC.device).expand_as(similar.free)
        inside_QL = near(knobs.shape, knobs.radius, similar.band, every_QL)[tied_Q]
        parts.append((weights(similar.free[tied_Q], 1 + context.again * inside_QL.float()), first_LC))
    for slot, values_QK in zip(range(context.masked.start, context.masked.stop), similar.masked, strict=True):
        weights_QK = weights((values_QK + similar.mask)[tied_Q], 1.0 + context.again * (slot == 0))
        parts.append((weights_QK, context.labels[slot, similar.band.keys]))
    total_Q1 = torch.stack([part.sum(dim=1, keepdim=True) for part, _ in parts]).sum(dim=0)
    return torch.stack([part @ labels_KC for part, labels_KC in parts]).sum(dim=0) / total_Q1


def _each_frame(similar: _Similar, context: _Context, knobs: Propagation) -> Tensor:
    """New labels [Q, C]: the best keys of every frame by itself, and the mean over the frames."""
    band, first_LC = similar.band, context.labels[0]
    parts: list[tuple[float, Tensor, Tensor]] = []
    if similar.free is not None:
        parts.append((1.0, similar.free, first_LC))
        if context.again:
            parts.append((float(context.again), similar.free[:, band.keys] + similar.mask, first_LC[band.keys]))
    for slot, values_QK in zip(range(context.masked.start, context.masked.stop), similar.masked, strict=True):
        parts.append((1.0 + context.again * (slot == 0), values_QK + similar.mask, context.labels[slot, band.keys]))
    maps_PQC = torch.stack(
        [count * (_one_frame(values_QK, knobs) @ labels_KC) for count, values_QK, labels_KC in parts]
    )
    return maps_PQC.sum(dim=0) / sum(count for count, _, _ in parts)


def _one_frame(values_QK: Tensor, knobs: Propagation) -> Tensor:
    """Softmax over all keys of one frame, and 0 for those that are not among the best: [Q, K]."""
    weights_QK = torch.softmax(values_QK / knobs.temperature, dim=1)
    best = values_QK.topk(min(knobs.topk, values_QK.shape[1]), dim=1)
    if knobs.ties == "keep":
        return weights_QK * (values_QK >= best.values[:, -1:])
    kept_QK = torch.zeros_like(weights_QK).scatter_(1, best.indices, 1.0)
    return weights_QK * kept_QK


def _wrong(name: str, value: object, expected: str) -> InputError:
    return InputError(what="A knob of the propagation has no sense.", where=f"{name}={value}", fix=f"give {expected}")
