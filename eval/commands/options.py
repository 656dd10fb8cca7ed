"""The options that all commands share, and how a command ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frame.eval.request import Request

if TYPE_CHECKING:
    from frame.eval.result import Result
    from frame.manifests.progress import Progress

Data = Annotated[Path, typer.Option(help="Folder of the dataset, in its own layout.", show_default=False)]
EncoderName = Annotated[
    str,
    typer.Option(
        "--encoder", help="A run's folder, timm:MODEL, open_clip:MODEL/TAG, a teacher's name, or a hub name.",
        show_default=False,
    ),
]  # fmt: skip
Out = Annotated[Path, typer.Option(help="Folder for result.json and the pictures.", show_default=False)]
Weights = Annotated[str, typer.Option(help="FILE of an image encoder's weights, or `random` for a trial.")]
PresetName = Annotated[str, typer.Option(help="The protocol, with all its knobs.")]
Sequences = Annotated[str, typer.Option(help="Only these, with commas between. Default: the split's.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE: one knob of the preset, changed.")]


def request(data: Path, encoder: str, out: Path, weights: str, preset: str, sequences: str, device: str) -> Request:
    """The shared options as a value."""
    names = tuple(name.strip() for name in sequences.split(",") if name.strip())
    return Request(data=data, encoder=encoder, out=out, weights=weights, preset=preset, sequences=names, device=device)


def finish(evaluate: Callable[[Progress], Result], out: Path, as_json: bool) -> None:
    """Evaluate, keep the result, say what came out."""
    from frame.eval.present.table import result_text
    from frame.manifests.progress import Progress

    result = evaluate(Progress(quiet=as_json))
    path = result.write(out)
    print(result.to_json() if as_json else f"{result_text(result)}\nResult: {path}")
