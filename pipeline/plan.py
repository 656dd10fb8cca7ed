"""The plan of a cache: every clip probed, its frames chosen, the rows laid out in units. Nothing is decoded here."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from frame.manifests.errors import InputError
from frame.manifests.rows import ClipSource
from frame.pipeline.decode import ClipError, DecodeCage, Probe
from frame.pipeline.encodings import Trial
from frame.pipeline.options import BuildOptions
from frame.pipeline.sampling import choose_frames
from frame.pipeline.store.columns import FRAMES, Column
from frame.pipeline.store.files import sha256_bytes
from frame.pipeline.store.index import SCHEMA, index_bytes, lay_out
from frame.pipeline.store.layout import CacheMeta

_UNIT_BYTES = 128 << 20
_LEAST_UNITS = 32  # of a small cache, so that every worker of a machine has something to do
_DECODED_BYTES = 768 << 20
_MAX_UNIT_ROWS = 8192
_MAX_ASPECT = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A cache that may not exist yet: its metadata (without the Zarr metadata's digests) and its index. ``trials``: the
    encodings that were tried on a sample."""

    meta: CacheMeta
    index: pa.Table
    index_file: bytes
    trials: tuple[Trial, ...] = ()


def probe_clips(
    clips: Sequence[ClipSource], source: Path, *, processes: int, tick: Callable[[], None] = lambda: None
) -> list[Probe | ClipError]:
    """Probe every clip in killable processes; a clip that cannot be probed yields its error instead."""
    cages: queue.SimpleQueue[DecodeCage] = queue.SimpleQueue()
    for _ in range(processes):
        cages.put(DecodeCage())

    def probe(clip: ClipSource) -> Probe | ClipError:
        cage = cages.get()
        try:
            return cage.probe(source / clip.source, start=clip.start, end=clip.end, frame_rate=clip.frame_rate)
        except ClipError as error:
            return error
        finally:
            cages.put(cage)
            tick()

    try:
        with ThreadPoolExecutor(max_workers=processes) as pool:
            return list(pool.map(probe, clips))
    finally:
        for _ in range(processes):
            cages.get().close()


def rows_per_unit(columns: Mapping[str, Column], options: BuildOptions, *, rows: int, frame_bytes: int) -> int:
    """How many rows make a unit: some 128 MiB of all columns together, in whole batches; less in a small cache.

    A unit's frames also travel through memory as decoded, ``frame_bytes`` each at the most, so that caches of very
    large videos get smaller units.
    """
    if options.unit_rows is not None:
        return options.unit_rows
    row_bytes = sum(column.row_bytes for column in columns.values())
    fitting = min(_UNIT_BYTES // row_bytes, _DECODED_BYTES // max(frame_bytes, 1), _MAX_UNIT_ROWS)
    wanted = max(min(fitting, -(-rows // _LEAST_UNITS)), 1)
    return -(-wanted // options.batch_rows) * options.batch_rows


def make_plan(
    options: BuildOptions,
    clips: Sequence[ClipSource],
    probes: Sequence[Probe | ClipError],
    *,
    columns: Mapping[str, Column],
    teachers: Mapping[str, dict[str, Any]],
    licence: str,
) -> Plan:
    """Choose rows and lay them out. Raises ``InputError`` when not one clip can be used."""
    chosen = [_choose(options, probe) for probe in probes]
    if not any(isinstance(item, list) for item in chosen):
        _refuse(options, clips, [item for item in chosen if isinstance(item, ClipError)])
    lengths = [len(item) if isinstance(item, list) else 0 for item in chosen]
    largest = max(probe.height * probe.width * 3 for probe in probes if isinstance(probe, Probe))
    unit = rows_per_unit(columns, options, rows=sum(lengths), frame_bytes=largest)
    first, rows = lay_out(lengths, unit=unit)
    index = pa.Table.from_pylist(
        [
            _index_row(clip, probe, frames, first_row=row, unit=min(row // unit, rows // unit - 1))
            for clip, probe, frames, row in zip(clips, probes, chosen, first, strict=True)
        ],
        schema=SCHEMA,
    )
    file = index_bytes(index)
    meta = CacheMeta(
        dataset=options.dataset_json(licence=licence, clips=len(clips)),
        sampling=options.sampling_json(),
        geometry=options.geometry_json(),
        build=options.build_json(),
        store=options.store,
        rows_per_unit=unit,
        rows=rows,
        index_sha256=sha256_bytes(file),
        columns=dict(columns),
        teachers=dict(teachers),
        metadata={},
    )
    return Plan(meta=meta, index=index, index_file=file)


def frames_column(size: int) -> Column:
    """The column of the pictures themselves."""
    return Column(name=FRAMES, shape=(size, size, 3), encoding="raw")


def _choose(options: BuildOptions, probe: Probe | ClipError) -> list[float] | ClipError:
    if isinstance(probe, ClipError):
        return probe
    if options.fit == "crop" and max(probe.width, probe.height) > _MAX_ASPECT * min(probe.width, probe.height):
        return ClipError("too-narrow", f"{probe.width}x{probe.height} cannot be cropped to a square: use --fit squash")
    frames = choose_frames(probe.timestamps, fps=options.fps, frames_per_clip=options.frames_per_clip)
    return frames or ClipError("segment-empty", "no frame lies in the segment")


def _index_row(
    clip: ClipSource, probe: Probe | ClipError, frames: list[float] | ClipError, *, first_row: int, unit: int
) -> dict[str, Any]:
    failed = frames if isinstance(frames, ClipError) else None
    known = probe if isinstance(probe, Probe) else None
    return {
        "clip": clip.clip,
        "source": clip.source,
        "split": clip.split,
        "label": clip.label,
        "first_row": first_row,
        "n_frames": 0 if isinstance(frames, ClipError) else len(frames),
        "unit": unit,
        "fps": known.rate if known else 0.0,
        "timestamps": [] if isinstance(frames, ClipError) else frames,
        "width": known.width if known else 0,
        "height": known.height if known else 0,
        "bytes": known.bytes if known else 0,
        "sha256": known.sha256 if known else "",
        "start": clip.start,
        "end": clip.end,
        "frame_rate": clip.frame_rate,
        "error": f"{failed.reason}: {failed.detail}" if failed else "",
    }


def _refuse(options: BuildOptions, clips: Sequence[ClipSource], errors: list[ClipError]) -> None:
    named = [f"{clip.source}: {error.reason}: {error.detail}" for clip, error in zip(clips, errors, strict=False)]
    raise InputError(
        what=f"None of the {len(clips)} clips can be read.",
        where=str(options.source),
        why="; ".join(named[:5]) + (f"; and {len(named) - 5} more" if len(named) > 5 else ""),
        fix="Give a folder with videos that play, or name the right --dataset for its layout.",
    )
