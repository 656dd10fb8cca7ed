"""``README.md``: what a cache is, for whoever is handed it without a word, and for dataset hubs.

Pure text of what the cache holds: no host, path or time, so that the same cache has the same card wherever it was made.
It may be written for a cache from strangers; whatever stands in that one's metadata becomes one line of plain text.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from frame.pipeline.store import card_parts, tar_unit
from frame.pipeline.store.card_parts import cell, licence_id, plural, size_category, table
from frame.pipeline.store.columns import FRAMES, Column
from frame.pipeline.store.files import CacheError, ensure_durable, sha256_bytes
from frame.pipeline.store.layout import CARD, FORMAT, CacheMeta
from frame.pipeline.store.objects import side_by_side
from frame.pipeline.store.reader import Cache, open_cache
from frame.pipeline.store.receipts import Receipt, receipt_units
from frame.pipeline.store.totals import column_totals


def card_bytes(cache: Cache) -> bytes:
    """The file's content, from what is committed now. Raises ``CacheError`` for a damaged index."""
    receipts = _receipts(cache)
    parts = [_head(cache), *_sections(cache, receipts)]
    text = ("\n\n".join(parts) + "\n\n").encode()
    return text + _mark(text)


def is_unedited(card: bytes) -> bool:
    """Is it as a program of ours wrote it? A card that somebody has written on is theirs from then on."""
    mark = len(_mark(b""))
    return card[-mark:] == _mark(card[:-mark])


def _mark(text: bytes) -> bytes:
    """The last line, which nobody is shown."""
    return f"<!-- as written by frame-cache: {sha256_bytes(text)} -->\n".encode()


def write_card(cache: Cache, *, tmp: Path) -> None:
    """Write the card, and again where a unit was committed meanwhile: of several builds at work the last to write must
    not be one that had looked first."""
    written = b""
    while (text := card_bytes(open_cache(cache.path))) != written:
        ensure_durable(cache.path / CARD, text, tmp=tmp)
        written = text


def receipts_digest(receipts: Mapping[int, Receipt]) -> str:
    """The sha256 of all receipts' files, one behind the other in the order of their units."""
    digest = hashlib.sha256()
    for _, receipt in sorted(receipts.items()):
        digest.update(receipt.to_bytes())
    return digest.hexdigest()


def _receipts(cache: Cache) -> dict[int, Receipt]:
    """Receipts that commit something; a damaged one does not, and whoever writes a card may not be about to mend it."""

    def committed(unit: int) -> Receipt | None:
        with suppress(CacheError):
            return cache.receipt(unit)
        return None

    units = sorted(set(cache.expected_units) & set(receipt_units(cache.path)))
    found = zip(units, side_by_side(cache.path, committed, units), strict=True)
    return {unit: receipt for unit, receipt in found if receipt is not None}


def _sections(cache: Cache, receipts: Mapping[int, Receipt]) -> Iterable[str]:
    yield _what(cache, receipts)
    yield f"## Contents\n\n{_contents(cache, receipts)}"
    yield f"## Columns\n\n{_columns(cache.meta, receipts)}"
    if cache.meta.teachers:
        yield f"## Teachers\n\n{_teachers(cache.meta)}"
    yield f"## Licence\n\n{_licence(cache.meta)}"
    yield f"## Reading it\n\n{_reading(cache, receipts)}"
    yield f"## Checking it\n\n{_checking(cache.meta, receipts)}"
    yield f"## How it was made\n\n{_making(cache.meta, receipts)}"


def _title(meta: CacheMeta) -> str:
    teachers = ", ".join(meta.teachers)
    return cell(meta.dataset.get("name"), "Videos") + (f": features of {cell(teachers)}" if teachers else "")


def _head(cache: Cache) -> str:
    """The front matter that dataset hubs read. JSON strings are YAML's, too."""
    meta = cache.meta
    known = licence_id(meta.dataset.get("licence"))
    lines = [f"license: {known or 'other'}"]
    lines += [] if known else ["license_name: see-the-section-licence"]
    tags = ["video", "frame-encoder", *(["frames"] if FRAMES in meta.columns else []), *meta.teachers]
    lines += [
        f"pretty_name: {json.dumps(_title(meta))}",
        "size_categories:",
        f"- {size_category(_frames(cache))}",
        "task_categories:",
        "- image-feature-extraction",
        "tags:",
        *(f"- {json.dumps(cell(tag))}" for tag in tags),
        "configs:",
        "- config_name: clips",
        "  data_files: index.parquet",
    ]
    return "\n".join(["---", *lines, "---"])


