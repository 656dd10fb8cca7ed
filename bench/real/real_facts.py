"""What a reader must know of a `make real`: the data, the teacher, the settings, the machine, the time."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from real_run import seconds
from real_steps import PRESETS, TEACHER, Inputs, Size, Step, caches

import frame.eval.present.published as published
from frame.pipeline.store import open_cache

_SETTINGS = ("student", "depth", "patch", "steps", "batch_size", "segment", "max_stride", "lr", "optimizer",
             "cycle_epochs", "memory_frames", "memory_dim", "scaling", "precision")  # fmt: skip


def facts(inputs: Inputs, size: Size, out: Path, steps: Sequence[Step]) -> dict[str, list[str]]:
    """Lines by heading."""
    spent = sum(seconds(step, out) for step in steps) / 60
    return {
        "What was run": [
            f"`make real SIZE={size.name}`: {len(steps)} commands, {spent:.0f} minutes if added up; "
            f"seeds {', '.join(map(str, size.seeds))}; "
            f"preset `{PRESETS[1]}` and CamVid with seeds {', '.join(map(str, size.second))}",
            *_caches(inputs, out),
            f"teacher of both targets: {_teacher(inputs, out)}",
        ],
        "Training": [f"{stage}: {_settings(out, size, stage)}" for stage in ("stage1", "stage2")],
        "Time": [_times(steps, out)],
        "Machine": [_machine()],
    }


def published_rows() -> list[dict[str, Any]]:
    """The papers' figures for the student's shape and the tasks measured here."""
    models = ("DINO ViT-S/16", "FRAME S/16")
    rows = [
        row for task in ("davis", "camvid") for row in published.published_for(task) if row.model.startswith(models)
    ]
    return [
        {"model": row.model, "task": row.task, "scores": row.scores, "protocol": row.protocol}
        for row in rows
    ]  # fmt: skip


def _caches(inputs: Inputs, out: Path) -> list[str]:
    lines = []
    for videos, path in zip(inputs.videos, caches(inputs, out), strict=True):
        cache = open_cache(path)
        splits = cache.index.column("split").to_pylist()
        frames = sum(cache.index.column("n_frames").to_pylist())
        lines.append(
            f"cache of `{videos.parent.name}/{videos.name}`: {len(splits)} clips ({splits.count('train')} train, "
            f"{splits.count('val')} val), {frames:,} frames of {cache.meta.geometry['size']} px, plan "
            f"`{cache.meta.plan_id[:12]}`"
        )
    return lines


def _teacher(inputs: Inputs, out: Path) -> str:
    record = open_cache(caches(inputs, out)[0]).meta.teachers[TEACHER]
    return f"{record['library']} `{record['model']}`, weights `{record['weights']['sha256'][:12]}`"


def _settings(out: Path, size: Size, stage: str) -> str:
    config = json.loads((out / "runs" / f"scratch-{size.seeds[0]}" / stage / "config.json").read_text())
    used = {name: config["settings"][name] for name in _SETTINGS if config["settings"].get(name) is not None}
    millions = sum(config["parameters"].values()) / 1e6
    return (
        f"recipe `{size.recipe}`, {millions:.2f} M parameters: "
        + yaml.safe_dump(used, default_flow_style=True, sort_keys=False, width=10_000).strip()
    )


def _times(steps: Sequence[Step], out: Path) -> str:
    kinds: dict[str, list[float]] = {}
    for step in steps:
        kinds.setdefault(step.kind, []).append(seconds(step, out))
    return "; ".join(f"{kind} {sum(times) / len(times):.0f} s (x {len(times)})" for kind, times in kinds.items())


def _machine() -> str:
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {accelerator}; Python {platform.python_version()}, "
        f"torch {version('torch')}, timm {version('timm')}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
