"""``frame-eval masks``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from frame.eval.commands.options import Data, Json, Out, Sequences, finish


def masks(
    data: Data,
    folder: Annotated[Path, typer.Option("--masks", help="Folder of predicted masks: SEQUENCE/*.png.")],
    out: Out,
    year: Annotated[Literal["2017", "2016"] | None, typer.Option(help="Default: 2016 for masks of 0 and 255.")] = None,
    sequences: Sequences = "",
    as_json: Json = False,
) -> None:
    """J and F of DAVIS masks that are there already, whoever has made them."""
    from frame.eval.tasks.masks import evaluate

    names = tuple(name.strip() for name in sequences.split(",") if name.strip())
    finish(lambda _: evaluate(data, folder, sequences=names, year=year), out, as_json)
