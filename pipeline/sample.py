"""A sample of the teachers' features, taken when a cache is planned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.pipeline.decode import ClipError, DecodeCage
from frame.pipeline.store import Cache
from frame.pipeline.store.columns import PACKED_ROWS
from frame.pipeline.store.layout import CacheMeta
from frame.pipeline.teach import TeacherBench, TeacherPlan

_CLIPS = 16
_ROWS = PACKED_ROWS  # of a clip: as many as are packed together


def sample_features(
    index: pa.Table, meta: CacheMeta, teachers: TeacherPlan, source: Path, progress: Progress
) -> dict[str, list[np.ndarray]]:
    """Features of some clips' middle frames by column, float32 ``[n_i, *shape]`` a clip: the same for the same index.

    Clips that do not decode are left out; raises ``InputError`` where none does.
    """
    found: dict[str, list[np.ndarray]] = {}
    why = ""
    chosen = _chosen(index)
    with (
        DecodeCage() as cage,
        _one_thread(),
        progress.bar("sampling features", total=len(chosen), unit="clips") as tick,
    ):
        bench = TeacherBench(replace(teachers, columns={}))
        for position, low, high in chosen:
            clip = index.slice(position, 1).to_pylist()[0]
            try:
                images = _decode(cage, clip, low, high, meta, source)
            except ClipError as error:
                why = f"{clip['source']}: {error.reason}: {error.detail}"
            else:
                for name, features in bench.features([images]).items():
                    found.setdefault(name, []).append(features.numpy())
            tick()
    if not found:
        raise InputError(
            what="Not one clip of the sample can be decoded.",
            where=str(source),
            why=why,
            fix="Another --decoder, or --encoding float16, which needs no sample.",
        )
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in the workers of a build: sums in another order are other steps, and so another cache."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _chosen(index: pa.Table) -> list[tuple[int, int, int]]:
    """Positions of clips in the index, spread over it, and the frames of each, from its middle."""
    counts = index.column("n_frames").to_numpy()
    usable = np.flatnonzero(counts)
    positions = usable[np.linspace(0, len(usable) - 1, min(_CLIPS, len(usable))).astype(int)]
    rows = [min(_ROWS, int(counts[position])) for position in positions]
    starts = [(int(counts[position]) - n) // 2 for position, n in zip(positions, rows, strict=True)]
    return [(int(p), start, start + n) for p, start, n in zip(positions, starts, rows, strict=True)]


def _decode(
    cage: DecodeCage, clip: Mapping[str, Any], low: int, high: int, meta: CacheMeta, source: Path
) -> np.ndarray:
    return cage.decode(
        source / clip["source"],
        clip["timestamps"][low:high],
        height=clip["height"],
        width=clip["width"],
        decoder=meta.build["decoder"],
        frame_rate=clip["frame_rate"],
        sha256=None,
    )


def sample_cache(cache: Cache, columns: Mapping[str, object], progress: Progress) -> dict[str, list[np.ndarray]]:
    """The same of the features that a cache holds."""
    failed = set(cache.failed())
    table = cache.index
    kept = table.filter(pa.array([name not in failed for name in table.column("clip").to_pylist()]))
    chosen = _chosen(kept)
    first = kept.column("first_row").to_numpy()
    expected, size = set(cache.expected_units), cache.meta.rows_per_unit
    found: dict[str, list[np.ndarray]] = {name: [] for name in columns}
    with progress.bar("sampling features", total=len(chosen), unit="clips") as tick:
        for position, low, high in chosen:
            start, stop = int(first[position]) + low, int(first[position]) + high
            if expected.issuperset(range(start // size, (stop - 1) // size + 1)):
                for name in columns:
                    found[name].append(cache.read(name, start, stop).astype(np.float32))
            tick()
    return found