def _frames(cache: Cache) -> int:
    return int(cache.index.column("n_frames").to_numpy().sum())


def _what(cache: Cache, receipts: Mapping[int, Receipt]) -> str:
    meta = cache.meta
    made = "Pictures and features" if FRAMES in meta.columns else "Features"
    text = (
        f"# {_title(meta)}\n\n{made} of the frames of {plural(cache.index.num_rows, 'clip')} of the data set "
        f"{cell(meta.dataset.get('name'), '(without a name)')}. The features are what frozen image teachers gave for "
        "them, computed once. This is a cache of frame-encoder: its files carry checksums, and a frame that could not "
        "be decoded is named, never made up."
    )
    if len(receipts) < len(cache.expected_units):
        text += f"\n\n**Unfinished:** {len(receipts):,} of {len(cache.expected_units):,} units are committed."
    if "units" in meta.build:
        text += (
            f"\n\n**A part:** {len(cache.expected_units):,} of {meta.units:,} units. `index.parquet` names the clips "
            "of all units; those of the others are not here."
        )
    drawn = [name for name, record in meta.teachers.items() if _get(record, "weights", "origin") == "random"]
    if drawn:
        text += f"\n\n**Random weights:** {cell(', '.join(drawn))}. These features are for trials only."
    return text


def _contents(cache: Cache, receipts: Mapping[int, Receipt]) -> str:
    meta, index = cache.meta, cache.index
    failed = _failed(cache, receipts)
    reasons = ", ".join(f"{cell(reason)} {count:,}" for reason, count in sorted(Counter(failed.values()).items()))
    splits = sorted(Counter(index.column("split").to_pylist()).items(), key=lambda item: str(item[0]))
    labels = len(set(index.column("label").to_pylist()) - {"", None})
    size = sum(entry.bytes for receipt in receipts.values() for entry in receipt.files.values())
    rate, most = _get(meta.sampling, "fps"), _get(meta.sampling, "frames_per_clip")
    return table(
        ("", ""),
        [
            ("clips", f"{index.num_rows:,}" + (f", of which {len(failed):,} failed ({reasons})" if failed else "")),
            ("frames", f"{_frames(cache):,}"),
            ("chosen", (f"{cell(rate)} a second" if rate else "every frame") + (f", {most} a clip" if most else "")),
            ("pictures", f"{cell(_get(meta.geometry, 'size'))} pixels, {cell(_get(meta.geometry, 'fit'))}"),
            ("splits", ", ".join(f"{cell(name, 'none')} {count:,}" for name, count in splits)),
            ("labels", f"{labels:,}"),
            ("units", f"{len(receipts):,}, of up to {meta.rows_per_unit:,} frames"),
            ("store", "Zarr v3, a shard a unit" if meta.store == "zarr" else "tar files for webdataset, one a unit"),
            ("bytes", f"{size:,} in the units' files"),
        ],
    )


def _failed(cache: Cache, receipts: Mapping[int, Receipt]) -> dict[str, str]:
    """Clip -> the reason that it failed for."""
    rowless = cache.index.filter(pc.equal(cache.index.column("n_frames"), 0))
    names, errors = (rowless.column(name).to_pylist() for name in ("clip", "error"))
    found = {name: (error or "").partition(": ")[0] for name, error in zip(names, errors, strict=True)}
    for _, receipt in sorted(receipts.items()):
        found |= {clip: str(failure.reason) for clip, failure in receipt.failed.items()}
    return found


def _columns(meta: CacheMeta, receipts: Mapping[int, Receipt]) -> str:
    rows = []
    for name, column in sorted(meta.columns.items()):
        totals = column_totals(column, receipts)
        loss = [
            "–" if value is None else format(value, spec)
            for value, spec in ((totals.bits, ".2f"), (totals.mean_cosine, ".6f"), (totals.worst_cosine, ".6f"))
        ]
        shape = " × ".join(map(str, column.shape))
        rows.append((f"`{name}`", shape, column.dtype, column.encoding, *loss, f"{totals.rows:,}", f"{totals.bytes:,}"))
    head = ("column", "shape", "read as", "encoding", "bits a value", "mean cosine", "worst cosine", "rows", "bytes")
    return (
        table(head, rows) + "\n\nThe cosines are those of the stored features with the teachers' own in float32. "
        "`shape` is that of a row, which is one frame of one clip, the same in every column."
    )


