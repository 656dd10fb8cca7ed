"""RUN/curves.png: the losses of a run as they went."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frame.pipeline.store.files import write_durable
from frame.train.run_folder import CURVES

_PANELS = ("patch", "cls", "future_patch", "future_cls")
_TITLES = {
    "patch": "patches",
    "cls": "CLS",
    "future_patch": "future patches",
    "future_cls": "future CLS",
}


def write_curves(run: Path, lines: Sequence[Mapping[str, Any]], *, tmp: Path) -> None:
    """Draw the raw losses, one panel each: every training step, and the validations."""
    # Matplotlib takes a second to import, and must never look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [name for name in _PANELS if any(name in line for line in lines)]
    if not shown:
        return
    figure = Figure(figsize=(4.5 * len(shown), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for kind, style in (("train", {"color": "0.65", "linewidth": 0.8}), ("val", {"color": "C0", "marker": "."})):
            points = [(line["step"], line[name]) for line in lines if line.get("kind") == kind and name in line]
            if points:
                axes.plot(*zip(*points, strict=True), label=kind, **style)
        axes.set_title(f"{_TITLES[name]}, raw loss", fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_durable(run / CURVES, picture.getvalue(), tmp=tmp)
