"""``frame-eval show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frame.eval.commands.options import Device


def show(
    out: Annotated[Path, typer.Option(help="Folder for show.png and show.mp4.", show_default=False)],
    encoder: Annotated[
        list[str] | None, typer.Option(help="Whose features to show; may be repeated. See `davis`.")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="A video file.")] = None,
    frames: Annotated[Path | None, typer.Option(help="Or a folder of frames.")] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="FILE or `random`; NAME=FILE where there are several encoders.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of id maps (PNG) to lay over the frames.")] = None,
    size: Annotated[int, typer.Option(min=1, help="Shorter side of the frames in pixels.")] = 448,
    most: Annotated[int, typer.Option(min=1, help="How many frames at most, from the first one.")] = 64,
    device: Device = "auto",
) -> None:
    """Features of a clip as colours, encoders beside each other, and masks over its frames, as PNG and MP4."""
    from frame.eval.present.show import show as make
    from frame.manifests.errors import InputError
    from frame.manifests.progress import Progress

    if (video is None) == (frames is None):
        raise InputError(what="It is not clear what to show.", fix="give either --video FILE or --frames DIR")
    source = video or frames
    assert source is not None
    for path in make(
        source, encoders=encoder or [], weights=weights or [], masks=masks, size=size, most=most, device=device,
        out=out, progress=Progress(),
    ):  # fmt: skip
        print(path)
