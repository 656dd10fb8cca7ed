"""What each command does: prepare, work, print. Everything heavy is imported where it is used, so that ``--help`` and
``info`` answer at once."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.pipeline.options import BuildOptions, RunOptions
from frame.pipeline.store import open_cache, reopen
from frame.pipeline.store.layout import META
from frame.pipeline.store.local import timings_path
from frame.pipeline.store.objects import StorePath


def _say(text: str, value: dict[str, Any] | list[Any], *, as_json: bool) -> None:
    print(json.dumps(value, indent=1) if as_json else text, flush=True)


def plan_command(options: BuildOptions, *, out: StorePath, as_json: bool) -> None:
    """Print the cost of a build."""
    from frame.pipeline.estimate import estimate
    from frame.pipeline.prepare import plan_cache
    from frame.pipeline.report import estimate_text

    progress = Progress(quiet=as_json)
    planned, teachers, root = plan_cache(options, progress)
    progress.note("measuring decoder, teachers and disk")
    value = estimate(planned, teachers, root, out)
    _say(estimate_text(value), value.to_json(), as_json=as_json)


def build_command(
    *,
    cache: StorePath,
    fresh: BuildOptions | None,
    source: Path | None,
    weights: Sequence[str],
    more_teachers: Sequence[str],
    run: RunOptions,
    as_json: bool,
) -> int:
    """Build, resume, repair or extend; the exit code."""
    from frame.pipeline.build import build
    from frame.pipeline.prepare import create, resume
    from frame.pipeline.report import summary_json, summary_text

    progress = Progress(quiet=as_json)
    try:
        if fresh is not None:
            prepared = create(fresh, cache, progress)
        else:
            prepared = resume(cache, source=source, weights=weights, more_teachers=more_teachers, progress=progress)
        summary = build(prepared, run, progress)
    except KeyboardInterrupt:
        planned = (cache / META).exists()
        todo = f"to go on:\n  frame-cache build {_quoted(cache)}" if planned else "run the same command again."
        progress.note(f"\nInterrupted. Committed units are kept; {todo}")
        raise SystemExit(130) from None
    opened = open_cache(cache)
    _say(summary_text(summary), summary_json(summary, opened), as_json=as_json)
    if summary.failed_share > run.max_failures:
        progress.note(
            f"{summary.failed_share:.1%} of the clips failed, --max-failures allows {run.max_failures:.1%}: exit code 3"
        )
        return 3
    return 0


def _quoted(path: StorePath) -> str:
    import shlex

    text = shlex.quote(str(path))
    return f"-- {text}" if text.startswith("-") else text


def info_command(path: StorePath, *, as_json: bool) -> None:
    """Print what a cache holds."""
    from frame.pipeline.report import info_json, info_text

    cache = open_cache(path)
    _say(info_text(cache), info_json(cache), as_json=as_json)


def verify_command(
    path: StorePath, *, rows: int, source: Path | None, weights: Sequence[str], seed: int, as_json: bool
) -> int:
    """Check a cache; 0 when it is complete and intact."""
    from frame.pipeline.report import verify_text
    from frame.pipeline.store.verify import verify

    progress = Progress(quiet=as_json)
    cache = reopen(path)
    with progress.bar("verifying", total=len(cache.expected_units), unit="units") as tick:
        report = verify(cache, tick=lambda _: tick())
    value: dict[str, Any] = {
        "cache": str(path),
        "intact": not report.problems,
        "units": report.units,
        "files": report.files,
        "bytes": report.bytes,
        "unfinished": list(report.unfinished),
        "problems": [{key: getattr(item, key) for key in type(item).__slots__} for item in report.problems],
    }
    text = verify_text(report, cache)
    wrong = False
    if rows and not report.damage:
        value["against_teacher"], lines, wrong = _against_teacher(path, rows, source, weights, seed, progress)
        text += "\n" + lines
    _say(text, value, as_json=as_json)
    return 1 if report.problems or wrong else 0


def _against_teacher(
    path: StorePath, rows: int, source: Path | None, weights: Sequence[str], seed: int, progress: Progress
) -> tuple[list[dict[str, Any]], str, bool]:
    from frame.pipeline.check_teacher import check_rows
    from frame.pipeline.prepare import resume

    prepared = resume(path, source=source, weights=weights, progress=progress)
    with progress.bar("computing again", total=rows, unit="frames") as tick:
        checks = check_rows(prepared, rows, seed=seed, tick=tick)
    wrong = [check for check in checks if check.wrong]
    values = [{key: getattr(check, key) for key in type(check).__slots__} for check in checks]
    lines = [f"  row {check.row} ({check.clip}, {check.timestamp:.3f} s): {', '.join(check.wrong)}" for check in wrong]
    worst = {
        name: min(check.agreement[name] for check in checks if name in check.agreement)
        for name in prepared.cache.columns
        if prepared.cache.columns[name].teacher and any(check.agreement for check in checks)
    }
    head = f"Against the teachers: {len(checks) - len(wrong)} of {len(checks)} rows agree"
    figures = ", ".join(f"{name} worst cosine {value:.6f}" for name, value in worst.items())
    return values, "\n".join([f"{head}; {figures}" if figures else head, *lines]), bool(wrong)


def export_command(
    path: StorePath,
    destination: StorePath,
    *,
    to: str,
    units: str | None,
    columns: str | None,
    clips: str | None,
    unit_rows: int | None,
    as_json: bool,
) -> None:
    """Copy a cache or a part of it."""
    from frame.pipeline.clip_choice import choose_clips
    from frame.pipeline.report import info_json, lost_text
    from frame.pipeline.store.export import export
    from frame.pipeline.store.repack import plan_repack, repack, require_all_there, survey
    from frame.pipeline.view.text import plural, size

    cache, store = open_cache(path), cast(Literal["zarr", "webdataset"], to)
    names = [name.strip() for name in columns.split(",")] if columns else None
    progress, lost = Progress(quiet=as_json), dict[str, int]()
    with _resumable(progress):
        if clips is None and unit_rows is None:
            chosen = parse_units(units) if units else None
            total = len(chosen if chosen is not None else cache.expected_units)
            with progress.bar("exporting", total=total, unit="units") as tick:
                copy = export(cache, destination, to=store, units=chosen, columns=names, tick=tick)
        else:
            _refuse_units(units)
            picked = None if clips is None else choose_clips(clips, cache.index.column("clip").to_pylist())
            packing = plan_repack(cache, to=store, clips=picked, columns=names, rows_per_unit=unit_rows)
            require_all_there(found := survey(packing), cache)
            lost = found.lost
            with progress.bar("exporting", total=len(packing.units), unit="units") as tick:
                copy = repack(destination, packing, tick=tick)
    value = {**info_json(copy), "frames_left_out": lost}
    packed = "" if clips is None and unit_rows is None else f"{plural(value['clips'], 'clip')} packed anew into "
    text = f"Exported {packed}{value['units_committed']} units, {size(value['bytes'])}, to {destination}."
    _say("\n".join([text, *lost_text(lost)]), value, as_json=as_json)


def _refuse_units(units: str | None) -> None:
    if units is not None:
        raise InputError(
            what="--units cannot be joined with --clips or --unit-rows.",
            where=f"--units {units}",
            why="clips are packed anew into other units, in which these numbers mean nothing",
            fix="Give one or the other; what has been exported with --units can be exported again with --clips.",
        )


@contextlib.contextmanager
def _resumable(progress: Progress) -> Iterator[None]:
    """Say on Ctrl-C what becomes of a copy that was begun."""
    try:
        yield
    except KeyboardInterrupt:
        progress.note("\nInterrupted. What is finished is kept: run the same command again to go on.")
        raise SystemExit(130) from None


def merge_command(destination: StorePath, paths: Sequence[StorePath], *, to: str | None, as_json: bool) -> None:
    """Join caches that were built apart."""
    from frame.pipeline.report import info_json, merged_json, merged_text
    from frame.pipeline.store.merge import plan_merge
    from frame.pipeline.store.repack import repack

    progress = Progress(quiet=as_json)
    store = cast(Literal["zarr", "webdataset"] | None, to)
    with _resumable(progress):
        caches = [open_cache(path) for path in paths]
        total = sum(cache.index.num_rows for cache in caches)
        with progress.bar("comparing", total=total, unit="clips") as tick:
            merging = plan_merge(caches, destination, to=store, tick=tick)
        with progress.bar("merging", total=len(merging.packing.units), unit="units") as tick:
            copy = repack(destination, merging.packing, tick=tick)
    value = {**info_json(copy), "merged": merged_json(merging)}
    _say(merged_text(value), value, as_json=as_json)


def recode_command(path: StorePath, destination: StorePath, *, encoding: str, to: str | None, as_json: bool) -> None:
    """Write a cache in another encoding."""
    from frame.pipeline.recode import plan_recoding, recode
    from frame.pipeline.report import info_json, recoded_text, trials_text

    cache = open_cache(path)
    progress = Progress(quiet=as_json)
    store = cast(Literal["zarr", "webdataset"] | None, to)
    with _resumable(progress):
        planned = plan_recoding(cache, destination, encoding, to=store, progress=progress)
        if planned.trials:
            progress.note(trials_text(planned.trials))
        with progress.bar("recoding", total=len(cache.expected_units), unit="units") as tick:
            copy = recode(cache, destination, planned, tick=tick)
    value = info_json(copy)
    _say(recoded_text(info_json(cache), value), value, as_json=as_json)


def parse_units(text: str) -> list[int]:
    """``0,3,8-15`` -> unit numbers."""
    found: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or (dash and int(high) < int(low)):
            raise InputError(what=f"--units {text} makes no sense.", where=part, fix="numbers and ranges: 0,3,8-15")
        found |= set(range(int(low), int(high or low) + 1))
    return sorted(found)


def view_command(
    path: StorePath, *, out: Path, clips: int, seed: int, runs: Sequence[Path] = (), results: Sequence[Path] = ()
) -> None:
    """Write the HTML page; say which results are not on it."""
    from frame.pipeline.view import render_view

    lost = render_view(
        open_cache(path), out, clips=clips, seed=seed, timings=_timings(path), runs=runs, results=results
    )
    for line in lost:
        print(f"Not shown: {line}", file=sys.stderr)
    print(f"Wrote {out}.")


def _timings(path: StorePath) -> list[dict[str, Any]]:
    """The timings of the builds on this machine, a line each; a line torn by a kill tells nothing."""
    file = timings_path(path)
    found = []
    for line in file.read_text().splitlines() if file.is_file() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def datasets_command() -> None:
    """List the known data sets."""
    from frame.manifests.load import dataset_names, describe

    for name in dataset_names():
        dataset = describe(name)
        print(f"{name:<10} {dataset.title}: {dataset.licence}")


def sprites_command(out: Path, *, clips: int, frames: int, size: int, seed: int) -> None:
    """Generate the sprites videos."""
    from frame.manifests.sprites import generate_sprites

    with Progress().bar("drawing", total=clips, unit="clips") as tick:
        generate_sprites(out, clips=clips, frames=frames, size=size, seed=seed, progress=lambda _done, _total: tick())
    print(f"Wrote {clips} clips of {frames} frames to {out}.")
