"""What the commands print at their end, for people; the same facts go to ``--json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from frame.pipeline.store import Cache
from frame.pipeline.store.totals import column_totals
from frame.pipeline.store.verify import Report
from frame.pipeline.view.text import duration, plural, size

if TYPE_CHECKING:  # these bring Ray and torch along, which `info` need not wait for
    from frame.pipeline.build import Summary
    from frame.pipeline.encodings import Trial
    from frame.pipeline.estimate import Estimate
    from frame.pipeline.store.merge import Merging


def table(rows: list[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def estimate_text(value: Estimate) -> str:
    """The plan's cost."""
    limit, rate = value.limit
    free = "" if value.free_bytes is None else f", free on that disk: {size(value.free_bytes)}"
    enough = "" if value.free_bytes is None or value.free_bytes > value.bytes else "  NOT ENOUGH"
    rows = [
        ("clips", f"{value.clips:,}" + (f", {value.failed:,} of them cannot be read" if value.failed else "")),
        ("frames", f"{value.rows:,}"),
        ("units", f"{value.units:,} of up to {value.rows_per_unit:,} frames"),
        *((name, size(count)) for name, count in value.column_bytes.items()),
        ("all columns", f"{size(value.bytes)}{free}{enough}"),
        ("decode", f"{value.decode_rate:,.0f} frames/s a core"),
        ("teachers", f"{value.teach_rate:,.1f} frames/s on {value.device}"),
        ("disk", f"{value.write_rate:,.0f} frames/s"),
        ("time here", f"about {duration(value.hours * 3600)} at {rate:,.1f} frames/s, limited by the {limit}"),
    ]
    tried = f"{trials_text(value.trials)}\n" if value.trials else ""
    return f"{tried}The plan:\n{table(rows)}"


def trials_text(trials: Sequence[Trial]) -> str:
    """The encodings that were tried, a table a column; > marks the chosen one."""
    lines = []
    for column in dict.fromkeys(trial.column for trial in trials):
        lines.append(f"{column}, on a sample:  bits a value   mean cosine  worst token")
        indent = len(column)
        for trial in (trial for trial in trials if trial.column == column):
            mark = ">" if trial.chosen else " "
            loss = f"{trial.mean_cosine:11.6f}  {trial.worst_cosine:11.6f}"
            lines.append(f"{mark} {trial.name:<{indent + 13}} {trial.bits:12.2f}  {loss}")
    return "\n".join(lines)


def summary_json(summary: Summary, cache: Cache) -> dict[str, Any]:
    """The outcome of a build, for scripts."""
    return {
        "cache": str(cache.path),
        "units_made": summary.units,
        "units_missing": summary.left,
        "rows": summary.rows,
        "bytes": summary.bytes,
        "clips": summary.clips,
        "clips_failed": len(summary.failed),
        "failed": {clip: {"reason": reason, "detail": detail} for clip, (reason, detail) in summary.failed.items()},
        "repaired": [problem.file for problem in summary.repaired],
        "wall_seconds": summary.wall,
        "start_seconds": summary.start,
        "stage_seconds": dict(summary.seconds),
        "workers": dict(summary.workers),
    }


def summary_text(summary: Summary) -> str:
    """The outcome of a build."""
    rate = summary.rows / (summary.wall - summary.start) if summary.wall > summary.start else 0.0
    good = summary.clips - len(summary.failed)
    rows = [
        ("units", f"{summary.units:,} made" + (f", {summary.left:,} still missing" if summary.left else "")),
        ("frames", f"{summary.rows:,} in {duration(summary.wall)} ({rate:,.1f}/s once started), {size(summary.bytes)}"),
        ("clips", f"{good:,} good, {len(summary.failed):,} failed, {summary.clips:,} in all"),
    ]
    if summary.repaired:
        rows.append(("repaired", f"{len({problem.unit for problem in summary.repaired}):,} units"))
    if summary.wall:
        rows += _where_time_went(summary)
    if summary.left:
        head = "This share is done." if summary.units else "Nothing of this share was missing."
    else:
        head = "Done." if summary.units else "Nothing was missing."
    return f"{head}\n{table(rows)}{_failures(summary.failed)}"


