"""How fast is a cache read? Random windows of 7 frames and whole clips, against other ways to the same numbers.

    python bench/store.py [--quick] [--clips 64] [--frames 40] [--tokens 196] [--width 384] [--rounds 7] [--folder DIR]

All readers get the same random positions, in turns, round by round, with everything in the page cache; a ratio is the
median over the rounds of the ratios of their medians, because machines are shared. Only our readers compare checksums
and receipts; zarr-python compares the chunks' checksums, the memory map and webdataset nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import webdataset
import zarr

from frame.pipeline.store import Cache, open_cache
from frame.pipeline.store.columns import Column, Encoding
from frame.pipeline.store.files import sha256_bytes, writer_folder
from frame.pipeline.store.index import SCHEMA, index_bytes
from frame.pipeline.store.layout import CacheMeta, StoreKind
from frame.pipeline.store.writer import UnitData, commit_unit, with_metadata, write_metadata

COLUMN = "teacher.patch"
WINDOW = 7
CLIPS_PER_UNIT = 16
Read = Callable[[int, int], np.ndarray]  # first row, number of rows -> the rows


@dataclass(frozen=True, kw_only=True)
class Workload:
    """``features`` float16 ``[rows, tokens, width]``, the clips one behind the other, in whole units."""

    features: np.ndarray
    clips: int
    frames: int

    @property
    def rows_per_unit(self) -> int:
        return min(CLIPS_PER_UNIT, self.clips) * self.frames


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--frames", type=int, default=40, help="frames of a clip")
    parser.add_argument("--tokens", type=int, default=196)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reads", type=int, default=40, help="reads of a kind in a round")
    parser.add_argument("--folder", type=Path, help="where to put the caches (default: a temporary folder)")
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the data: a trial, not a measurement")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.clips, chosen.rounds, chosen.reads = max(chosen.clips // 16, 2), 3, 10
    return chosen


def make_workload(clips: int, frames: int, tokens: int, width: int) -> Workload:
    clips = -(-clips // min(CLIPS_PER_UNIT, clips)) * min(CLIPS_PER_UNIT, clips)
    rng = np.random.default_rng(0)
    features = np.empty((clips * frames, tokens, width), dtype=np.float16)
    for row in features:
        row[...] = rng.standard_normal(row.shape, dtype=np.float32)
    return Workload(features=features, clips=clips, frames=frames)


def write_cache(path: Path, work: Workload, store: StoreKind, encoding: Encoding) -> Cache:
    """The features as a cache of one column."""
    index = pa.Table.from_pylist(
        [
            {"clip": f"clip{i:05d}", "source": f"{i}.mp4", "split": "train", "label": "", "sha256": "", "error": ""}
            | {"first_row": i * work.frames, "n_frames": work.frames, "unit": i * work.frames // work.rows_per_unit}
            | {"fps": 25.0, "timestamps": [k / 25 for k in range(work.frames)], "width": 1, "height": 1, "bytes": 1}
            for i in range(work.clips)
        ],
        schema=SCHEMA,
    )
    meta, files = with_metadata(
        CacheMeta(
            dataset={},
            sampling={},
            geometry={},
            build={},
            store=store,
            rows_per_unit=work.rows_per_unit,
            rows=len(work.features),
            index_sha256=sha256_bytes(index_bytes(index)),
            columns={COLUMN: Column(name=COLUMN, shape=work.features.shape[1:], encoding=encoding, teacher="teacher")},
            teachers={"teacher": {}},
            metadata={},
        )
    )
    path.mkdir(parents=True)
    with writer_folder(path) as tmp:
        write_metadata(path, meta, files, index_bytes(index), tmp=tmp)
        for unit in range(meta.units):
            commit_unit(path, meta, index, unit_data(work, unit, encoding), tmp=tmp)
    return open_cache(path)


def unit_data(work: Workload, unit: int, encoding: Encoding) -> UnitData:
    rows = np.arange(work.rows_per_unit)
    values = work.features[unit * work.rows_per_unit + rows]
    arrays = {COLUMN: values}
    if encoding == "int8":
        scale = (np.abs(values).max(axis=-1).astype(np.float32) / 127).astype(np.float16)
        integers = np.round(values / scale[..., None].astype(np.float32)).clip(-127, 127)
        arrays = {COLUMN: integers.astype(np.int8), f"{COLUMN}.scale": scale}
    return UnitData(
        unit=unit, rows=rows, values=arrays, loss={}, moments={}, failed={}, software={name: {} for name in [COLUMN]}
    )


def stored_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def stock_webdataset(folder: Path) -> Iterator[np.ndarray]:
    """Whole clips in the order of the shards, for ever: the library reads tar files from front to back only."""
    shards = sorted(str(path) for path in (folder / "shards").glob("*.tar"))
    while True:
        for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
            yield sample[f"{COLUMN}.npy"]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """``share``: of a round's reads that this reader is asked for; slow ones get fewer. ``exact``: gives every bit."""

    name: str
    read: Read
    share: float = 1.0
    windows: bool = True
    exact: bool = True


