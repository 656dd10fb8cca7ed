"""Pieces of a card: Markdown that no text from a cache can break out of, what hubs call things, and lines of code."""

from __future__ import annotations

import re
from collections.abc import Sequence

from frame.pipeline.store.columns import Column

_MOST = 500  # characters of a text that somebody else chose
# What dataset hubs have a name for; any other licence is `other`, and its text stands on the page.
_LICENCES = re.compile(
    r"apache-2\.0|mit|bsd-[23]-clause|gpl-3\.0|cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[34]\.0|odc-by|odbl|pddl|cdla-permissive-2\.0"
)


def cell(value: object, empty: str = "") -> str:
    """A text as one line that may stand in a table: without Markdown, HTML or control characters of its own."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str("" if value is None else value)).split())
    text = text if len(text) <= _MOST else f"{text[:_MOST]}…"
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;")) or empty


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def licence_id(text: object) -> str:
    """What dataset hubs call this licence, "" if they have no name for it: ``CC BY 4.0`` is ``cc-by-4.0``."""
    name = "-".join(text.lower().split()) if isinstance(text, str) else ""
    return name if _LICENCES.fullmatch(name) else ""


def size_category(rows: int) -> str:
    """The step on the hubs' scale: ``10K<n<100K``."""
    steps = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    if rows < 1000:
        return "n<1K"
    above = min(len(str(rows)) - 4, len(steps) - 1)
    return f"{steps[above]}<n<{steps[above + 1]}" if above + 1 < len(steps) else "n>1T"


def plural(count: int, one: str) -> str:
    """``1 clip``, ``2 clips``."""
    return f"{count:,} {one if count == 1 else one + 's'}"


def our_lines(column: Column, start: int, stop: int) -> str:
    """How to read rows with this package."""
    return _code(
        "from frame.pipeline.store import open_cache",
        'cache = open_cache("CACHE")',
        f'values = cache.read("{column.name}", {start}, {stop})  # {column.dtype} {[stop - start, *column.shape]}',
    )


def zarr_lines(column: Column, start: int, stop: int) -> str:
    """How to read stored rows with zarr."""
    return _code(
        "import zarr",
        'group = zarr.open_group("CACHE", mode="r")',
        f'stored = group["{column.name}"][{start}:{stop}]',
    )


def tar_lines(column: Column, shard: str) -> str:
    """How to read stored rows with webdataset, which lower-cases the names."""
    member = {"raw": "0000.png", "residual": f"{column.name}.0000.blosc"}.get(column.encoding, f"{column.name}.npy")
    return _code(
        "import webdataset",
        f'samples = webdataset.WebDataset("CACHE/{shard}", shardshuffle=False).decode("rgb8")',
        f'stored = {{sample["__key__"]: sample["{member.lower()}"] for sample in samples}}',
    )


def encoding_note(column: Column) -> str:
    """What to do with the stored values of this column."""
    return {
        "raw": "What is stored are the pictures themselves.",
        "float16": "What is stored are the features themselves; columns of other encodings say so above.",
        "int8": f"What is stored are integers: times `{column.name}.scale`, one a token, they are the features.",
        "residual": "What is stored are differences in time of whole steps: docs/encoding.md of frame-encoder, and "
        "docs/format.md with a reader of fifty lines, say how they become features.",
    }[column.encoding]


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])
