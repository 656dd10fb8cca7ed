"""``frame-eval davis``, ``vip`` and ``jhmdb``: signatures and help."""

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


def vip(
    data: Data,
    encoder: EncoderName,
    out: Out,
    weights: Weights = "",
    preset: PresetName = "siammae",
    changes: Settings = None,
    sequences: Sequences = "",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """VIP: body parts of a first frame carried through its video, mIoU over 20 classes."""
    from frame.eval.tasks.vip import evaluate

    asked = request(data, encoder, out, weights, preset, sequences, device)
    finish(lambda progress: evaluate(asked, changes or [], progress), out, json)


def jhmdb(
    data: Data,
    encoder: EncoderName,
    out: Out,
    weights: Weights = "",
    preset: PresetName = "siammae",
    changes: Settings = None,
    sequences: Sequences = "",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """JHMDB: the joints of a first frame carried through its clip, PCK at 0.1 and 0.2."""
    from frame.eval.tasks.jhmdb import evaluate

    asked = request(data, encoder, out, weights, preset, sequences, device)
    finish(lambda progress: evaluate(asked, changes or [], progress), out, json)
