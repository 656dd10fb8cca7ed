"""One vector a video: the CLS tokens of a few of its frames, seen by an encoder with the past that it is given.

F frames of a video, D width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from frame.eval.data.video_frames import VideoFrames, read_videos, segment_centres
from frame.eval.encoder import Encoder
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.pipeline.decode import ClipError

Past = Literal["sampled", "native", "off"]
FRAMES = 8
_PROCESSES = 8  # decoders at a time, at the most: more do not make an encoder faster


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """``past``: what an encoder's memory holds at a sampled frame. ``sampled``: the sampled frames before it, seconds
    apart; ``native``: the video's own frames just before it; ``off``: nothing. An encoder without memory has no use
    for it: see ``require_memory``."""

    side: int
    past: Past


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """Frames that go through an encoder as one sequence; of the last ``kept`` the CLS tokens are wanted."""

    numbers: tuple[int, ...]
    kept: int


def require_memory(past: Past, encoder: Encoder) -> None:
    """Raise InputError for a past other than the default where it would do nothing: an encoder without memory.

    Its results carry the default like those of an encoder with memory, so that the two stand in one table.
    """
    if not encoder.info.memory and past != "sampled":
        raise InputError(
            what="This encoder has no memory.", where=f"--memory {past}",
            why=f"{encoder.info.name} sees each frame by itself", fix="leave the option out",
        )  # fmt: skip


def plan_streams(count: int, sampling: Sampling, memory: int) -> list[Stream]:
    """Which frames of a video of ``count`` frames go through an encoder that looks at ``memory`` past frames."""
    centres = segment_centres(count, FRAMES)
    if sampling.past == "sampled" or memory == 0:
        return [Stream(numbers=tuple(centres), kept=len(centres))]
    before = memory if sampling.past == "native" else 0
    return [Stream(numbers=tuple(range(max(0, centre - before), centre + 1)), kept=1) for centre in centres]


def cls_tokens(
    names: Sequence[str], folder: Path, encoder: Encoder, sampling: Sampling, progress: Progress
) -> Iterator[tuple[str, Tensor | ClipError]]:
    """For each video: CLS tokens [F, D] on the encoder's device, or why it cannot be read. In the order of ``names``.

    Raises InputError for a side that is no whole number of patches, and for tokens that are not finite.
    """
    memory = encoder.info.memory
    if sampling.side < 1 or sampling.side % encoder.info.patch:
        patch = encoder.info.patch
        raise InputError(
            what=f"Frames of {sampling.side} pixels are no whole number of patches.", where=f"--side {sampling.side}",
            why=f"patches of {encoder.info.name} have {patch} pixels",
            fix=f"use {max(1, round(224 / patch)) * patch}",
        )  # fmt: skip

    def wanted(count: int) -> list[int]:
        return [number for stream in plan_streams(count, sampling, memory) for number in stream.numbers]

    processes = min(os.cpu_count() or 1, _PROCESSES)
    videos = read_videos([folder / name for name in names], wanted, side=sampling.side, processes=processes)
    with progress.bar("features", total=len(names), unit="videos") as tick:
        for name, video in zip(names, videos, strict=True):
            yield name, video if isinstance(video, ClipError) else _cls(video, encoder, sampling, name)
            tick()


def _cls(video: VideoFrames, encoder: Encoder, sampling: Sampling, name: str) -> Tensor:
    found: list[Tensor] = []
    for stream in plan_streams(video.count, sampling, encoder.info.memory):
        tokens = [tokens.cls for tokens in encoder.stream([video.pictures[number] for number in stream.numbers])]
        found += tokens[-stream.kept :]
    cls_FD = torch.stack(found)
    if not bool(torch.isfinite(cls_FD).all()):
        raise InputError(
            what="The encoder gives values that are not finite.", where=name, fix="check the encoder's weights"
        )
    return cls_FD
