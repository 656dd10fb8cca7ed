"""``frame-eval davis``: signature and help."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from frame.eval.commands.options import (
    Data,
    Device,
    EncoderName,
    Json,
    Out,
    PresetName,
    Sequences,
    Settings,
    Weights,
    finish,
    request,
)

YearName = Annotated[
    Literal["auto", "2017", "2016"],
    typer.Option(help="2016: one object a sequence. auto: 2016 where the masks are 0 and 255."),
]


def davis(
    data: Data,
    encoder: EncoderName,
    out: Out,
    weights: Weights = "",
    preset: PresetName = "dino",
    changes: Settings = None,
    year: YearName = "auto",
    sequences: Sequences = "",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """DAVIS: the objects of a first frame carried through its sequence, J and F."""
    from frame.eval.tasks.davis import evaluate

    asked = request(data, encoder, out, weights, preset, sequences, device)
    finish(lambda progress: evaluate(asked, changes or [], progress, year=year), out, json)
