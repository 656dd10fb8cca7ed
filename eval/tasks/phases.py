"""Phases of an action: what the frames' CLS tokens say of them, by the protocols of CARL and MV-Former.

T frames of a video, D width of the tokens. Every frame of every video goes through the encoder, at its own rate; the
CLS tokens are L2-normalised, and frames without a label are left out before anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from frame.eval.data.phases import (
    PENN_PHASES,
    POURING_PHASES,
    SIDE,
    LabelledVideo,
    frames,
    read_penn_list,
    read_videos_list,
    videos_of,
)
from frame.eval.encoder import Encoder, open_encoder
from frame.eval.metrics.alignment import RETRIEVAL_K, STRIDES, kendall_tau, retrieval_precision
from frame.eval.metrics.phases import (
    FRACTIONS,
    LinearRecipe,
    Videos,
    linear_accuracy,
    phase_accuracy,
    phase_progression,
)
from frame.eval.request import Request
from frame.eval.result import Result, data_digest
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress, Tick
from frame.pipeline.decode import DecodeCage

PRESET = "carl"
GYM_CLASSES = {"gym99": 99, "gym288": 288}


def evaluate_penn(request: Request, progress: Progress) -> Result:
    """Penn Action: all metrics by action, and their plain mean over the actions (``sequences`` chooses some)."""
    _check_preset(request, (PRESET,))
    train, val = (read_penn_list(request.data / f"{split}.json") for split in ("train", "val"))
    for unknown in [name for name in request.sequences if name not in PENN_PHASES]:
        raise InputError(
            what="Penn Action has no such action.",
            where=f"--sequences {unknown}",
            fix=f"one of {', '.join(PENN_PHASES)}",
        )
    names = request.sequences or tuple(PENN_PHASES)
    notes = [] if set(names) == set(PENN_PHASES) else [f"{len(names)} of the {len(PENN_PHASES)} actions only"]
    encoder = open_encoder(request.encoder, weights=request.weights, device=request.device)
    items = []
    for name in names:
        sides = _embed_both(encoder, train[name], val[name], name, progress)
        items.append({"name": name} | _scores(*sides, phases=PENN_PHASES[name], stride=STRIDES["penn"]))
    used = [side[name] for side in (train, val) for name in names]
    return _result("penn", request, encoder, _means(items), items, used, {"stride": STRIDES["penn"]}, notes)


def evaluate_pouring(request: Request, progress: Progress) -> Result:
    """Pouring: one action with five phases."""
    _check_preset(request, (PRESET,))
    train, val = (
        read_videos_list(request.data / f"{split}.json", classes=POURING_PHASES) for split in ("train", "val")
    )
    encoder = open_encoder(request.encoder, weights=request.weights, device=request.device)
    sides = _embed_both(encoder, train, val, "pouring", progress)
    items = [{"name": "pouring"} | _scores(*sides, phases=POURING_PHASES, stride=STRIDES["pouring"])]
    options = {"stride": STRIDES["pouring"]}
    return _result("pouring", request, encoder, _means(items), items, [train, val], options)


def evaluate_finegym(request: Request, progress: Progress, recipe: LinearRecipe) -> Result:
    """FineGym: frame accuracy of a linear classifier. The preset says which labels: gym99 or gym288."""
    preset = _check_preset(request, tuple(GYM_CLASSES))
    classes = GYM_CLASSES[preset]
    lists = (f"{preset}_train_v1.0.json", f"{preset}_val.json")
    train, val = (read_videos_list(request.data / name, classes=classes) for name in lists)
    encoder = open_encoder(request.encoder, weights=request.weights, device=request.device)
    train_side, val_side = _embed_both(encoder, train, val, preset, progress)
    items: list[dict[str, Any]] = []
    accuracy = float("nan")
    for fraction in FRACTIONS:  # the headline is the last one's
        part = train_side.first(fraction, least=recipe.videos)
        accuracy = linear_accuracy(part, val_side, classes, recipe, encoder.device)
        items.append({"name": f"{fraction:g} of train", "classification": accuracy, "videos": len(part.labels)})
    return _result(
        "finegym", request, encoder, {"classification": accuracy}, items, [train, val], {"recipe": asdict(recipe)}
    )


def embed(encoder: Encoder, videos: Sequence[LabelledVideo], tick: Tick) -> Videos:
    """The normalised CLS tokens of the labelled frames of each video, float32. Videos without any are left out."""
    embeddings, labels = [], []
    with DecodeCage() as cage, torch.inference_mode():
        for video in videos:
            cls_TD = torch.stack([tokens.cls for tokens in encoder.stream(frames(video, cage))])
            known_T = video.labels >= 0
            if known_T.any():
                normal_TD = functional.normalize(cls_TD.float(), dim=1).cpu().numpy()
                embeddings.append(normal_TD[known_T])
                labels.append(video.labels[known_T])
            tick()
    return Videos(embeddings=embeddings, labels=labels)


def _embed_both(
    encoder: Encoder, train: Sequence[LabelledVideo], val: Sequence[LabelledVideo], name: str, progress: Progress
) -> tuple[Videos, Videos]:
    with progress.bar(name, total=len(train) + len(val), unit="videos") as tick:
        sides = embed(encoder, train, tick), embed(encoder, val, tick)
    for split, side in zip(("train", "val"), sides, strict=True):
        if not side.labels:
            raise InputError(what="There is not one labelled frame.", where=f"{name}, {split}")
    return sides


def _scores(train: Videos, val: Videos, *, phases: int, stride: int) -> dict[str, float]:
    """All metrics of one action, those of all training videos first; nan for one that is not defined."""
    precision = retrieval_precision(val.embeddings, val.labels, stride=stride, ks=RETRIEVAL_K)
    aligned = {"kendall_tau": kendall_tau(val.embeddings, stride=stride)}
    aligned |= {f"AP@{k}": value for k, value in precision.items()}
    *parts, whole = FRACTIONS
    scores = _linear_scores(train.first(whole), val, phases, "") | aligned
    for fraction in parts:
        scores |= _linear_scores(train.first(fraction), val, phases, f"@{fraction:g}")
    return scores


def _linear_scores(train: Videos, val: Videos, phases: int, mark: str) -> dict[str, float]:
    several = len(np.unique(np.concatenate(list(train.labels)))) > 1
    return {
        f"classification{mark}": phase_accuracy(train, val) if several else float("nan"),
        f"progression{mark}": phase_progression(train, val, phases),
    }


def _means(items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The plain mean over the items that have a score."""
    names = [name for name in items[0] if name != "name"]
    known = {name: [item[name] for item in items if np.isfinite(item[name])] for name in names}
    return {name: float(np.mean(values)) for name, values in known.items() if values}


