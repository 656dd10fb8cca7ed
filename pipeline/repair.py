"""Metadata of a cache that were damaged or lost, written again as they were."""

from __future__ import annotations

import os
from pathlib import Path

from frame.manifests.load import load_manifest
from frame.manifests.progress import Progress
from frame.pipeline.options import options_of
from frame.pipeline.plan import make_plan, probe_clips
from frame.pipeline.store import Cache, CacheError
from frame.pipeline.store.files import sha256_bytes, writer_folder
from frame.pipeline.store.layout import INDEX
from frame.pipeline.store.writer import with_metadata, write_metadata


def repair_metadata(cache: Cache, source: Path, progress: Progress) -> None:
    """Write damaged or missing metadata again; the index is planned again, from the sources."""
    path = cache.path / INDEX
    index = path.read_bytes() if path.is_file() else b""
    if sha256_bytes(index) != cache.meta.index_sha256:
        index = _index_again(cache, source, progress)
    _, fresh = with_metadata(cache.meta)
    broken = {name: data for name, data in fresh.items() if not _intact(cache, name)}
    for name, data in broken.items():
        if sha256_bytes(data) != cache.meta.metadata[name]:
            raise CacheError(
                what="A damaged Zarr metadata file cannot be written again as it was.",
                where=str(cache.path / name),
                why="the installed zarr spells it differently from the release that built this cache",
                fix="Install the releases named in constraints.txt and run the command again.",
            )
    with writer_folder(cache.path) as tmp:
        write_metadata(cache.path, cache.meta, broken, index, tmp=tmp)


def _intact(cache: Cache, name: str) -> bool:
    path = cache.path / name
    return path.is_file() and sha256_bytes(path.read_bytes()) == cache.meta.metadata[name]


def _index_again(cache: Cache, source: Path, progress: Progress) -> bytes:
    meta = cache.meta
    if {"repacked_from", "merged_from"} & meta.build.keys():
        raise CacheError(
            what="The damaged index is that of clips taken from other caches; it cannot be planned again.",
            where=str(cache.path / INDEX),
            fix="Give the command again that made this cache, with the same caches: it writes the index as it was.",
        )
    options = options_of(meta, source)
    manifest = load_manifest(
        options.dataset, source, seed=options.seed, per_class=options.per_class, limit=options.limit
    )
    with progress.bar("planning the damaged index again", total=len(manifest.rows), unit="clips") as tick:
        probes = probe_clips(manifest.rows, manifest.root, processes=os.cpu_count() or 1, tick=tick)
    plan = make_plan(
        options, manifest.rows, probes, columns=meta.columns, teachers=meta.teachers, licence=meta.dataset["licence"]
    )
    if plan.meta.index_sha256 != meta.index_sha256:
        raise CacheError(
            what="The damaged index cannot be made again: the source videos have changed since.",
            where=str(source),
            why=f"the cache was planned with {meta.dataset['clips']} clips, the folder now gives another index",
            fix="Give the original videos with --source DIR, or build a new cache.",
        )
    return plan.index_file
