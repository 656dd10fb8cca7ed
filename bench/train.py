"""Where does a training step's time go? One run, one table of ratios; rounds are interleaved, medians compared.

    python bench/train.py [--student vit_small] [--size 224] [--batch 8] [--windows 32] [--rounds 3] [--steps 2]

*synthetic*: the same step on a batch that is already in memory, again and again. *cache*: batches come from the cache
through reader processes, as in ``frame-train``. *online*: no cache; each batch's targets are made by the teachers in
the loop, from frames that are already decoded. *segments*: stage 2 as it is, each frame of a segment encoded once.
*naive*: every window a segment of its own, which encodes its own six frames. Segments save encoding only: with E for
encoding a frame and T for training one window, n windows a segment are (6 E + T) / ((n + 5) / n E + T) times as fast,
however long the segments at most (6 E + T) / (E + T). *tokens*: stage 2 from the student's
cached tokens. Weights are random: they do not change the work.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from frame.manifests.progress import Progress
from frame.manifests.sprites import generate_sprites
from frame.pipeline.build import build
from frame.pipeline.options import BuildOptions, RunOptions
from frame.pipeline.prepare import create, resume
from frame.pipeline.teachers import fit_frames, load_teacher, resolve_all
from frame.pipeline.teachers.student import expand_students
from frame.pipeline.teachers.weights import RANDOM
from frame.train.batches import Batch, BatchDataset, SegmentReader, batches
from frame.train.losses import RunningMeans
from frame.train.optimizer import make_optimizer
from frame.train.prepare import Prepared, Request, prepare
from frame.train.run import train
from frame.train.update import Updater

QUIET = Progress(quiet=True)
SPATIAL, SEMANTIC = "dino_vits16", "clip_vitb32"
PEAK_BF16 = {"NVIDIA H200": 989e12, "NVIDIA H100": 989e12, "NVIDIA A100": 312e12}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="vit_small")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8, help="frames a step of stage 1")
    parser.add_argument("--windows", type=int, default=32, help="windows a step of stage 2, and of a segment")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=44)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="steps of each kind a round")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--precision", default="bf16" if torch.cuda.is_available() else "no")
    return parser.parse_args()


def make_cache(folder: Path, size: int, clips: int, frames: int) -> Path:
    """A cache of generated videos with the paper's S/16 teachers."""
    generate_sprites(folder / "sprites", clips=clips, frames=frames, size=size)
    options = BuildOptions(
        dataset="sprites", source=folder / "sprites", teachers=(SPATIAL, SEMANTIC), weights=("random",), size=size,
        unit_rows=frames,  # no clip is cut at a unit's edge: segments may be as long as clips
    )  # fmt: skip
    build(create(options, folder / "cache", QUIET), RunOptions(), QUIET)
    return folder / "cache"


def add_student(cache: Path, run: Path) -> None:
    """The student's tokens as columns."""
    teachers, weights = expand_students((f"student={run}",), ())
    build(resume(cache, progress=QUIET, more_teachers=teachers, weights=weights), RunOptions(), QUIET)


class Step:
    """One kind of step, ready to be timed: its updater, and where its batches come from."""

    def __init__(self, request: Request, workers: int, *, source: str) -> None:
        self.prepared: Prepared = prepare(request)
        config = self.prepared.config
        self.accelerator = Accelerator(mixed_precision=config.precision)
        module: Any = self.prepared.method.module
        module.to(self.accelerator.device)
        optimizer = make_optimizer(
            module, name="adam", lr=1e-4, weight_decay=0.0, fused=self.accelerator.device.type == "cuda"
        )
        self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.update = Updater(
            accelerator=self.accelerator,
            module=self.module,
            optimizer=self.optimizer,
            config=config,
            base=self.prepared.method.weights,
        )
        self.means, self.count = RunningMeans(), 0
        self.stream = self._stream(0 if source == "memory" else workers)
        self.batches: Iterator[Batch] = self.stream
        if source == "memory":
            self.batches = itertools.repeat(next(self.stream))

    def close(self) -> None:
        """End the processes that read ahead."""
        self.stream.close()

    def _stream(self, workers: int) -> Generator[Batch, None, None]:
        reader = SegmentReader(self.prepared.sources.caches, self.prepared.method.columns)
        dataset = BatchDataset(
            reader=reader, plan=self.prepared.train, size=self.prepared.pace.batch, rank=0, ranks=1, accumulation=1
        )
        pin = self.accelerator.device.type == "cuda"
        with contextlib.closing(batches(dataset, 0, 10_000, workers=workers, pin=pin)) as read:
            for batch in read:
                yield batch.to(self.accelerator.device, non_blocking=True)

    def encode(self) -> tuple[float, float]:
        """Seconds of the frozen encoder alone on one batch."""
        batch = next(self.batches)
        began = time.perf_counter()
        with self.accelerator.autocast():
            self.prepared.method.module._tokens(batch)
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began, 0.0

    def __call__(self, change: Callable[[Batch], Batch] = lambda batch: batch) -> tuple[float, float]:
        """Seconds of one step, and of its wait for data."""
        began = time.perf_counter()
        batch = change(next(self.batches))
        waited = time.perf_counter() - began
        self.update([batch], step=self.count, lr=1e-4, means=self.means, stop=False)
        self.count += 1
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began, waited