def make_readers(folder: Path, work: Workload) -> list[Reader]:
    """Write the data in every form and open it."""
    np.save(folder / "map.npy", work.features)
    mapped = np.load(folder / "map.npy", mmap_mode="r")
    ours = write_cache(folder / "zarr", work, "zarr", "float16")
    tars = write_cache(folder / "webdataset", work, "webdataset", "float16")
    int8 = write_cache(folder / "int8", work, "zarr", "int8")
    plain = zarr.open_group(folder / "zarr", mode="r")[COLUMN]
    assert isinstance(plain, zarr.Array)
    stock = stock_webdataset(folder / "webdataset")
    return [
        Reader(name="NumPy memory map", read=lambda row, count: np.array(mapped[row : row + count])),
        Reader(name="plain zarr-python", read=lambda row, count: np.asarray(plain[row : row + count]), share=0.2),
        Reader(name="ours, Zarr float16", read=lambda row, count: ours.read(COLUMN, row, row + count)),
        Reader(name="ours, WebDataset float16", read=lambda row, count: tars.read(COLUMN, row, row + count)),
        Reader(name="ours, Zarr int8", read=lambda row, count: int8.read(COLUMN, row, row + count), exact=False),
        Reader(name="stock webdataset", read=lambda *_: next(stock), share=0.4, windows=False),
    ]


def check(readers: list[Reader], work: Workload) -> None:
    """Every reader gives what was written; this also brings the files into the page cache."""
    for reader in readers:
        for clip in range(work.clips):
            row = clip * work.frames
            found, true = reader.read(row, work.frames), work.features[row : row + work.frames]
            close = np.allclose(found, true, rtol=0, atol=0.05)
            if not (np.array_equal(found, true) if reader.exact else close):
                raise SystemExit(f"{reader.name} does not give what was written")


def measure(readers: list[Reader], work: Workload, count: int, *, rounds: int, reads: int) -> dict[str, list[float]]:
    """Median seconds a read of ``count`` rows, by reader, one for each round."""
    rng = np.random.default_rng(count)
    seconds: dict[str, list[float]] = {reader.name: [] for reader in readers}
    for _ in range(rounds):
        clips = rng.integers(0, work.clips, reads)
        offsets = rng.integers(0, work.frames - count + 1, reads)
        rows = (clips * work.frames + offsets).tolist()
        for reader in readers:
            times = []
            for row in rows[: max(int(reads * reader.share), 3)]:
                began = time.perf_counter()
                reader.read(row, count)
                times.append(time.perf_counter() - began)
            seconds[reader.name].append(statistics.median(times))
    return seconds


def print_table(title: str, seconds: dict[str, list[float]], nbytes: int) -> None:
    print(f"\n{title} ({nbytes / 1e6:.2f} MB as float16)")
    print(f"  {'reader':<26}{'ms':>9}{'GB/s':>8}{'x memory map':>14}{'x zarr-python':>15}")
    for name, times in seconds.items():
        middle = statistics.median(times)
        to_map, to_zarr = (ratio(seconds, name, other) for other in ("NumPy memory map", "plain zarr-python"))
        print(f"  {name:<26}{middle * 1e3:>9.3f}{nbytes / middle / 1e9:>8.2f}{to_map:>14.2f}{to_zarr:>15.1f}")


