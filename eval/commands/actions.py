"""``frame-eval ucf101``, ``hmdb51`` and ``text``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from frame.eval.commands.options import Data, Device, EncoderName, Json, Out, Weights, finish, request

_Preset = Annotated[
    Literal["linear", "zero-shot"], typer.Option("--preset", help="linear (a probe on CLS), or zero-shot (by text).")
]
_Classes = Annotated[str, typer.Option("--sequences", help="Only these classes, with commas between. Default: all.")]
_Split = Annotated[Literal["1", "2", "3", "all"], typer.Option(help="1, 2, 3, or all: the mean of the three.")]
_Side = Annotated[int, typer.Option(help="Pixels of the short side, and of the centre crop.")]
_Memory = Annotated[
    Literal["sampled", "native", "off"],
    typer.Option(help="What a memory holds at a sampled frame: sampled (those before it), native (neighbours), off."),
]
_Tower = Annotated[str, typer.Option(help="open_clip:MODEL/TAG, whose text tower reads the classes.")]
_TowerWeights = Annotated[str, typer.Option(help="FILE of that CLIP's weights, or `random`. Default: the hub.")]
_Templates = Annotated[
    Path | None, typer.Option(help="FILE of prompts, one a line with {label} in it. Default: a person {label}.")
]
_Embeddings = Annotated[Path | None, typer.Option(help="FILE.npz of `frame-eval text`, instead of --text.")]
_Sweep = Annotated[int | None, typer.Option(help="Values of C that the linear probe tries. Default: 45.")]
_Seed = Annotated[int | None, typer.Option(help="Of the cut of train that chooses C. Default: 0.")]


def ucf101(
    data: Data,
    encoder: EncoderName,
    out: Out,
    weights: Weights = "",
    preset: _Preset = "linear",
    sequences: _Classes = "",
    split: _Split = "1",
    side: _Side = 224,
    memory: _Memory = "sampled",
    text: _Tower = "",
    text_weights: _TowerWeights = "",
    templates: _Templates = None,
    text_embeddings: _Embeddings = None,
    sweep: _Sweep = None,
    seed: _Seed = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Recognise the actions of UCF-101."""
    from frame.eval.recognise.class_text import TextSource
    from frame.eval.tasks.actions import ActionOptions, evaluate

    source = TextSource(tower=text, weights=text_weights, templates=templates, embeddings=text_embeddings)
    options = ActionOptions(split=split, side=side, memory=memory, text=source, sweep=sweep, seed=seed)
    asked = request(data, encoder, out, weights, preset, sequences, device)
    finish(lambda progress: evaluate("ucf101", asked, options, progress), out, json)


def hmdb51(
    data: Data,
    encoder: EncoderName,
    out: Out,
    weights: Weights = "",
    preset: _Preset = "linear",
    sequences: _Classes = "",
    split: _Split = "1",
    side: _Side = 224,
    memory: _Memory = "sampled",
    text: _Tower = "",
    text_weights: _TowerWeights = "",
    templates: _Templates = None,
    text_embeddings: _Embeddings = None,
    sweep: _Sweep = None,
    seed: _Seed = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Recognise the actions of HMDB-51."""
    from frame.eval.recognise.class_text import TextSource
    from frame.eval.tasks.actions import ActionOptions, evaluate

    source = TextSource(tower=text, weights=text_weights, templates=templates, embeddings=text_embeddings)
    options = ActionOptions(split=split, side=side, memory=memory, text=source, sweep=sweep, seed=seed)
    asked = request(data, encoder, out, weights, preset, sequences, device)
    finish(lambda progress: evaluate("hmdb51", asked, options, progress), out, json)


def text(
    names: Annotated[Path, typer.Option(help="FILE of class names, one a line (UCF-101's classInd.txt will do).")],
    text: Annotated[str, typer.Option(help="open_clip:MODEL/TAG, whose text tower reads the names.")],
    out: Annotated[Path, typer.Option(help="FILE.npz to write.")],
    text_weights: _TowerWeights = "",
    templates: _Templates = None,
    device: Device = "auto",
) -> None:
    """Write the text embeddings of class names, for --text-embeddings."""
    from frame.eval.recognise.class_text import TextSource, write_text

    source = TextSource(tower=text, weights=text_weights, templates=templates)
    count = write_text(names, source, out, device)
    print(f"{count} names: {out}")
