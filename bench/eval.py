"""Label propagation against a straightforward dense implementation of the same preset: time and memory, in one run.

    python bench/eval.py [--width 384] [--rounds 3] [--frames 4] [--presets dino,siammae] [--patches 8,16]

*dense* is how the reference scripts do it: the affinity of every cell with every cell of all context frames at once,
and a whole mask of (hw)^2. Both see the same features of a slowly changing scene, and must give the same labels.
Times are of one frame when the context is full; rounds are interleaved, medians compared. Memory is the growth of a
fresh process's peak resident set while it propagates, for the kernel also at patch 8. J and F over folders of masks:
bench/eval_metrics.py.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from frame.eval.propagate.images import input_size
from frame.eval.propagate.preset import Preset, load_preset
from frame.eval.propagate.propagation import Propagation, Propagator

NATIVE = (480, 854)
CLASSES = 3
GIB = 1 << 30


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=384, help="of the features: 384 is ViT-S")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=4, help="a round")
    parser.add_argument("--presets", default="dino,siammae")
    parser.add_argument("--patches", default="16,8", help="of the memory's table; dense at 16 only")
    parser.add_argument("--memory", nargs=3, metavar=("KIND", "PRESET", "PATCH"), help=argparse.SUPPRESS)
    return parser.parse_args()


class Scene:
    """Features that change slowly, from frame to frame the same for everyone who asks."""

    def __init__(self, preset: Preset, patch: int, width: int) -> None:
        size = input_size(NATIVE, rule=preset.input.rule, sides=preset.input.sides, patch=patch)
        self.grid = (size[0] // patch, size[1] // patch)
        self._still = torch.randn(*self.grid, width, generator=torch.Generator().manual_seed(0))
        classes = torch.randint(CLASSES, self.grid, generator=torch.Generator().manual_seed(1))
        self.labels_hwC = functional.one_hot(classes, CLASSES).float()

    def __getitem__(self, frame: int) -> Tensor:
        """float32 [h, w, D]."""
        noise = torch.randn(self._still.shape, generator=torch.Generator().manual_seed(2 + frame))
        return self._still + 0.7 * noise


class Dense:
    """Straightforward: whole affinities, whole masks, copies of frames as copies."""

    def __init__(self, knobs: Propagation) -> None:
        self._knobs = knobs

    def begin(self, features_hwD: Tensor, labels_hwC: Tensor) -> None:
        self._grid = features_hwD.shape[:2]
        self._mask_LL = self._mask(*self._grid)
        self._first = (self._flat(features_hwD), labels_hwC.flatten(0, 1))
        self._queue = [self._first] * (self._knobs.context if self._knobs.queue == "padded" else 0)

    def step(self, features_hwD: Tensor) -> Tensor:
        queries_LD = self._flat(features_hwD)
        context = [self._first, *self._queue]
        keys_FLD = torch.stack([features for features, _ in context])
        labels_NC = torch.cat([labels for _, labels in context])
        weigh = self._dino if self._knobs.ties == "keep" else self._crw
        labels_LC = weigh(queries_LD, keys_FLD, labels_NC)
        self._queue = [*self._queue, (queries_LD, labels_LC)][-self._knobs.context :]
        return labels_LC.reshape(*self._grid, -1)

    def _dino(self, queries_LD: Tensor, keys_FLD: Tensor, labels_NC: Tensor) -> Tensor:
        frames, cells, _ = keys_FLD.shape
        affinity_FLL = torch.exp(
            torch.bmm(queries_LD.expand(frames, -1, -1), keys_FLD.transpose(1, 2)) / self._knobs.temperature
        )
        affinity_FLL *= self._mask_LL
        affinity_NL = affinity_FLL.transpose(2, 1).reshape(-1, cells)
        least_L = affinity_NL.topk(self._knobs.topk, dim=0).values.amin(dim=0)
        affinity_NL[affinity_NL < least_L] = 0
        return (affinity_NL / affinity_NL.sum(dim=0, keepdim=True)).T @ labels_NC

    def _crw(self, queries_LD: Tensor, keys_FLD: Tensor, labels_NC: Tensor) -> Tensor:
        frames, cells, _ = keys_FLD.shape
        affinity_FLL = torch.bmm(keys_FLD, queries_LD.T.expand(frames, -1, -1))
        affinity_FLL[int(not self._knobs.mask_first) :] += (1 - self._mask_LL) * -1e10
        affinity_FLL /= self._knobs.temperature
        best = affinity_FLL.reshape(-1, cells).topk(self._knobs.topk, dim=0)
        return (labels_NC[best.indices] * best.values.softmax(dim=0)[..., None]).sum(dim=0)

    def _flat(self, features_hwD: Tensor) -> Tensor:
        return functional.normalize(features_hwD.flatten(0, 1), dim=1)

    def _mask(self, height: int, width: int) -> Tensor:
        rows, columns = (
            axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        )
        down, right = (axis[:, None] - axis for axis in (rows, columns))
        if self._knobs.shape == "square":
            near_LL = (down.abs() <= self._knobs.radius) & (right.abs() <= self._knobs.radius)
        else:
            near_LL = (down**2 + right**2) ** 0.5 < self._knobs.radius
        return near_LL.float()


def begun(kind: str, preset: Preset, scene: Scene, count: int) -> Propagator | Dense:
    """One that has seen ``count`` frames."""
    made = (Propagator if kind == "kernel" else Dense)(preset.propagation)
    made.begin(scene[0], scene.labels_hwC)
    for frame in range(1, count):
        made.step(scene[frame])
    return made


def times(preset: Preset, scene: Scene, rounds: int, frames: int) -> tuple[float, float, float]:
    """Median seconds a frame of the kernel and of dense, and the largest difference of their labels."""
    full = preset.propagation.context + 2
    both = [begun(kind, preset, scene, full) for kind in ("kernel", "dense")]
    taken: list[list[float]] = [[], []]
    apart = 0.0
    for number in range(rounds + 1):
        found: list[list[Tensor]] = [[], []]
        for place, made in enumerate(both):
            for frame in range(full + number * frames, full + (number + 1) * frames):
                features_hwD = scene[frame]
                began = time.perf_counter()
                found[place].append(made.step(features_hwD))
                if number:  # the first round warms up
                    taken[place].append(time.perf_counter() - began)
        apart = max(apart, *(float((one - other).abs().max()) for one, other in zip(*found, strict=True)))
    return statistics.median(taken[0]), statistics.median(taken[1]), apart


def peak(kind: str, name: str, patch: int, width: int) -> tuple[float, float]:
    """Bytes that a fresh process grows by while it propagates with a full context, and its peak."""
    command = [sys.executable, __file__, "--width", str(width), "--memory", kind, name, str(patch)]
    grown, whole = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(grown), float(whole)


def measure_memory(kind: str, name: str, patch: int, width: int) -> None:
    """In that process: print both."""
    preset = load_preset("davis", name)
    scene = Scene(preset, patch, width)
    torch.bmm(scene[0], scene[1].transpose(1, 2))  # the libraries' own buffers
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    begun(kind, preset, scene, preset.propagation.context + 3)
    print(resident("VmHWM") - before, resident("VmHWM"))


def resident(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most. (getrusage would tell the parent's peak.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    args = arguments()
    if args.memory:
        kind, name, patch = args.memory
        measure_memory(kind, name, int(patch), args.width)
        return
    presets = [load_preset("davis", name) for name in args.presets.split(",")]
    print(f"{NATIVE[0]} x {NATIVE[1]}, features of {args.width}, {torch.get_num_threads()} threads\n")
    print("a frame, patch 16      grid   frames    kernel s     dense s   times faster   largest difference")
    for preset in presets:
        scene = Scene(preset, 16, args.width)
        kernel, dense, apart = times(preset, scene, args.rounds, args.frames)
        grid = "x".join(map(str, scene.grid))
        frames = preset.propagation.context + 1
        print(
            f"{preset.name:<18} {grid:>8} {frames:8} {kernel:11.3f} {dense:11.3f} {dense / kernel:14.1f} {apart:20.1e}"
        )
    print("\nmemory             patch     grid     kernel GiB   dense GiB   whole (hw)^2 x frames, GiB   peak GiB")
    for preset in presets:
        for patch in map(int, args.patches.split(",")):
            grid_hw = Scene(preset, patch, 1).grid
            grown, whole = peak("kernel", preset.name, patch, args.width)
            dense_text = f"{peak('dense', preset.name, patch, args.width)[0] / GIB:.2f}" if patch >= 16 else "not run"
            affinity = 4 * (grid_hw[0] * grid_hw[1]) ** 2 * (preset.propagation.context + 1)
            print(
                f"{preset.name:<18} {patch:5} {'x'.join(map(str, grid_hw)):>8} {grown / GIB:14.2f} {dense_text:>11} "
                f"{affinity / GIB:28.2f} {whole / GIB:10.2f}"
            )


if __name__ == "__main__":
    main()