def _check_preset(request: Request, known: Sequence[str]) -> str:
    preset = request.preset or known[0]
    if preset not in known:
        raise InputError(
            what="This task has no such preset.", where=f"--preset {preset}", fix=f"use {' or '.join(known)}"
        )
    return preset


def _result(
    task: str,
    request: Request,
    encoder: Encoder,
    scores: Mapping[str, float],
    items: Sequence[Mapping[str, Any]],
    lists: Sequence[Sequence[LabelledVideo]],
    options: Mapping[str, object],
    notes: Sequence[str] = (),
) -> Result:
    preset = request.preset or (PRESET if task != "finegym" else next(iter(GYM_CLASSES)))
    undefined = [(item["name"], name) for item in items for name in item if _undefined(item[name])]
    kept = [{name: value for name, value in item.items() if not _undefined(value)} for item in items]
    files = [*videos_of(lists), *_list_files(task, request.data, preset)]
    data = {"root": str(request.data), "digest": data_digest(request.data, files), "videos": sum(map(len, lists))}
    clip = ["The CLS token used is CLIP's projected embedding."] if encoder.info.kind == "open_clip" else []
    shared = {"input": f"centre {SIDE} x {SIDE}, not resized", "embedding": "cls, L2-normalised"}
    return Result(
        task=task, preset=preset, encoder=encoder.info.to_json(), scores=scores, items=kept, data=data,
        options=shared | {"fractions": list(FRACTIONS)} | dict(options),
        notes=[*notes, *clip, *(f"{name} has no {score}: not defined there, left out." for name, score in undefined)],
    )  # fmt: skip


def _undefined(value: object) -> bool:
    return isinstance(value, float) and not np.isfinite(value)


def _list_files(task: str, root: Path, preset: str) -> list[Path]:
    names = [f"{preset}_train_v1.0", f"{preset}_val"] if task == "finegym" else ["train", "val"]
    return [root / f"{name}.json" for name in names]
