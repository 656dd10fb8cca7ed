"""``frame-eval sprites``."""

from __future__ import annotations

from typing import Annotated

import typer

from frame.eval.commands.options import Data, Device, EncoderName, Json, Out, PresetName, Sequences, Weights, finish
from frame.eval.commands.options import request as shared


def sprites(
    data: Data,
    encoder: EncoderName,
    out: Out,
    weights: Weights = "",
    preset: PresetName = "dino",
    sequences: Sequences = "",
    schedule: Annotated[
        str, typer.Option(help="Of the linear head: full, short, or a number of iterations.")
    ] = "short",
    seed: Annotated[int, typer.Option(help="Of the linear head.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Generated videos of `frame-cache sprites`: objects and keypoints propagated, shapes segmented linearly."""
    from frame.eval.tasks.sprites import evaluate

    asked = shared(data, encoder, out, weights, preset, sequences, device)
    finish(lambda progress: evaluate(asked, progress, schedule=schedule, seed=seed), out, as_json)
