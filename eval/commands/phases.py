"""Phases of actions: Penn Action, Pouring and FineGym."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from frame.eval.commands.options import Data, Device, EncoderName, Json, Out, PresetName, Weights
from frame.eval.commands.options import finish as _finish
from frame.eval.commands.options import request as _request

Actions = Annotated[str, typer.Option("--sequences", help="Only these actions, with commas between. Default: all 13.")]
Rate = Annotated[float, typer.Option(help="Learning rate of the linear classifier.")]
Epochs = Annotated[int, typer.Option(min=1, help="Epochs of the linear classifier.")]


def penn(
    data: Data, encoder: EncoderName, out: Out, weights: Weights = "", preset: PresetName = "", sequences: Actions = "",
    device: Device = "auto", as_json: Json = False,
) -> None:  # fmt: skip
    """Penn Action: phase classification and progression, Kendall's tau, AP@K; train.json and val.json in --data."""
    from frame.eval.tasks.phases import evaluate_penn

    _finish(partial(evaluate_penn, _request(data, encoder, out, weights, preset, sequences, device)), out, as_json)


def pouring(
    data: Data, encoder: EncoderName, out: Out, weights: Weights = "", preset: PresetName = "",
    device: Device = "auto", as_json: Json = False,
) -> None:  # fmt: skip
    """Pouring: phase classification and progression, Kendall's tau, AP@K; train.json and val.json in --data."""
    from frame.eval.tasks.phases import evaluate_pouring

    _finish(partial(evaluate_pouring, _request(data, encoder, out, weights, preset, "", device)), out, as_json)


def finegym(
    data: Data, encoder: EncoderName, out: Out, weights: Weights = "", preset: PresetName = "gym99",
    rate: Rate = 50.0, epochs: Epochs = 100, device: Device = "auto", as_json: Json = False,
) -> None:  # fmt: skip
    """FineGym (--preset gym99 or gym288): frame accuracy of a linear classifier; the lists as JSON in --data."""
    from frame.eval.metrics.phases import LinearRecipe
    from frame.eval.tasks.phases import evaluate_finegym

    recipe = LinearRecipe(rate=rate, epochs=epochs)
    shared = _request(data, encoder, out, weights, preset, "", device)
    _finish(partial(evaluate_finegym, shared, recipe=recipe), out, as_json)
