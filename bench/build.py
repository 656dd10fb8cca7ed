"""How fast is a build? The Ray pipeline against a bare loop, and against its own stages alone. One table of ratios.

    python bench/build.py [--clips 24] [--frames 48] [--teacher timm:deit_tiny_patch16_224] [--rounds 3]

*bare loop*: one process, one clip after the other: decord, the same resizing, timm's forward, np.save of pictures and
features; torch may use every core. *pipeline*: ``frame-cache build`` with all its checks (hashes, timestamps,
checksums, fsync, receipts), from the moment the first teacher begins: starting Ray and loading weights is not counted,
for the loop neither. Rounds are interleaved and the medians compared, because machines are shared.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import decord
import numpy as np
import timm
import torch

from frame.manifests.progress import Progress
from frame.manifests.sprites import generate_sprites
from frame.pipeline.build import build
from frame.pipeline.decode import DecodeCage
from frame.pipeline.options import BuildOptions, RunOptions
from frame.pipeline.prepare import Prepared, create
from frame.pipeline.teach import TeacherBench
from frame.pipeline.teachers import fit_frames, to_pictures

BATCH = 32


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--size", type=int, default=256, help="side of the source videos")
    parser.add_argument("--teacher", default="timm:deit_tiny_patch16_224")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def bare_loop(prepared: Prepared, out: Path) -> float:
    """Frames a second of the plain loop."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(os.cpu_count() or 1)
    spec = prepared.teachers.specs[0]
    model = timm.create_model(spec.model, num_classes=0, dynamic_img_size=True).eval().to(device)
    mean, std = (torch.tensor(value, device=device).reshape(1, 3, 1, 1) for value in (spec.mean, spec.std))
    out.mkdir()
    count, began = 0, 0.0
    entries = prepared.cache.index.to_pylist()
    for number, entry in enumerate([entries[0], *entries]):
        if number == 1:  # the first clip warms up
            began = time.perf_counter()
        video = decord.VideoReader(str(prepared.source / entry["source"]), num_threads=1)
        frames = video.get_batch(range(len(video))).asnumpy()
        pixels = fit_frames(frames, 224, "crop", device=device)
        pictures = to_pictures(pixels).cpu().numpy()
        tokens = []
        with torch.inference_mode():
            for batch in pixels.split(BATCH):
                tokens.append(model.forward_features((batch / 255 - mean) / std).half().cpu())
        features = torch.cat(tokens).numpy()
        np.save(out / f"{number}.frames.npy", pictures)
        np.save(out / f"{number}.patch.npy", features[:, model.num_prefix_tokens :])
        np.save(out / f"{number}.cls.npy", features[:, 0])
        count += len(frames) if number else 0
    return count / (time.perf_counter() - began)


def pipeline(options: BuildOptions, out: Path, *, workers: int | None) -> float:
    """Frames a second of the build, once started."""
    quiet = Progress(quiet=True)
    summary = build(create(options, out, quiet), RunOptions(workers=workers), quiet)
    return summary.rows / (summary.wall - summary.start)


def decode_alone(prepared: Prepared) -> float:
    """Frames a second of one caged decoder."""
    entries = prepared.cache.index.to_pylist()
    with DecodeCage() as cage:
        count, began = 0, 0.0
        for number, entry in enumerate([entries[0], *entries]):
            if number == 1:
                began = time.perf_counter()
            shape: dict[str, Any] = {"height": entry["height"], "width": entry["width"], "sha256": entry["sha256"]}
            frames = cage.decode(prepared.source / entry["source"], entry["timestamps"], decoder="decord", **shape)
            count += len(frames) if number else 0
        return count / (time.perf_counter() - began)


def teachers_alone(prepared: Prepared, *, size: int) -> float:
    """Frames a second of the teachers, resizing and encoding included, on every core or one accelerator."""
    torch.set_num_threads(os.cpu_count() or 1)
    bench = TeacherBench(prepared.teachers)
    images = [np.random.default_rng(0).integers(0, 255, (BATCH, size, size, 3), dtype=np.uint8)]
    columns = tuple(prepared.cache.columns)
    bench.make(columns, images)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < 5:
        bench.make(columns, images)
        count += BATCH
    return count / (time.perf_counter() - began)


def main() -> None:
    args = arguments()
    root = Path(tempfile.mkdtemp(prefix="bench-build-"))
    cores = torch.cuda.device_count() or os.cpu_count() or 1
    try:
        generate_sprites(root / "videos", clips=args.clips, frames=args.frames, size=args.size)
        options = BuildOptions(
            dataset="sprites",
            source=root / "videos",
            teachers=(args.teacher,),
            weights=("random",),
            unit_rows=2 * args.frames,
            batch_rows=BATCH,
        )
        prepared = create(options, root / "plan", Progress(quiet=True))
        rates: dict[str, list[float]] = {}
        for number in range(args.rounds):
            found = {
                "bare loop": bare_loop(prepared, root / f"bare{number}"),
                "pipeline, 1 worker": pipeline(options, root / f"one{number}", workers=1),
                f"pipeline, {cores} workers": pipeline(options, root / f"all{number}", workers=cores),
                "decode alone, 1 process": decode_alone(prepared),
                "teachers alone": teachers_alone(prepared, size=args.size),
            }
            for name, rate in found.items():
                rates.setdefault(name, []).append(rate)
            for name in ("bare", "one", "all"):
                shutil.rmtree(root / f"{name}{number}")
        report(rates, cores)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def report(rates: dict[str, list[float]], cores: int) -> None:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    base, one, many = (medians[name] for name in ("bare loop", "pipeline, 1 worker", f"pipeline, {cores} workers"))
    print(f"{'':<26} {'frames/s':>9} {'of bare':>8}   min .. max")
    for name, rate in medians.items():
        print(f"{name:<26} {rate:9.1f} {rate / base:8.2f}   {min(rates[name]):.1f} .. {max(rates[name]):.1f}")
    print(f"\n{cores} workers / bare loop: {many / base:.2f} (wanted 0.90)")
    if cores > 1:
        print(f"{cores} workers / 1 worker: {many / one:.2f} (wanted 1.60 of two)")
    if torch.cuda.is_available():
        decoders = max(1, (os.cpu_count() or 1) - cores)
        slower = min(medians["decode alone, 1 process"] * decoders, medians["teachers alone"] * cores)
        print(f"pipeline / slower of decode and teachers: {many / slower:.2f} (wanted 0.90)")


if __name__ == "__main__":
    main()
