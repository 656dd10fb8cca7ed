"""``frame-eval``: parse, call one function, print. Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted."""

from __future__ import annotations

import sys

import typer

from frame.eval.commands.actions import hmdb51, text, ucf101
from frame.eval.commands.deltas import deltas
from frame.eval.commands.masks import masks
from frame.eval.commands.phases import finegym, penn, pouring
from frame.eval.commands.propagation import davis, jhmdb, vip
from frame.eval.commands.regions import regions
from frame.eval.commands.reports import compare, report
from frame.eval.commands.segmentation import camvid, vspw
from frame.eval.commands.show import show
from frame.eval.commands.sprites import sprites
from frame.manifests.command import run_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Measure an encoder as the literature does.",
)
app.command()(camvid)
app.command()(compare)
app.command()(davis)
app.command()(deltas)
app.command()(finegym)
app.command()(hmdb51)
app.command()(jhmdb)
app.command()(masks)
app.command()(penn)
app.command()(pouring)
app.command()(regions)
app.command()(report)
app.command()(show)
app.command()(sprites)
app.command()(text)
app.command()(ucf101)
app.command()(vip)
app.command()(vspw)


def main() -> None:
    """The console command."""
    run_command(app, "frame-eval", terminated=lambda *_: sys.exit(143))


if __name__ == "__main__":
    main()
