"""``frame-eval compare`` and ``frame-eval report``: results beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[
    list[Path], typer.Argument(metavar="RESULT…", help="Folders with a result.json, or such files.", show_default=False)
]


def compare(
    results: Results,
    out: Annotated[Path | None, typer.Option(help="Folder for the table as text and Markdown.")] = None,
) -> None:
    """One table of several results of one task; refuses those that measured different things."""
    from frame.eval.present import compare as tables
    from frame.pipeline.view.compare import compare as compared
    from frame.pipeline.view.compare import load

    made = compared(load(results))
    print(tables.as_text(made))
    if out is not None:
        tables.write(made, out)


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="All results below it are taken.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html and report.md.", show_default=False)],
) -> None:
    """One HTML page and a Markdown table of all results in a folder, beside the papers' figures."""
    import sys

    from frame.eval.present.report import write_report

    page, table, lost = write_report(folder, out)
    for line in lost:
        print(f"Not shown: {line}", file=sys.stderr)
    print(f"Page: {page}\nTable: {table}")
