"""How small do features get, at what loss, and how fast do they come back? Real videos, a real teacher.

    python bench/encoding.py --videos DIR --weights FILE [--teacher timm:deit_tiny_patch16_224] [--sizes 224,400]
        [--fps 30,10,5] [--clips 48] [--long DIR] [--rounds 9] [--no-speed]

Bits and cosines: every frame of some clips, at each rate, through the teacher, in every encoding; a cosine is that of a
patch token with what the teacher said. ``--long`` names videos of more frames, for the low rates, where those of the
first folder have too few for a whole chunk.

Speed: one column of the same features in caches of each encoding, warm, one process, the same random positions in
turns; ratios are medians over the rounds. The disk of 500 MB/s is computed, from the bytes that a float16 column has.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from store import COLUMN, Workload, write_cache

from frame.manifests.load import load_manifest
from frame.manifests.progress import Progress
from frame.manifests.rows import ClipSource
from frame.pipeline.decode import ClipError, DecodeCage
from frame.pipeline.encoding_option import parse_encoding
from frame.pipeline.encodings import encoded_as, settle, spread_of, try_out
from frame.pipeline.recode import plan_recoding, recode
from frame.pipeline.sampling import choose_frames
from frame.pipeline.store import Cache
from frame.pipeline.store.columns import Column
from frame.pipeline.teach import TeacherBench, TeacherPlan, teacher_columns
from frame.pipeline.teachers import TeacherSpec, load_teacher, parse_weights, resolve_all

ENCODINGS = ("float16", "int8", "residual:0.05", "residual:0.1", "residual:0.2", "residual:0.4", "auto:0.9995")
DISK = 500e6  # bytes a second
PAST, WINDOWS, FUTURE = 5, 16, 1  # a segment of stage 2, as it is trained by default
QUIET = Progress(quiet=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="a folder of videos")
    parser.add_argument("--long", type=Path, help="a folder of longer ones, for rates below the first")
    parser.add_argument("--weights", required=True, help="the teacher's weights: a file, or `random` for a trial")
    parser.add_argument("--teacher", default="timm:deit_tiny_patch16_224")
    parser.add_argument("--sizes", default="224", help="sides in pixels")
    parser.add_argument("--fps", default="30,10,5")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--reads", type=int, default=40, help="reads of a kind in a round")
    parser.add_argument("--no-speed", action="store_true", help="bits and cosines only")
    return parser.parse_args()


def make_bench(teacher: str, weights: str, size: int) -> tuple[TeacherBench, TeacherSpec]:
    (spec,) = resolve_all([f"teacher={teacher}"], size=size, fit="crop")
    source = parse_weights([f"teacher={weights}"], [spec])
    record = load_teacher(spec, weights=source["teacher"], device="cpu", precision="float32").record()
    plan = TeacherPlan(
        specs=(spec,),
        weights=source,
        records={"teacher": record},
        precision="float32",
        columns={},
        size=size,
        fit="crop",
    )
    return TeacherBench(plan), spec


def features_of(clips: list[ClipSource], root: Path, bench: TeacherBench, fps: float) -> Iterator[np.ndarray]:
    """Patch features float32 ``[frames, tokens, width]`` of each clip that decodes."""
    with DecodeCage() as cage:
        for clip in clips:
            path = root / clip.source
            try:
                probe = cage.probe(path, start=clip.start, end=clip.end, frame_rate=clip.frame_rate)
                times = choose_frames(probe.timestamps, fps=fps, frames_per_clip=320)
                facts = {"height": probe.height, "width": probe.width, "frame_rate": clip.frame_rate}
                images = cage.decode(path, times, decoder="pyav", sha256=None, **facts)
            except ClipError as error:
                print(f"  left out: {clip.source}: {error.reason}")
                continue
            parts = [
                bench.features([part])["teacher.patch"].numpy()
                for part in np.array_split(images, -(-len(images) // 32))
            ]
            yield np.concatenate(parts)


def some_clips(folder: Path, count: int) -> tuple[list[ClipSource], Path]:
    manifest = load_manifest("folder", folder, seed=0, per_class=None, limit=None)
    chosen = np.linspace(0, len(manifest.rows) - 1, min(count, len(manifest.rows))).astype(int)
    return [manifest.rows[i] for i in chosen], manifest.root


def print_sizes(sample: list[np.ndarray], column: Column, title: str) -> None:
    """A row an encoding."""
    frames = sum(map(len, sample))
    change = np.concatenate([_cosines(clip[:-1], clip[1:]) for clip in sample if len(clip) > 1])
    print(f"\n{title}: {len(sample)} clips, {frames} frames, cosine of neighbouring frames {change.mean():.3f}")
    print(f"  {'encoding':<26}{'bits':>7}{'of float16':>12}{'mean cosine':>14}{'worst':>10}")
    spread = spread_of(sample)
    for text in ENCODINGS:
        asked = parse_encoding(text)
        if asked.kind == "auto":
            _, trials = settle({column.name: column}, asked, {column.name: sample})
            (trial,) = (trial for trial in trials if trial.chosen)
        else:
            trial = try_out(encoded_as(column, asked.kind, asked.number, spread), sample, step=asked.number)
        name = f"{text} = {trial.name}" if asked.kind == "auto" else text
        numbers = f"{trial.bits:>7.2f}{trial.bits / 16:>12.2f}{trial.mean_cosine:>14.6f}{trial.worst_cosine:>10.5f}"
        print(f"  {name:<26}{numbers}", flush=True)


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(axis=-1) / norms).reshape(-1)


@dataclass(frozen=True, kw_only=True)
class Reader:
    name: str
    cache: Cache


def make_readers(folder: Path, work: Workload) -> list[Reader]:
    source = write_cache(folder / "float16", work, "zarr", "float16")
    readers = [Reader(name="float16", cache=source)]
    for text in ("int8", "residual:0.1"):
        path = folder / text.replace(":", "-")
        planned = plan_recoding(source, path, text, to=None, progress=QUIET)
        readers.append(Reader(name=text, cache=recode(source, path, planned, tick=lambda: None)))
    path = folder / "tar"
    planned = plan_recoding(source, path, "residual:0.1", to="webdataset", progress=QUIET)
    return [*readers, Reader(name="residual:0.1, tar", cache=recode(source, path, planned, tick=lambda: None))]


def measure(readers: list[Reader], work: Workload, count: int, *, rounds: int, reads: int) -> dict[str, list[float]]:
    """Median seconds of a read of ``count`` rows of one clip, by reader, one for each round."""
    rng = np.random.default_rng(count)
    seconds: dict[str, list[float]] = {reader.name: [] for reader in readers}
    for turn in range(rounds + 1):
        clips, offsets = rng.integers(0, work.clips, reads), rng.integers(0, work.frames - count + 1, reads)
        for reader in readers:
            times = []
            for row in (clips * work.frames + offsets).tolist():
                began = time.perf_counter()
                reader.cache.read(COLUMN, row, row + count)
                times.append(time.perf_counter() - began)
            if turn:  # the first brings the files into memory
                seconds[reader.name].append(statistics.median(times))
    return seconds


def print_speed(title: str, seconds: dict[str, list[float]], values: int) -> None:
    print(f"\n{title}, {values / 1e6:.2f} M values")
    print(f"  {'encoding':<20}{'ms':>8}{'M values/s':>12}{'x float16':>11}{'x int8':>8}{'x float16 at 500 MB/s':>23}")
    for name, times in seconds.items():
        rate = values / statistics.median(times)
        half, byte = (
            statistics.median(theirs / ours for ours, theirs in zip(times, seconds[other], strict=True))
            for other in ("float16", "int8")
        )
        numbers = f"{values / rate * 1e3:>8.2f}{rate / 1e6:>12.0f}{half:>11.2f}{byte:>8.2f}{rate / (DISK / 2):>23.2f}"
        print(f"  {name:<20}{numbers}")


def main() -> None:
    options = arguments()
    clips, root = some_clips(options.videos, options.clips)
    rates = [float(text) for text in options.fps.split(",")]
    kept: list[np.ndarray] = []
    for size in map(int, options.sizes.split(",")):
        bench, spec = make_bench(options.teacher, options.weights, size)
        column = teacher_columns([spec])["teacher.patch"]
        for fps in rates:
            here = some_clips(options.long, options.clips) if options.long and fps < rates[0] else (clips, root)
            sample = list(features_of(*here, bench, fps))
            kept = kept or sample
            print_sizes(sample, column, f"{options.teacher}, {size} px, {fps:g} frames a second")
    if options.no_speed:
        return
    frames = int(np.percentile([len(clip) for clip in kept], 25))  # of a clip; a quarter of them is shorter
    used = [clip[:frames].astype(np.float16) for clip in kept if len(clip) >= frames]
    used = used[: max(len(used) // 16 * 16, 1)]
    work = Workload(features=np.concatenate(used), clips=len(used), frames=frames)
    row = work.features[0].size
    print(f"\nspeed: {work.clips} clips x {frames} frames of {row:,} values, {os.cpu_count()} cores")
    segment = min(PAST + WINDOWS + FUTURE, frames)
    kinds = {
        f"whole clips of {frames} frames": frames,
        f"segments of {segment} frames, {WINDOWS} windows of 7": segment,
        "single windows of 7 frames": 7,
        "single frames": 1,
    }
    with tempfile.TemporaryDirectory(prefix="bench-encoding-") as folder:
        readers = make_readers(Path(folder), work)
        for title, count in kinds.items():
            seconds = measure(readers, work, count, rounds=options.rounds, reads=options.reads)
            print_speed(title, seconds, count * row)


if __name__ == "__main__":
    main()
