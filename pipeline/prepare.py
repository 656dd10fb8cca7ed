"""From a request to an open cache and the teachers to fill it: created, resumed, repaired, or given another teacher."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from frame.manifests.errors import InputError
from frame.manifests.load import load_manifest
from frame.manifests.progress import Progress
from frame.pipeline.decode import DecodeCage
from frame.pipeline.encoding_option import parse_encoding
from frame.pipeline.encodings import Trial, settle
from frame.pipeline.options import BuildOptions, options_of, require_same
from frame.pipeline.plan import Plan, frames_column, make_plan, probe_clips
from frame.pipeline.repair import repair_metadata
from frame.pipeline.report import trials_text
from frame.pipeline.sample import sample_features
from frame.pipeline.store import Cache, open_cache, reopen
from frame.pipeline.store.columns import FRAMES, Column
from frame.pipeline.store.files import exclusive, make_root, writer_folder
from frame.pipeline.store.layout import INDEX, META, META_COPY, CacheMeta
from frame.pipeline.store.local import LocalFacts, read_facts, write_facts
from frame.pipeline.store.object_writer import claim_place
from frame.pipeline.store.objects import ObjectPath, StorePath
from frame.pipeline.store.writer import with_metadata, write_metadata
from frame.pipeline.teach import TeacherPlan, load_recorded, teacher_columns
from frame.pipeline.teachers import TeacherSpec, WeightSource, load_teacher, parse_weights, resolve_all


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An open cache, where its sources lie, and the plan of its teachers."""

    cache: Cache
    source: Path
    teachers: TeacherPlan


def plan_cache(options: BuildOptions, progress: Progress) -> tuple[Plan, TeacherPlan, Path]:
    """Probe the clips and lay out the rows; writes nothing. The last item is the folder that sources lie in."""
    manifest = load_manifest(
        options.dataset, options.source, seed=options.seed, per_class=options.per_class, limit=options.limit
    )
    for note in manifest.notes:
        progress.note(note)
    specs = tuple(resolve_all(options.teachers, size=options.size, fit=options.fit))
    weights = parse_weights(options.weights, specs)
    with DecodeCage() as cage:
        cage.check(options.decoder)
    records = _records(specs, weights, options, progress)
    with progress.bar("probing", total=len(manifest.rows), unit="clips") as tick:
        probes = probe_clips(manifest.rows, manifest.root, processes=os.cpu_count() or 1, tick=tick)
    plan = make_plan(
        options,
        manifest.rows,
        probes,
        columns={FRAMES: frames_column(options.size), **teacher_columns(specs)},
        teachers=records,
        licence=manifest.dataset.licence,
    )
    columns, trials = _settle(plan.meta, plan.index, specs, weights, manifest.root, progress)
    plan = replace(plan, meta=replace(plan.meta, columns=columns), trials=tuple(trials))
    return plan, _teacher_plan(plan.meta, specs, weights), manifest.root


def _settle(
    meta: CacheMeta,
    index: pa.Table,
    specs: Sequence[TeacherSpec],
    weights: Mapping[str, WeightSource],
    source: Path,
    progress: Progress,
) -> tuple[dict[str, Column], list[Trial]]:
    """The columns of ``meta`` in the encoding that was asked for; where that depends on the features, of a sample."""
    asked = parse_encoding(meta.build["encoding"])
    sample = {}
    if asked.needs_sample:
        sample = sample_features(index, meta, _teacher_plan(meta, specs, weights), source, progress)
    return settle(meta.columns, asked, sample)