def ratio(seconds: dict[str, list[float]], name: str, other: str) -> float:
    """How many times as fast ``name`` is as ``other``."""
    return statistics.median(theirs / ours for ours, theirs in zip(seconds[name], seconds[other], strict=True))


def typical(action: Callable[[int], object], arguments: list[int]) -> float:
    """Median seconds of ``action`` over its arguments."""
    times = []
    for argument in arguments:
        began = time.perf_counter()
        action(argument)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def print_limits(folder: Path, work: Workload, whole: float) -> None:
    """What the machine allows for a whole clip, copying, fetching and checking it, and where our time goes."""
    count = work.frames
    target = np.empty_like(work.features[:count])
    buffers: list[Any] = list(target.reshape(count, -1).view(np.uint8))
    starts = (np.random.default_rng(1).integers(0, work.clips, 60) * count).tolist()
    header = (folder / "map.npy").stat().st_size - work.features.nbytes
    descriptor = os.open(folder / "map.npy", os.O_RDONLY)
    row_bytes = work.features[0].nbytes
    fetch = typical(lambda row: os.preadv(descriptor, buffers, header + row * row_bytes), starts)
    os.close(descriptor)
    copy = typical(lambda row: np.copyto(target, work.features[row : row + count]), starts)
    hot = buffers[0][: 1 << 15]
    crc = typical(lambda _: [google_crc32c.value(hot) for _ in range(32)], starts) / 32 / len(hot) * target.nbytes
    copied, fetched, checked, both = (target.nbytes / s / 1e9 for s in (copy, fetch, crc, fetch + crc))
    print(f"\nlimits, GB/s: memory copy {copied:.1f}, fetching from the page cache {fetched:.1f},", end=" ")
    print(f"crc32c in the processor's cache {checked:.1f}; fetching and checking {both:.1f}")
    print(f"a whole clip of ours: fetching {fetch / whole:.0%}, checksums {crc / whole:.0%}", end=", ")
    print(f"all else {1 - (fetch + crc) / whole:.0%}")


def print_verdicts(window: dict[str, list[float]], clip: dict[str, list[float]], halved: float) -> None:
    print()
    for kind, seconds in (("7-frame windows", window), ("whole clips", clip)):
        for other, target in (("plain zarr-python", 3.0), ("NumPy memory map", 0.4)):
            found = ratio(seconds, "ours, Zarr float16", other)
            print(f"{'met   ' if found >= target else 'MISSED'}  {kind}: {found:.2f} x {other}, target {target}")
    print(f"{'met   ' if halved <= 0.52 else 'MISSED'}  bytes of int8: {halved:.3f} of float16, target one half")


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="bench-store-", dir=folder))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def main() -> None:
    options = arguments()
    warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files to the collector
    work = make_workload(options.clips, options.frames, options.tokens, options.width)
    if options.frames < WINDOW:
        raise SystemExit(f"--frames must be at least {WINDOW}")
    with workplace(options.folder) as folder:
        readers = make_readers(folder, work)
        check(readers, work)
        row = work.features[0].nbytes
        print(f"{work.clips} clips x {work.frames} frames, {work.features.nbytes / 1e6:.0f} MB, {os.cpu_count()} cores")
        kinds = {"rounds": options.rounds, "reads": options.reads}
        window = measure([reader for reader in readers if reader.windows], work, WINDOW, **kinds)
        clip = measure(readers, work, work.frames, **kinds)
        print_table(f"random windows of {WINDOW} frames", window, WINDOW * row)
        print_table("whole clips (webdataset: in their order)", clip, work.frames * row)
        print_limits(folder, work, statistics.median(clip["ours, Zarr float16"]))
        print_verdicts(window, clip, stored_bytes(folder / "int8") / stored_bytes(folder / "zarr"))


if __name__ == "__main__":
    main()
