"""Action recognition on UCF-101 and HMDB-51: zero-shot by text, and a linear probe. One vector a video, top-1 accuracy.

Eight frames a video, the centres of eight equal segments, cropped as CLIP does. Zero-shot: each frame's vector in the
space of text normalised, their mean normalised again, the class whose text is nearest by cosine. Linear probe: logistic
regression on the mean CLS token. V videos, D width, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from torch.nn import functional

from frame.eval.data.actions import (
    SPLITS,
    ActionClip,
    ActionSet,
    ActionSplit,
    Loader,
    load_hmdb51,
    load_ucf101,
)
from frame.eval.data.lists import shown
from frame.eval.encoder import Encoder, open_encoder
from frame.eval.recognise.action_features import FRAMES, Past, Sampling, cls_tokens, require_memory
from frame.eval.recognise.class_text import TextSource, origin_note, shared_text
from frame.eval.recognise.log_regression import (
    HELD_OUT,
    MAX_ITERATIONS,
    TOLERANCE,
    VALUES,
    Floats,
    Ints,
    fit_and_predict,
    sweep_values,
)
from frame.eval.recognise.text import TextEmbeddings
from frame.eval.request import Request
from frame.eval.result import Result, data_digest
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.pipeline.decode import ClipError

PRESETS = ("linear", "zero-shot")
Split = Literal["1", "2", "3", "all"]
_LOADERS: Mapping[str, Loader] = {"ucf101": load_ucf101, "hmdb51": load_hmdb51}


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionOptions:
    """``side`` in pixels; ``memory``: see ``Sampling``; ``sweep`` the values of C that a linear probe tries (None: 45),
    ``seed`` that of its cut of train (None: 0)."""

    split: Split = "1"
    side: int = 224
    memory: Past = "sampled"
    text: TextSource = field(default_factory=TextSource)
    sweep: int | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Features:
    """One vector a video that could be read, and why the others could not."""

    vectors: Mapping[str, Floats]
    failures: Mapping[str, ClipError]

    def stack(self, clips: Sequence[ActionClip]) -> Floats:
        return np.stack([self.vectors[clip.name] for clip in clips])

    def readable(self, clips: Sequence[ActionClip]) -> list[ActionClip]:
        return [clip for clip in clips if clip.name in self.vectors]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    """Which test clips of a split were recognised, and what a reader has to know."""

    split: ActionSplit
    right: frozenset[str]
    notes: tuple[str, ...] = ()

    def accuracy(self, label: int | None = None) -> float | None:
        """Of all test clips, or those of one class; None where it has none."""
        names = [clip.name for clip in self.split.test if label is None or clip.label == label]
        return sum(name in self.right for name in names) / len(names) if names else None


def evaluate(task: str, request: Request, options: ActionOptions, progress: Progress) -> Result:
    """``task`` is ucf101 or hmdb51. Raises InputError for data that is not there and options that do not go together.

    A video that cannot be read counts as wrong in test, is left out of train, and is named in the notes.
    """
    preset = request.preset or PRESETS[0]
    past: Past = options.memory
    numbers = SPLITS if options.split == "all" else (int(options.split),)
    _agree(preset, options)
    data = _LOADERS[task](request.data, numbers, request.sequences)
    if len(data.classes) < 2:
        raise InputError(what="Recognition needs two classes.", where="--sequences", why=shown(data.classes))
    encoder = open_encoder(request.encoder, weights=request.weights, device=request.device)
    require_memory(past, encoder)
    sampling = Sampling(side=options.side, past=past)
    origin = ""
    if preset == "zero-shot":
        text = shared_text(data.classes, options.text, encoder)
        origin = origin_note(text, encoder)
        outcomes, features = _zero_shot(data, encoder, sampling, text, progress)
        knobs: dict[str, Any] = {"text": text.source or f"file {sha256(text.vectors.tobytes()).hexdigest()[:12]}"}
    else:
        outcomes, features = _linear(data, encoder, sampling, options, progress)
        knobs = {
            "sweep": options.sweep or VALUES, "seed": options.seed or 0, "held_out": HELD_OUT,
            "max_iterations": MAX_ITERATIONS, "tolerance": TOLERANCE,
        }  # fmt: skip
    shared = {
        "split": options.split, "classes": len(data.classes), "frames": FRAMES, "sampling": "segment centres",
        "side": options.side, "crop": "bicubic short side, centre crop", "memory": past,
    }  # fmt: skip
    return Result(
        task=task, preset=preset, encoder=encoder.info.to_json(), scores=_scores(preset, outcomes),
        items=_items(preset, data, outcomes), data=_data(preset, data), options=shared | knobs,
        notes=[*_notes(data, outcomes, features, encoder, past), *([origin] if origin else [])],
    )  # fmt: skip


def _agree(preset: str, options: ActionOptions) -> None:
    """Raise InputError for an unknown preset, and for options that it would leave unused."""
    if preset not in PRESETS:
        raise InputError(
            what=f"There is no preset {preset!r}.", where="--preset", fix=f"use {' or '.join(PRESETS)}"
        )  # fmt: skip
    text = options.text
    of_text: dict[str, object] = {
        "--text": text.tower, "--text-weights": text.weights, "--templates": text.templates,
        "--text-embeddings": text.embeddings,
    }  # fmt: skip
    of_probe: dict[str, object] = {"--sweep": options.sweep, "--seed": options.seed}
    unused = of_text if preset == "linear" else of_probe
    if preset == "zero-shot":
        if bool(text.tower) == bool(text.embeddings):
            raise InputError(
                what="Zero-shot needs the classes as text, once.", where="--preset zero-shot",
                why="both --text and --text-embeddings are given" if text.tower else "",
                fix="give --text open_clip:MODEL/TAG --text-weights FILE, or --text-embeddings FILE.npz",
            )  # fmt: skip
        if text.embeddings:
            unused = unused | {"--text-weights": text.weights, "--templates": text.templates}
    given = [name for name, value in unused.items() if value not in (None, "")]
    if given:
        raise InputError(
            what="These options would do nothing here.", where=", ".join(given), why=f"the preset is {preset}"
            + (", the text comes from a file" if text.embeddings else ""), fix="leave them out",
        )  # fmt: skip
    if preset == "linear":
        sweep_values(VALUES if options.sweep is None else options.sweep)


def _features(
    clips: Sequence[ActionClip], data: ActionSet, encoder: Encoder, sampling: Sampling, progress: Progress,
    semantic: bool,
) -> _Features:  # fmt: skip
    """One vector for each clip, taken once however many splits it is in."""
    names = sorted({clip.name for clip in clips})
    vectors: dict[str, Floats] = {}
    failures: dict[str, ClipError] = {}
    for name, found in cls_tokens(names, data.videos, encoder, sampling, progress):
        if isinstance(found, ClipError):
            failures[name] = found
            progress.note(f"{name} cannot be read: {found}")
        elif semantic:
            each_FC = functional.normalize(encoder.semantic(found), dim=-1)
            vectors[name] = functional.normalize(each_FC.mean(0), dim=-1).cpu().numpy()
        else:
            vectors[name] = found.mean(0).cpu().numpy()
    if not vectors:
        raise InputError(
            what="Not one video can be read.", where=str(data.videos), why=str(next(iter(failures.values())))
        )
    return _Features(vectors=vectors, failures=failures)


def _zero_shot(
    data: ActionSet, encoder: Encoder, sampling: Sampling, text: TextEmbeddings, progress: Progress
) -> tuple[list[_Outcome], _Features]:
    tested = [clip for split in data.splits for clip in split.test]
    features = _features(tested, data, encoder, sampling, progress, semantic=True)
    text_KC = text.vectors / np.linalg.norm(text.vectors, axis=1, keepdims=True)
    nearest = {name: int(np.argmax(text_KC @ vector)) for name, vector in features.vectors.items()}
    outcomes = []
    for split in data.splits:
        right = {clip.name for clip in split.test if nearest.get(clip.name) == clip.label}
        outcomes.append(_Outcome(split=split, right=frozenset(right)))
    return outcomes, features


def _linear(
    data: ActionSet, encoder: Encoder, sampling: Sampling, options: ActionOptions, progress: Progress
) -> tuple[list[_Outcome], _Features]:
    every = [clip for split in data.splits for clip in (*split.train, *split.test)]
    features = _features(every, data, encoder, sampling, progress, semantic=False)
    return [_probe(split, features, options, progress) for split in data.splits], features


def _probe(split: ActionSplit, features: _Features, options: ActionOptions, progress: Progress) -> _Outcome:
    train, test = features.readable(split.train), features.readable(split.test)
    if not train:
        raise InputError(what="Not one training video can be read.", where=f"split {split.number}")
    train_ND = features.stack(train)
    fitted = fit_and_predict(
        train_ND, _labels(train), [clip.group for clip in train],
        features.stack(test) if test else train_ND[:0],
        sweep=VALUES if options.sweep is None else options.sweep, seed=options.seed or 0, progress=progress,
    )  # fmt: skip
    right = [clip.name for clip, label in zip(test, fitted.predicted, strict=True) if clip.label == label]
    note = (
        f"Split {split.number}: C = {fitted.c:.3g}, chosen on {fitted.held} of {len(train)} training clips held out by "
        f"source video ({fitted.accuracy:.4f} there)."
    )
    if fitted.unfinished:
        note += f" {fitted.unfinished} fits used all {MAX_ITERATIONS} iterations."
    return _Outcome(split=split, right=frozenset(right), notes=(note,))


def _labels(clips: Sequence[ActionClip]) -> Ints:
    return np.array([clip.label for clip in clips], dtype=np.int64)


def _scores(preset: str, outcomes: Sequence[_Outcome]) -> dict[str, float]:
    """Top-1 accuracy under the preset's name: of the split, or the mean of the three and each of them."""
    each = {f"{preset}, split {one.split.number}": one.accuracy() or 0.0 for one in outcomes}
    total = {preset: sum(each.values()) / len(each)}
    return total | each if len(each) > 1 else total