def _where_time_went(summary: Summary) -> list[tuple[str, str]]:
    """Share of each stage's workers' time; the busiest stage is the limit."""
    groups = {"decode": ("decode",), "teach": ("resize", "teacher", "encode"), "write": ("write",)}
    busy = {
        group: sum(summary.seconds.get(name, 0.0) for name in names) / max(summary.workers.get(group, 1), 1)
        for group, names in groups.items()
    }
    shares = ", ".join(f"{name} {duration(seconds)}" for name, seconds in summary.seconds.items())
    group = max(busy, key=lambda name: busy[name])
    use = min(busy[group] / max(summary.wall - summary.start, 1e-9), 1.0)
    return [
        ("time", f"start {duration(summary.start)}; {shares} (summed over workers)"),
        ("limit", f"{group}: its {summary.workers.get(group, 1)} worker(s) were busy {use:.0%} of the time"),
    ]


def _failures(failed: Mapping[str, tuple[str, str]]) -> str:
    if not failed:
        return ""
    lines = [f"  {clip}: {reason}: {detail}" for clip, (reason, detail) in list(failed.items())[:12]]
    if len(failed) > 12:
        counts = Counter(reason for reason, _ in failed.values())
        lines.append(
            f"  … and {len(failed) - 12} more; by reason: {', '.join(f'{k} {n}' for k, n in counts.most_common())}"
        )
    return "\nFailed clips:\n" + "\n".join(lines)


def info_json(cache: Cache) -> dict[str, Any]:
    """What a cache holds, for scripts."""
    meta, index, receipts = cache.meta, cache.index, cache.receipts()
    columns = {}
    for name, column in meta.columns.items():
        totals = column_totals(column, receipts)
        columns[name] = {
            **{key: item for key, item in column.to_json().items() if key not in ("step", "mean")},
            **{key: getattr(totals, key) for key in type(totals).__slots__},
        }
    return {
        "cache": str(cache.path),
        "plan": meta.plan_id,
        "dataset": meta.dataset,
        "sampling": meta.sampling,
        "geometry": meta.geometry,
        "build": meta.build,
        "store": meta.store,
        "rows_per_unit": meta.rows_per_unit,
        "units": len(cache.expected_units),
        "units_committed": len(receipts),
        "bytes": sum(entry.bytes for receipt in receipts.values() for entry in receipt.files.values()),
        "clips": index.num_rows,
        "frames": int(index.column("n_frames").to_numpy().sum()),
        "splits": dict(Counter(index.column("split").to_pylist())),
        "labels": len(set(index.column("label").to_pylist()) - {""}),
        "columns": columns,
        "teachers": meta.teachers,
        "failed": {clip: {"reason": reason, "detail": detail} for clip, (reason, detail) in cache.failed().items()},
    }


def info_text(cache: Cache) -> str:
    """What a cache holds."""
    value = info_json(cache)
    splits = ", ".join(f"{count:,} {name or 'without split'}" for name, count in sorted(value["splits"].items()))
    sampling = value["sampling"]
    rate = f"{sampling['fps']} frames/s" if sampling["fps"] else "every frame"
    most = f", at most {sampling['frames_per_clip']} a clip" if sampling["frames_per_clip"] else ""
    rows = [
        ("dataset", f"{value['dataset']['name']} ({value['dataset']['licence']})"),
        ("clips", f"{value['clips']:,} ({splits}), {value['labels']} labels, {len(value['failed']):,} failed"),
        ("frames", f"{value['frames']:,} of {value['geometry']['size']} px, {value['geometry']['fit']}, {rate}{most}"),
        (
            "units",
            f"{value['units_committed']:,} of {value['units']:,} committed, {size(value['bytes'])}, {value['store']}",
        ),
        *((name, _column_text(column)) for name, column in value["columns"].items()),
        *((f"teacher {name}", _teacher_text(record)) for name, record in value["teachers"].items()),
        ("plan", value["plan"][:16]),
    ]
    return f"{cache.path}\n{table(rows)}{_failures(cache.failed())}"


