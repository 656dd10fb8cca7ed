"""J and F of masks that somebody has predicted already, in DAVIS's layout: ``FOLDER/<sequence>/%05d.png``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from frame.eval.data.davis import Year, load_davis
from frame.eval.metrics.davis import total
from frame.eval.metrics.mask_folders import score_folders
from frame.eval.result import Result, data_digest
from frame.manifests.errors import InputError

_ANNOTATIONS = "Annotations/480p"


def evaluate(data: Path, masks: Path, *, sequences: Sequence[str] = (), year: Year | None = None) -> Result:
    """The masks below ``masks`` against the dataset ``data``, at its own size.

    Raises InputError as ``load_davis`` and ``score_folders`` do, and where nothing can be scored.
    """
    known = load_davis(data, sequences, year=year or "auto")
    names = [one.name for one in known.sequences]
    if known.year == "2016" and not all(one.whole for one in known.sequences):
        raise InputError(
            what="These annotations are not DAVIS-2016's.",
            where=str(data / _ANNOTATIONS),
            why="2016 has masks of 0 and 255, one object; here are others, in which 255 may be void",
            fix="use --year 2017, or the annotations of 2016",
        )
    scores = score_folders(masks, data / _ANNOTATIONS, names, binary=known.year == "2016")
    totals = {
        name: value
        for name, value in total([score for objects in scores.values() for score in objects]).items()
        if math.isfinite(value)
    }
    if not totals:
        raise InputError(
            what="Nothing can be scored.",
            where=str(data),
            why="the first and the last annotated frame of a sequence do not count, and no sequence has another one",
        )
    items = [
        {"name": f"{name}/{number}", **{key: value for key, value in one.to_json().items() if math.isfinite(value)}}
        for name, objects in scores.items()
        for number, one in enumerate(objects, start=1)
    ]
    read = [masks / name / path.name for name in names for path in sorted((masks / name).glob("*.png"))]
    return Result(
        task="davis" if known.year == "2017" else "davis2016", preset="masks",
        encoder={
            "name": str(masks), "kind": "masks", "model": "masks as given", "weights": "",
            "digest": data_digest(masks, read),
        },
        scores=totals, items=items, data=known.to_json(), options={}, notes=["Masks as given, of unknown protocol."],
    )  # fmt: skip