def _items(preset: str, data: ActionSet, outcomes: Sequence[_Outcome]) -> list[dict[str, Any]]:
    """Each class: the part of its test clips that was recognised (mean over the splits), and how many there are."""
    items: list[dict[str, Any]] = []
    for label, name in enumerate(data.classes):
        found = [share for one in outcomes if (share := one.accuracy(label)) is not None]
        clips = sum(clip.label == label for one in outcomes for clip in one.split.test)
        items.append({"name": name, **({preset: sum(found) / len(found)} if found else {}), "clips": clips})
    return items


def _data(preset: str, data: ActionSet) -> dict[str, Any]:
    """What was read: zero-shot looks at no training clip."""
    parts = {f"test_split{split.number}": split.test for split in data.splits}
    if preset == "linear":
        parts |= {f"train_split{split.number}": split.train for split in data.splits}
    names = {clip.name for clips in parts.values() for clip in clips}
    files = [*data.lists, *(data.videos / name for name in names)]
    counts = {part: len(clips) for part, clips in parts.items()}
    return {"root": str(data.root), "digest": data_digest(data.root, files), "classes": len(data.classes), **counts}


def _notes(
    data: ActionSet, outcomes: Sequence[_Outcome], features: _Features, encoder: Encoder, past: Past
) -> list[str]:
    notes = [note for outcome in outcomes for note in outcome.notes]
    if encoder.info.memory:
        holds = {
            "sampled": "the sampled frames before it, seconds apart",
            "native": f"up to {encoder.info.memory} of the video's own frames just before it",
            "off": "nothing",
        }
        notes.append(f"The encoder's memory at a sampled frame held {holds[past]}.")
    if encoder.info.kind == "open_clip":
        notes.append("The CLS token used is CLIP's projected embedding.")
    empty = [name for label, name in enumerate(data.classes) if all(one.accuracy(label) is None for one in outcomes)]
    if empty:
        notes.append(f"Classes without a test clip: {shown(empty)}.")
    if features.failures:
        listed = shown([f"{name} ({error})" for name, error in features.failures.items()])
        notes.append(
            f"{len(features.failures)} videos could not be read; in test they count as wrong, in train they were left "
            f"out: {listed}."
        )
    return notes
