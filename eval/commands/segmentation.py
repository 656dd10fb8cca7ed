"""``camvid`` and ``vspw``: signatures and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from frame.eval.commands.options import Data, Device, EncoderName, Json, Out, Sequences, Weights, finish, request

Deltas = Annotated[
    str, typer.Option(help="Frame numbers from the input to the label, with commas; 0 (current) is always among them.")
]
Head = Annotated[Literal["linear", "unet"], typer.Option(help="linear: batch norm and a 1x1 convolution; or a U-Net.")]
Schedule = Annotated[str, typer.Option(help="full (40,000 iterations), short (1,000), or a number of iterations.")]
InputSize = Annotated[str, typer.Option("--size", help="ROWSxCOLUMNS of the input in pixels, or native.")]
Features = Annotated[
    Path | None, typer.Option(help="Folder where features are kept and found again. Default: OUT/features.")
]
Store = Annotated[Literal["float16", "float32"], typer.Option(help="How features are kept.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the head, the order and the crops.")]


def camvid(
    data: Data,
    encoder: EncoderName,
    out: Out,
    weights: Weights = "",
    sequences: Sequences = "",
    split: Annotated[Literal["test", "val"], typer.Option(help="What to score; training is always on train.")] = "test",
    deltas: Deltas = "0",
    head: Head = "linear",
    schedule: Schedule = "full",
    size: InputSize = "360x480",
    videos: Annotated[
        Path | None, typer.Option(help="Folder of the raw videos, for the true past. Default: stills only.")
    ] = None,
    first: Annotated[
        list[str] | None, typer.Option(help="NAME=N: the raw number of a raw video's first frame, if not 0.")
    ] = None,
    features: Features = None,
    store: Store = "float16",
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """CamVid: linear segmentation of the current and of future frames, mIoU over 11 classes (SegNet's labels)."""
    from frame.eval.tasks import segmentation as task

    options = task.HeadOptions(
        deltas=task.parse_deltas(deltas), head=head, schedule=schedule, size=task.parse_size(size), features=features,
        stored=store, seed=seed,
    )  # fmt: skip
    asked = request(data, encoder, out, weights, "", sequences, device)
    numbers = task.parse_first(first or [])
    finish(
        lambda progress: task.camvid(asked, options, progress, split=split, videos=videos, first=numbers), out, as_json
    )


def vspw(
    data: Data,
    encoder: EncoderName,
    out: Out,
    weights: Weights = "",
    sequences: Sequences = "",
    split: Annotated[Literal["val", "test"], typer.Option(help="What to score; training is always on train.")] = "val",
    train_every: Annotated[int, typer.Option(min=1, help="Train on one of so many labelled frames.")] = 7,
    deltas: Deltas = "0",
    head: Head = "linear",
    schedule: Schedule = "full",
    size: InputSize = "native",
    features: Features = None,
    store: Store = "float16",
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """VSPW: linear segmentation of the current and of future frames, mIoU by both conventions, and VC8 and VC16."""
    from frame.eval.tasks import segmentation as task

    options = task.HeadOptions(
        deltas=task.parse_deltas(deltas), head=head, schedule=schedule, size=task.parse_size(size), features=features,
        stored=store, seed=seed,
    )  # fmt: skip
    asked = request(data, encoder, out, weights, "", sequences, device)
    finish(lambda progress: task.vspw(asked, options, progress, split=split, train_every=train_every), out, as_json)