def recoded_text(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The outcome of ``recode``, from both caches' ``info_json``."""
    share = after["bytes"] / max(before["bytes"], 1)
    rows = [(name, _column_text(column)) for name, column in after["columns"].items()]
    return (
        f"Recoded {after['units_committed']} units to {after['cache']}: {size(before['bytes'])} became "
        f"{size(after['bytes'])} ({share:.0%}).\n{table(rows)}"
    )


def lost_text(lost: Mapping[str, int]) -> list[str]:
    """Frames that a copy in other units had to leave out, a line if there are any."""
    if not lost:
        return []
    named = _few([f"{clip} ({count:,})" for clip, count in lost.items()])
    return [
        f"  left out    {sum(lost.values()):,} frames that share a unit with frames of their clip that failed: {named}"
    ]


def _few(names: Sequence[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:5]) + (f" … and {len(names) - 5:,} more" if len(names) > 5 else "")


def merged_json(merging: Merging) -> dict[str, Any]:
    """What a merge was made of and what it decided, for scripts."""
    return {
        "caches": [str(path) for path in merging.caches],
        "clips": list(merging.clips),
        "taken_once": list(merging.twice),
        "good_one_taken": {
            clip: {"from": str(good), "failed_in": str(bad)} for clip, (good, bad) in merging.won.items()
        },
        "frames_left_out": dict(merging.lost),
        "notes": list(merging.notes),
    }


def merged_text(value: Mapping[str, Any]) -> str:
    """The outcome of ``merge``, from its JSON."""
    merged = value["merged"]
    clips = " + ".join(f"{count:,}" for count in merged["clips"])
    lines = [
        f"Merged {len(merged['caches'])} caches to {value['cache']}: {plural(value['clips'], 'clip')} (of {clips}), "
        f"{value['units_committed']:,} units, {size(value['bytes'])}."
    ]
    if merged["taken_once"]:
        twice = merged["taken_once"]
        lines.append(f"  taken once  {plural(len(twice), 'clip')} that several have alike: {_few(twice)}")
    if merged["good_one_taken"]:
        won = [f"{clip} from {item['from']}" for clip, item in merged["good_one_taken"].items()]
        lines.append(f"  mended      {plural(len(won), 'clip')} that had failed in another: {_few(won)}")
    lines += lost_text(merged["frames_left_out"])
    return "\n".join([*lines, *(f"  note        {note}" for note in merged["notes"])])


def _column_text(column: Mapping[str, Any]) -> str:
    shape = "x".join(map(str, column["shape"]))
    text = f"{shape} {column['encoding']}, {column['rows']:,} rows, {size(column['bytes'])}"
    if not column["mean_cosine"]:
        return text
    cosines = f"cosine mean {column['mean_cosine']:.6f} worst {column['worst_cosine']:.6f}"
    return f"{text}, {column['bits']:.2f} bits a value, {cosines}"


def _teacher_text(record: Mapping[str, Any]) -> str:
    weights = record["weights"]
    warning = "  RANDOM WEIGHTS: for trials only" if weights["origin"] == "random" else ""
    return (
        f"{record['library']} {record['model']}, {weights['origin']} weights {weights['sha256'][:12]}, "
        f"{record['precision']}, {record['licence']}{warning}"
    )


def verify_text(report: Report, cache: Cache) -> str:
    """The outcome of ``verify``."""
    checked = f"{report.units:,} units, {report.files:,} files, {size(report.bytes)} checked."
    if not report.problems:
        return f"Intact: {checked}"
    lines = [f"  {problem.kind:<9} {problem.file}: {problem.detail}" for problem in report.problems[:40]]
    if len(report.problems) > 40:
        lines.append(f"  … and {len(report.problems) - 40} more (--json lists all)")
    what = "DAMAGED" if report.damage else "Unfinished, and intact as far as it goes"
    return f"{what}: {checked}\n" + "\n".join(lines) + f"\n  do: frame-cache build {cache.path}"
