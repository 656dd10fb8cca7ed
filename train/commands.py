"""The bodies of ``frame-train``'s commands: call, then say what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.pipeline.store.files import disk_error
from frame.pipeline.store.objects import StorePath
from frame.train.config import Stage, TrainConfig
from frame.train.prepare import Request
from frame.train.recipe import load_recipe, recipe_names
from frame.train.run import Outcome, train
from frame.train.run_folder import CURVES, ENCODER, read_config


def train_command(
    stage: Stage,
    *,
    out: Path,
    caches: tuple[StorePath, ...],
    init: Path | None,
    recipe: str,
    settings: Mapping[str, Any],
    resume: bool,
    as_json: bool,
) -> int:
    """Train one stage; the exit code."""
    progress = Progress(quiet=as_json)
    request = Request(stage=stage, out=out, caches=caches, init=init, recipe=recipe, settings=settings, resume=resume)
    outcome = train(request, progress)
    if not outcome.speaks:
        return outcome.exit_code
    if as_json:
        print(json.dumps(_json(outcome)))
    else:
        print(_text(outcome))
    return outcome.exit_code


def _json(outcome: Outcome) -> dict[str, Any]:
    record = read_config(outcome.run)
    return {
        "run": str(outcome.run),
        "stage": record["stage"],
        "step": outcome.state.step,
        "ended": outcome.state.ended,
        "best_step": outcome.state.best_step,
        "validation": outcome.last_val,
        "parameters": record["parameters"],
    }


def _text(outcome: Outcome) -> str:
    run, state = outcome.run, outcome.state
    lines = [parameters_text(read_config(run)["parameters"])]
    figures = {name: value for name, value in outcome.last_val.items() if name not in ("kind", "step", "epoch")}
    if figures:
        lines.append("Validation: " + ", ".join(f"{name} {value:.4f}" for name, value in sorted(figures.items())))
    if not state.ended:
        lines.append(f"Stopped after step {state.step} and saved. To go on:\n  the same command with --resume")
    else:
        how = "nothing improved any more" if state.ended == "early" else "as asked"
        best = f", best at step {state.best_step}" if state.best_step is not None else ""
        lines.append(f"Ended after step {state.step} ({how}){best}. Encoder: {run / ENCODER}; curves: {run / CURVES}")
    return "\n".join(lines)


def parameters_text(parts: Mapping[str, int]) -> str:
    """Counts of parameters, one line."""
    listed = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in parts.items() if count)
    return f"Parameters: {sum(parts.values()) / 1e6:.2f} M ({listed})"


def export_command(run: Path, *, out: Path, height: int | None, width: int | None) -> None:
    """Export a run's encoder for frames of one size; each program is compared with it before it is kept."""
    from frame.model import FrameEncoder
    from frame.model.export import export_stage1, export_step

    encoder = FrameEncoder.from_pretrained(run)
    size = (height or encoder.config.size[0], width or encoder.config.size[1])
    try:
        out.mkdir(parents=True, exist_ok=True)
        export_stage1(encoder, out / "frame.pt2", size)
        if encoder.memory is not None:
            export_step(encoder, out / "step.pt2", size)
    except OSError as error:
        raise disk_error(error, out) from error
    except ValueError as error:
        raise InputError(what="Nothing was exported.", where=str(run), why=str(error)) from error
    print("\n".join(f"Wrote {path}." for path in sorted(out.glob("*.pt2"))))


def recipes_command() -> None:
    """List the recipes."""
    for name in recipe_names():
        print(f"{name:<26} {load_recipe(name).about}")


def settings_command() -> None:
    """List the settings with their defaults."""
    for field in fields(TrainConfig):
        if field.name != "stage":
            print(f"{field.name:<18} {field.default!r}")
