"""``frame-eval deltas``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frame.eval.commands.options import Json, Out, finish


def deltas(
    data: Annotated[Path, typer.Option(help="A cache that frame-cache has built.", show_default=False)],
    out: Out,
    columns: Annotated[str, typer.Option(help="Only these, with commas between. Default: all features.")] = "",
    most: Annotated[int, typer.Option("--max", min=1, help="The largest delta, in rows of the cache.")] = 16,
    as_json: Json = False,
) -> None:
    """How fast cached features change over time, and which frame deltas that suggests for training."""
    from frame.eval.tasks.deltas import evaluate

    names = [name.strip() for name in columns.split(",") if name.strip()]
    finish(lambda progress: evaluate(data, out=out, columns=names, most=most, progress=progress), out, as_json)