def _records(
    specs: Sequence[TeacherSpec], weights: Mapping[str, WeightSource], options: BuildOptions, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Load each teacher once, on the processor, for the digest of its weights: no plan without the right weights."""
    records = {}
    with progress.bar("loading teachers", total=len(specs), unit="teachers") as tick:
        for spec in specs:
            teacher = load_teacher(spec, weights=weights[spec.name], device="cpu", precision=options.precision)
            records[spec.name] = teacher.record()
            tick()
    return records


def _teacher_plan(meta: CacheMeta, specs: Sequence[TeacherSpec], weights: Mapping[str, WeightSource]) -> TeacherPlan:
    return TeacherPlan(
        specs=tuple(specs),
        # Workers have working folders of their own.
        weights={
            name: replace(item, file=item.file.absolute()) if item.file else item for name, item in weights.items()
        },
        records=meta.teachers,
        precision=meta.build["precision"],
        columns=meta.columns,
        size=meta.geometry["size"],
        fit=meta.geometry["fit"],
    )


def create(options: BuildOptions, out: StorePath, progress: Progress) -> Prepared:
    """Plan a new cache and write its metadata. An existing one under the same options is resumed instead.

    Of several builds started at once (the tasks of a batch array), one plans and the others wait for it.
    """
    if not _exists(out):
        _require_free(out)
        try:
            make_root(out)
        except OSError as error:
            raise InputError(what="The cache's folder cannot be made.", where=str(out), why=str(error)) from error
        try:
            with exclusive(out, waiting=lambda: progress.note("another build plans this cache: waiting for it")):
                if not _exists(out):
                    return _create(options, out, progress)
        except InputError:
            with contextlib.suppress(OSError):
                out.rmdir()  # a request that could not be met leaves no empty folder
            raise
    cache = reopen(out)
    require_same(cache.meta, options, cache=out)
    _require_same_clips(cache, options)
    _require_same_teachers(cache.meta, options, out)
    return resume(out, source=options.source, weights=options.weights, progress=progress)


def _exists(out: StorePath) -> bool:
    if (out / META).exists():
        return True
    # In an object store the copy comes first: it says that somebody plans a cache here, or died over it.
    return isinstance(out, Path) and (out / META_COPY).exists()


def _create(options: BuildOptions, out: StorePath, progress: Progress) -> Prepared:
    plan, teachers, root = plan_cache(options, progress)
    if plan.trials:
        progress.note(trials_text(plan.trials))
    meta, files = with_metadata(plan.meta)
    if isinstance(out, ObjectPath):
        claim_place(out, meta)
    with writer_folder(out) as tmp:
        write_metadata(out, meta, files, plan.index_file, tmp=tmp)
    _remember(out, options.source, teachers.weights)
    return Prepared(cache=open_cache(out), source=root, teachers=teachers)


def _require_free(out: StorePath) -> None:
    foreign = [path.name for path in out.iterdir() if path.name != "tmp"] if out.is_dir() else []
    # What a build that was killed while planning leaves behind is ours; anything else is somebody's.
    foreign = [
        name
        for name in foreign
        if name not in (INDEX, META_COPY, "zarr.json") and not (out / name / "zarr.json").exists()
    ]
    if foreign or (out.exists() and not out.is_dir()):
        raise InputError(
            what="The output exists and is not a cache.",
            where=str(out),
            why=f"it holds {', '.join(sorted(foreign)[:5])}" if foreign else "it is a file",
            fix="Give --out a new or empty folder.",
        )


def _require_same_clips(cache: Cache, options: BuildOptions) -> None:
    rows = load_manifest(
        options.dataset, options.source, seed=options.seed, per_class=options.per_class, limit=options.limit
    ).rows
    have, found = set(cache.index.column("clip").to_pylist()), {row.clip for row in rows}
    if have != found:
        more, fewer = sorted(found - have), sorted(have - found)
        raise InputError(
            what="The source folder no longer holds the clips this cache was planned with.",
            where=str(options.source),
            why=f"{len(more)} new ({', '.join(more[:3])}), {len(fewer)} gone ({', '.join(fewer[:3])})",
            fix=f"`frame-cache build {cache.path}` resumes the old plan; for the new clips use another --out.",
        )


def _require_same_teachers(meta: CacheMeta, options: BuildOptions, out: StorePath) -> None:
    specs = resolve_all(options.teachers, size=options.size, fit=options.fit)
    _require_no_namesake(meta, specs, out)
    asked = {spec.name for spec in specs}
    if asked - meta.teachers.keys():
        missing = ",".join(sorted(asked - meta.teachers.keys()))
        raise InputError(
            what=f"This cache was planned without {missing}.",
            where=str(out),
            why=f"it has {', '.join(sorted(meta.teachers))}",
            fix=f"`frame-cache build {out} --teachers {missing}` adds columns to it.",
        )
    for name, source in parse_weights(options.weights, specs).items():
        origin = meta.teachers[name]["weights"]["origin"]
        if source.origin != origin:
            raise InputError(
                what=f"This cache was planned with other weights of {name!r}.",
                where=str(out),
                why=f"cache: {origin}, asked: {source.origin}",
                fix=f"`frame-cache build {out}` goes on with the weights it was planned with.",
            )


def _require_no_namesake(meta: CacheMeta, specs: Sequence[TeacherSpec], cache: StorePath) -> None:
    """Refuse a teacher that is another one than the cache has under the same name."""
    for spec in specs:
        record = meta.teachers.get(spec.name)
        if record is None:
            continue
        differing = [
            f"{key}: cache {record[key]}, asked {getattr(spec, key)}"
            for key in ("library", "model", "tag")
            if record[key] != getattr(spec, key)
        ]
        if differing:
            raise InputError(
                what=f"The cache has another teacher under the name {spec.name!r}.",
                where=str(cache),
                why="; ".join(differing),
                fix="Give the new one a name of its own: --teachers ALIAS=SPEC.",
            )


def resume(
    path: StorePath,
    *,
    progress: Progress,
    source: Path | None = None,
    weights: Sequence[str] = (),
    more_teachers: Sequence[str] = (),
) -> Prepared:
    """Open a cache to complete or repair it, with ``more_teachers`` added as new columns first."""
    cache = reopen(path)
    facts = read_facts(path)
    given = source or facts.source
    if given is None or not given.exists():
        raise InputError(
            what="The source videos of this cache are not where they were."
            if given
            else "Where are the source videos?",
            where=str(given or path),
            why="" if given else "this cache was not built on this machine, or the file beside it is gone",
            fix=f"frame-cache build {path} --source DIR",
        )
    repair_metadata(cache, given, progress)
    meta = cache.meta
    known = resolve_all(
        [record["requested"] for record in meta.teachers.values()], size=meta.geometry["size"], fit=meta.geometry["fit"]
    )
    asked = resolve_all(more_teachers, size=meta.geometry["size"], fit=meta.geometry["fit"]) if more_teachers else []
    _require_no_namesake(meta, asked, path)
    new = [spec for spec in asked if spec.name not in meta.teachers]
    sources = _weights_of(meta, known, new, facts, weights)
    _require_same_weights(meta, [spec for spec in known if _named(spec, weights)], sources)
    # A list of clips names files relative to its own folder.
    root = given.parent if given.is_file() else given
    if new:
        cache = _add_teachers(cache, new, sources, root, progress)
    _remember(path, given, sources)
    return Prepared(cache=cache, source=root, teachers=_teacher_plan(cache.meta, [*known, *new], sources))


def _require_same_weights(meta: CacheMeta, specs: Sequence[TeacherSpec], sources: Mapping[str, WeightSource]) -> None:
    """Given the weights of a column that is there, say if they are others: a run folder's change when training goes on.

    With nothing left to make, nobody else would load them, and the old column would be taken for the new one.
    """
    for spec in specs:
        record = meta.teachers[spec.name]
        load_recorded(spec, weights=sources[spec.name], record=record, precision=meta.build["precision"])


def _weights_of(
    meta: CacheMeta, known: list[TeacherSpec], new: list[TeacherSpec], facts: LocalFacts, options: Sequence[str]
) -> dict[str, WeightSource]:
    """Where each teacher's weights come from: what was said now, else what was said when the cache was made."""
    sources = parse_weights(options, [*known, *new])
    for spec in known:
        origin = meta.teachers[spec.name]["weights"]["origin"]
        if _named(spec, options):
            continue
        if origin == "file":
            sources[spec.name] = WeightSource(origin="file", file=_remembered_file(spec, facts))
        else:
            sources[spec.name] = WeightSource(origin=origin)
    return sources


def _named(spec: TeacherSpec, options: Sequence[str]) -> bool:
    """Does a ``--weights`` option name this teacher?"""
    return any(option.startswith((f"{spec.name}=", f"{spec.requested}=")) for option in options)


def _remembered_file(spec: TeacherSpec, facts: LocalFacts) -> Path:
    file = facts.weights.get(spec.name)
    if file is None or not file.is_file():
        raise InputError(
            what=f"The weights of {spec.name!r} are needed again.",
            where=str(file) if file else "",
            why="the file is gone" if file else "this cache was not built on this machine",
            fix=f"--weights {spec.name}=FILE",
        )
    return file


def _remember(path: StorePath, source: Path, weights: Mapping[str, WeightSource]) -> None:
    files = {name: item.file for name, item in weights.items() if item.file is not None}
    write_facts(path, LocalFacts(source=source, weights=files))


def _add_teachers(
    cache: Cache, new: list[TeacherSpec], weights: Mapping[str, WeightSource], source: Path, progress: Progress
) -> Cache:
    options = options_of(cache.meta, Path())
    records = _records(new, weights, options, progress)
    added: dict[str, Column] = {}
    for spec in new:
        added |= teacher_columns([spec], part=spec.name)
    planned = replace(cache.meta, columns=added, teachers={**cache.meta.teachers, **records})
    added, trials = _settle(planned, cache.index, new, weights, source, progress)
    if trials:
        progress.note(trials_text(trials))
    with exclusive(cache.path):
        meta = reopen(cache.path).meta
        columns = {**meta.columns, **added}
        grown, files = with_metadata(replace(meta, columns=columns, teachers={**meta.teachers, **records}))
        # Files that exist keep the digest they have, whatever release of zarr wrote them.
        files = {name: data for name, data in files.items() if name not in meta.metadata}
        meta = replace(grown, metadata={**grown.metadata, **meta.metadata})
        with writer_folder(cache.path) as tmp:
            write_metadata(cache.path, meta, files, (cache.path / INDEX).read_bytes(), tmp=tmp)
    return open_cache(cache.path)
