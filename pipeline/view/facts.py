"""What a cache is and holds, from its metadata, index and receipts; nothing of the columns themselves is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from frame.pipeline.store import Cache, Column
from frame.pipeline.store.receipts import Receipt
from frame.pipeline.view import text

_LABELS = 12  # the largest; the rest is one line
_FAILED = 40  # clips named for each reason
# Stages that share their workers, by the name under which timings count those.
_STAGES = {"decode": ("decode",), "teach": ("resize", "teacher", "encode"), "write": ("write",)}
_WORDS = {"decode": "decoding", "teach": "the teachers", "write": "writing"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Units:
    """Units committed in every column, of those that this cache is meant to have, of those planned."""

    committed: int
    expected: int
    planned: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnFacts:
    """A column: ``bits`` a value and ``stored`` bytes of it in committed files, ``rows`` committed, cosines of stored
    against computed."""

    name: str
    shape: str
    dtype: str
    encoding: str
    bits: float | None
    stored: int
    rows: int
    mean_cosine: float | None
    worst_cosine: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureGroup:
    """Clips that failed for one reason: (clip, detail) of the first, and how many more there are."""

    reason: str
    count: int
    clips: tuple[tuple[str, str], ...]
    more: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCounts:
    """Clips and frames by label (rows) and split (columns). ``others``: labels that are summed up in the last row."""

    splits: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...], int, int], ...]  # label, clips a split, clips, frames
    others: int
    total: tuple[tuple[int, ...], int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeSpent:
    """``stages``: (name, seconds summed over workers, share 0 to 1). ``limit``: in words, the stage whose workers had
    most to do; ``busy``: the share of the time they did it, None where the timings do not tell how many they were."""

    stages: tuple[tuple[str, float, float], ...]
    wall: float
    rows: int
    builds: int
    limit: str
    busy: float | None


def units(cache: Cache, receipts: Mapping[int, Receipt]) -> Units:
    """How far the cache is."""
    wanted = {name: cache.meta.teacher_id(name) for name in cache.columns}
    complete = [
        unit
        for unit in cache.expected_units
        if unit in receipts and all(_current(receipts[unit], name, teacher) for name, teacher in wanted.items())
    ]
    return Units(committed=len(complete), expected=len(cache.expected_units), planned=cache.units)


def _current(receipt: Receipt, column: str, teacher: str) -> bool:
    entry = receipt.columns.get(column)
    return entry is not None and entry.teacher == teacher


def column_facts(cache: Cache, receipts: Mapping[int, Receipt]) -> list[ColumnFacts]:
    """Every column, in the cache's order."""
    return [_column(cache, column, receipts) for column in cache.columns.values()]


def _column(cache: Cache, column: Column, receipts: Mapping[int, Receipt]) -> ColumnFacts:
    teacher = cache.meta.teacher_id(column.name)
    made = [receipt for receipt in receipts.values() if _current(receipt, column.name, teacher)]
    entries = [receipt.columns[column.name] for receipt in made]
    stored, values = (
        sum(_stored(receipt, column) for receipt in made),
        sum(e.rows for e in entries) * prod(column.shape),
    )
    losses = [(entry.rows, entry.loss) for entry in entries if entry.loss and entry.rows]
    rows = sum(count for count, _ in losses)
    return ColumnFacts(
        name=column.name,
        shape=text.shape(column.shape),
        dtype=column.dtype,
        encoding=column.encoding,
        bits=8 * stored / values if values else None,
        stored=stored,
        rows=sum(entry.rows for entry in entries),
        mean_cosine=sum(count * loss["mean_cosine"] for count, loss in losses) / rows if rows else None,
        worst_cosine=min((loss["worst_cosine"] for _, loss in losses), default=None),
    )


def _stored(receipt: Receipt, column: Column) -> int:
    """Bytes of a column in a unit's files: its own file, or its members of a tar that several columns share."""
    arrays = [spec.name for spec in column.arrays(1)]
    total = 0
    for entry in receipt.files.values():
        if column.name in entry.columns:
            members = entry.members
            total += entry.bytes if members is None else sum(m[2] for name in arrays for m in members.get(name, []))
    return total