class Online:
    """Targets made in the loop: what a cache saves."""

    def __init__(self, size: int, device: torch.device) -> None:
        specs = resolve_all((SPATIAL, SEMANTIC), size=size, fit="crop")
        self.teachers = [load_teacher(spec, weights=RANDOM, device=device) for spec in specs]

    def __call__(self, batch: Batch) -> Batch:
        frames = batch.columns["frames"].flatten(0, 1)
        segments = len(batch.segments)
        columns = dict(batch.columns)
        for teacher in self.teachers:
            fitted = fit_frames(frames, teacher.spec.input_size, "crop", device=frames.device)
            for suffix, values in teacher.forward(fitted).items():
                columns[f"{teacher.spec.name}.{suffix}"] = values.clone().unflatten(0, (segments, -1))
        return Batch(columns=columns, present=batch.present, segments=batch.segments)


def timed(
    kinds: dict[str, Callable[[], tuple[float, float]]], rounds: int, steps: int
) -> dict[str, tuple[float, float]]:
    """Median seconds a step and the share of waiting, by kind; the kinds take turns."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for number in range(rounds + 1):
        for name, kind in kinds.items():
            taken = [kind() for _ in range(steps)]
            if number:  # the first round warms up
                found[name] += taken
    return {
        name: (
            statistics.median(step for step, _ in taken),
            sum(wait for _, wait in taken) / sum(step for step, _ in taken),
        )
        for name, taken in found.items()
    }


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = make_cache(folder, args.size, args.clips, args.frames)
        common: dict[str, Any] = {"workers": 0, "log": "none", "steps": 10_000, "precision": args.precision}
        first = {**common, "student": args.student, "batch_size": args.batch, "spatial": f"{SPATIAL}.patch"}
        first["semantic"] = f"{SEMANTIC}.cls"
        run = folder / "stage1"
        train(Request(stage="stage1", out=run, caches=(cache,), settings={**first, "steps": 1}), QUIET)
        add_student(cache, run)
        with contextlib.ExitStack() as steps:
            measure(args, cache, run, first, {**common, "batch_size": args.windows, "max_stride": 1}, steps)


def measure(
    args: argparse.Namespace,
    cache: Path,
    run: Path,
    first: dict[str, Any],
    second: dict[str, Any],
    steps: contextlib.ExitStack,
) -> None:
    """Time every kind of step and print the table. ``steps`` closes what was begun."""

    def begun(request: Request, source: str) -> Step:
        return steps.enter_context(contextlib.closing(Step(request, args.workers, source=source)))

    def stage1(source: str) -> Step:
        request = Request(stage="stage1", out=cache.parent / "new", caches=(cache,), settings=first)
        return begun(request, source)

    def stage2(source: str = "memory", **settings: Any) -> Step:
        out = cache.parent / "new"
        request = Request(stage="stage2", out=out, caches=(cache,), init=run, settings={**second, **settings})
        return begun(request, source)

    synthetic, streamed, shown = stage1("memory"), stage1("cache"), stage1("memory")
    online = Online(args.size, synthetic.accelerator.device)
    segments, naive = stage2(segment=args.windows), stage2(segment=1)
    tokens, streamed2 = stage2(segment=args.windows, tokens="student"), stage2("cache", segment=args.windows)
    tokens2 = stage2("cache", segment=args.windows, tokens="student")
    one = timed({"synthetic": synthetic, "cache": streamed, "online": lambda: shown(online)}, args.rounds, args.steps)
    two = timed(
        {
            "segments": segments,
            "naive": naive,
            "tokens": tokens,
            "segments, from the cache": streamed2,
            "tokens, from the cache": tokens2,
            "frozen encoder alone, segments": segments.encode,
            "frozen encoder alone, naive": naive.encode,
        },
        args.rounds,
        args.steps,
    )
    table(args, one, two)
    if torch.cuda.is_available():
        peak(args, synthetic, one["synthetic"][0])


def table(args: argparse.Namespace, one: dict[str, Any], two: dict[str, Any]) -> None:
    """Ratios."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    print(f"{args.student}/16 at {args.size} pixels, {args.precision}, {device}; {args.workers} reader process(es)\n")
    print(f"stage 1, {args.batch} frames a step          seconds   x synthetic   waits for data")
    for name, (step, wait) in one.items():
        print(f"  {name:<32} {step:8.3f}   {step / one['synthetic'][0]:8.2f}      {wait:7.1%}")
    print(f"\nstage 2, {args.windows} windows a step         seconds   segments x    waits for data")
    for name, (step, wait) in two.items():
        print(f"  {name:<32} {step:8.3f}   {step / two['segments'][0]:8.2f}      {wait:7.1%}")


def peak(args: argparse.Namespace, step: Step, seconds: float) -> None:
    """Images a second, and the share of the device's bf16 peak that the step's matrix products make up."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    rate = counter.get_total_flops() / seconds
    name = torch.cuda.get_device_name()
    best = next((value for key, value in PEAK_BF16.items() if name.startswith(key)), None)
    share = f", {rate / best:.1%} of the bf16 peak" if best else ""
    print(f"\n{args.batch / seconds:.0f} images/s, {rate / 1e12:.1f} TFLOP/s{share}")


if __name__ == "__main__":
    main()