def _teachers(meta: CacheMeta) -> str:
    rows = [
        (
            f"`{cell(name)}`",
            cell(f"{_get(record, 'library')} {_get(record, 'model')} {_get(record, 'tag')}"),
            cell(_get(record, "weights", "origin"), "–"),
            f"`{cell(_get(record, 'weights', 'sha256'), '–')}`",
            cell(_get(record, "precision"), "–"),
            cell(_get(record, "licence"), "not stated"),
        )
        for name, record in sorted(meta.teachers.items())
    ]
    return table(("teacher", "model", "weights", "sha256 of the weights", "precision", "licence"), rows)


def _licence(meta: CacheMeta) -> str:
    licences = sorted({cell(_get(record, "licence"), "not stated") for record in meta.teachers.values()})
    text = f"The data set's licence: **{cell(meta.dataset.get('licence'), 'not stated')}**\n\n"
    if FRAMES in meta.columns:
        text += (
            "The column `frames` holds the videos' pictures, scaled down: whoever shares this cache shares them, and "
            "may do so only as the data set's licence allows. `frame-cache export CACHE DEST --to zarr --columns …` "
            "makes a copy without them. "
        )
    text += (
        "Features are computed from the videos, and the data set's licence may extend to them. Nothing here grants a "
        "right that the data set's owners do not."
    )
    if licences:
        text += f" The teachers' licences, which may extend to the features as well: {', '.join(licences)}."
    return text


def _reading(cache: Cache, receipts: Mapping[int, Receipt]) -> str:
    column, clip = _example(cache.meta), _first_clip(cache, receipts)
    start, unit = clip
    stop = start + 1
    plain = card_parts.zarr_lines(column, start, stop)
    if cache.meta.store == "webdataset":
        plain = card_parts.tar_lines(column, tar_unit.shard_name(unit, column.part))
    ours = card_parts.our_lines(column, start, stop)
    library = "`zarr` alone" if cache.meta.store == "zarr" else "`webdataset` alone"
    return (
        "`index.parquet` has a row a clip: which rows of the cache are its own, its timestamps, split and label. With "
        f"frame-encoder, every checksum compared:\n\n{ours}\n\nWith {library}, without checks:\n\n{plain}"
        f"\n\n{card_parts.encoding_note(column)}"
    )


def _example(meta: CacheMeta) -> Column:
    """The column to show: one of features, if there is any."""
    return min(meta.columns.values(), key=lambda column: (column.teacher is None, column.name))


def _first_clip(cache: Cache, receipts: Mapping[int, Receipt]) -> tuple[int, int]:
    """A row that can be read, and its unit; the first one if there is none."""
    size = cache.meta.rows_per_unit
    for unit, receipt in sorted(receipts.items()):
        for part in cache.row_map.clips(unit):
            if part.clip not in receipt.failed:
                return unit * size + part.start, unit
    return 0, 0


def _checking(meta: CacheMeta, receipts: Mapping[int, Receipt]) -> str:
    digests = table(
        ("", "sha256"),
        [
            ("plan", f"`{meta.plan_id}`"),
            ("`cache.json`", f"`{sha256_bytes(meta.to_bytes())}`"),
            ("`index.parquet`", f"`{meta.index_sha256}`"),
            ("all receipts", f"`{receipts_digest(receipts)}`"),
        ],
    )
    return (
        f"{digests}\n\n`frame-cache verify CACHE` compares every byte, this page's too. Without it, the table says "
        "what these print; each receipt then names the files of its unit with their sha256:\n\n"
        "    sha256sum cache.json index.parquet\n    cat receipts/*.json | sha256sum"
    )


def _making(meta: CacheMeta, receipts: Mapping[int, Receipt]) -> str:
    asked = [
        (cell(key.replace("_", " ")), cell(value))
        for key, value in sorted(meta.build.items())
        if isinstance(value, str | int | float)
    ]
    software = sorted(
        {
            f"{cell(name)} {cell(version)}"
            for receipt in receipts.values()
            for entry in receipt.columns.values()
            if isinstance(entry.software, dict)
            for name, version in entry.software.items()
        }
    )
    rows = [("program", f"frame-encoder, format {FORMAT} of its caches"), *asked]
    rows += [("with", ", ".join(software))] if software else []
    joined = meta.build.get("merged_from")
    if isinstance(joined, list):
        rows += [("merged of the plans", ", ".join(f"`{cell(_get(item, 'plan'))}`" for item in joined))]
    return table(("", ""), rows)


def _get(value: Any, *keys: str) -> str:
    """The text of what lies under these keys; "" where nothing of one line does."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return str(value) if isinstance(value, str | int | float) else ""