def failure_groups(cache: Cache) -> list[FailureGroup]:
    """Failed clips by reason, the most frequent first."""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for clip, (reason, detail) in cache.failed().items():
        groups[reason].append((clip, detail))
    return [
        FailureGroup(reason=reason, count=len(clips), clips=tuple(clips[:_FAILED]), more=max(len(clips) - _FAILED, 0))
        for reason, clips in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def label_counts(cache: Cache) -> LabelCounts:
    """Planned clips and frames by label and split; the largest labels first."""
    table = cache.index.select(["label", "split", "n_frames"]).group_by(["label", "split"])
    counted = table.aggregate([("n_frames", "count"), ("n_frames", "sum")]).to_pylist()
    order = {"train": 0, "val": 1, "test": 2}
    splits = tuple(sorted({row["split"] for row in counted}, key=lambda split: (order.get(split, 3), split)))
    labels: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in counted:
        labels[row["label"]].append(row)
    rows = [(label, *_sums(found, splits)) for label, found in labels.items()]
    rows.sort(key=lambda row: (-row[2], row[0]))
    kept, rest = rows, []
    if len(rows) > _LABELS + 1:
        kept, rest = rows[:_LABELS], rows[_LABELS:]
    last = _sums([row for label, *_ in rest for row in labels[label]], splits)
    if rest:
        kept = [*kept, (f"{len(rest):,} more labels", *last)]
    return LabelCounts(splits=splits, rows=tuple(kept), others=len(rest), total=_sums(counted, splits))


def _sums(rows: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> tuple[tuple[int, ...], int, int]:
    clips = tuple(sum(row["n_frames_count"] for row in rows if row["split"] == split) for split in splits)
    return clips, sum(clips), sum(row["n_frames_sum"] for row in rows)


def time_spent(timings: Sequence[Mapping[str, Any]]) -> TimeSpent | None:
    """Where the builds' time went, None without timings. A line may name its ``workers`` by stage."""
    seconds: dict[str, float] = defaultdict(float)
    busy: dict[str, float] = defaultdict(float)
    for line in timings:
        for name, spent in line["seconds"].items():
            seconds[name] += float(spent)
        for group, names in _STAGES.items():
            workers = max(int(line.get("workers", {}).get(group, 1)), 1)
            busy[group] += sum(float(line["seconds"].get(name, 0.0)) for name in names) / workers
    wall = sum(float(line["wall"]) for line in timings)
    total = sum(seconds.values())
    if not total or not wall:
        return None
    limit = max(busy, key=lambda group: busy[group])
    return TimeSpent(
        stages=tuple((name, spent, spent / total) for name, spent in seconds.items()),
        wall=wall,
        rows=sum(int(line["rows"]) for line in timings),
        builds=len(timings),
        limit=_WORDS[limit],
        busy=min(busy[limit] / wall, 1.0) if all("workers" in line for line in timings) else None,
    )


def teacher_names(cache: Cache) -> list[tuple[str, Mapping[str, Any], list[str]]]:
    """Each teacher's name, its record in ``cache.json`` and its columns."""
    return [
        (name, record, [column.name for column in cache.columns.values() if column.teacher == name])
        for name, record in cache.meta.teachers.items()
    ]


def overview(cache: Cache) -> list[tuple[str, str]]:
    """How the cache was made, as (name, value) pairs."""
    meta = cache.meta
    sampling, geometry, build = meta.sampling, meta.geometry, meta.build
    rate = f"{sampling['fps']:g} frames a second" if sampling.get("fps") else "every frame"
    most = sampling.get("frames_per_clip")
    pairs = [
        ("Dataset", str(meta.dataset.get("name", ""))),
        ("Licence", str(meta.dataset.get("licence", ""))),
        ("Sampling", rate + (f", at most {most} a clip" if most else "")),
        ("Geometry", _geometry(geometry)),
        ("Encoding", " from ".join(str(build[key]) for key in ("encoding", "recoded_from") if build.get(key))),
        ("Precision", str(build.get("precision", ""))),
        ("Decoder", str(build.get("decoder", ""))),
        ("Store", f"{meta.store}, {text.plural(meta.rows_per_unit, 'row')} a unit"),
        ("Plan", meta.plan_id[:16]),
    ]
    return [(name, value) for name, value in pairs if value]


def _geometry(geometry: Mapping[str, Any]) -> str:
    if "size" not in geometry:
        return ""
    how = {"crop": "centre crop", "squash": "squashed to a square"}.get(str(geometry.get("fit")), "")
    parts = [f"{geometry['size']} × {geometry['size']} pixels", how, str(geometry.get("resize", ""))]
    return ", ".join(part for part in parts if part)
