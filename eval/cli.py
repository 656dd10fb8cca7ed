"""``frame-eval``: parse, call one function, print. Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted."""

from __future__ import annotations

import sys

import typer

from frame.manifests.command import run_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Measure an encoder as the literature does.",
)


def main() -> None:
    """The console command."""
    run_command(app, "frame-eval", terminated=lambda *_: sys.exit(143))


if __name__ == "__main__":
    main()
