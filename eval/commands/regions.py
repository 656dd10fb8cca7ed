"""``frame-eval regions``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from frame.eval.commands.options import Data, Device, EncoderName, Json, Out, Sequences, Weights, finish, request


def regions(
    data: Data,
    encoder: EncoderName,
    out: Out,
    proposals: Annotated[
        str,
        typer.Option(
            help="Folder of masks (SEQUENCE/FRAME.png or .json), sam:FOLDER with SAM's weights, or slic (superpixels).",
            show_default=False,
        ),
    ],
    reference: Annotated[
        Literal["first", "previous", "ema"], typer.Option(help="What a region is compared with, for the headline.")
    ] = "previous",
    weights: Weights = "",
    sequences: Sequences = "",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """DAVIS: objects tracked as whole regions, by pooled features of mask proposals."""
    from frame.eval.tasks.regions import evaluate

    asked = request(data, encoder, out, weights, "", sequences, device)
    finish(lambda progress: evaluate(asked, proposals=proposals, reference=reference, progress=progress), out, as_json)
