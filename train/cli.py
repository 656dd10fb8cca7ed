"""``frame-train``: parse, call one function, print. Exit codes: 0 done, 1 failed, 2 wrong use, 75 stopped by SIGTERM
after saving (run it again with ``--resume``), 130 interrupted, after saving too."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from frame.manifests.command import run_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train FRAME from caches that frame-cache has built. No teacher is ever loaded. Several GPUs: "
    "`accelerate launch -m frame.train.cli stage1 …`.",
)

Caches = Annotated[
    list[str] | None,
    typer.Option("--cache", help="Cache (a folder, or s3://BUCKET/NAME), or several with commas between."),
]
Out = Annotated[Path, typer.Option(help="Folder of the run to make, or to go on with.")]
Init = Annotated[Path | None, typer.Option(help="Folder of the stage-1 run to begin from.")]
RecipeName = Annotated[str, typer.Option(help="Named settings: see `frame-train recipes`.")]
StudentName = Annotated[Literal["vit_tiny", "vit_small", "vit_base"] | None, typer.Option(help="Width of the student.")]
Patch = Annotated[int | None, typer.Option(help="Side of the student's patches: the spatial teacher's.")]
Spatial = Annotated[str | None, typer.Option(help="Column of the patch targets, such as dino_vits16.patch.")]
Semantic = Annotated[str | None, typer.Option(help="Column of the CLS targets, such as clip_vitb32.cls.")]
StudentInit = Annotated[
    str | None,
    typer.Option(help="Begin as a ViT of the student's shape: FILE, or `teacher`: the spatial one's own weights."),
]
Steps = Annotated[int | None, typer.Option(help="Steps to train; wins over --epochs.")]
Epochs = Annotated[float | None, typer.Option(help="Epochs to train; one visits every clip once.")]
BatchSize = Annotated[int | None, typer.Option(help="Windows (stage 1: frames) a step, over all GPUs.")]
Lr = Annotated[float | None, typer.Option(help="Peak learning rate.")]
Seed = Annotated[int | None, typer.Option(help="Of the student's first values and of the order of windows.")]
PrecisionName = Annotated[Literal["no", "fp16", "bf16"] | None, typer.Option(help="Mixed precision.")]
Workers = Annotated[int | None, typer.Option(help="Processes that read ahead; what comes out does not depend on it.")]
Log = Annotated[Literal["tensorboard", "wandb", "none"] | None, typer.Option(help="Where curves go, besides the run.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="NAME=VALUE of `frame-train settings`; may be repeated.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out; its settings are remembered.")]
Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON on standard output.")]


@app.command()
def stage1(
    out: Out,
    cache: Caches = None,
    recipe: RecipeName = "",
    student: StudentName = None,
    patch: Patch = None,
    spatial: Spatial = None,
    semantic: Semantic = None,
    student_init: StudentInit = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Lr = None,
    seed: Seed = None,
    precision: PrecisionName = None,
    workers: Workers = None,
    log: Log = None,
    settings: Settings = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Fit a student to the cached features of the teachers, frame by frame."""
    _run("stage1", locals())


@app.command()
def stage2(
    out: Out,
    cache: Caches = None,
    init: Init = None,
    recipe: RecipeName = "",
    student: StudentName = None,
    patch: Patch = None,
    spatial: Spatial = None,
    semantic: Semantic = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Lr = None,
    seed: Seed = None,
    precision: PrecisionName = None,
    workers: Workers = None,
    log: Log = None,
    settings: Settings = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Freeze the student and train memory and anticipation on windows of frames."""
    _run("stage2", locals())


@app.command()
def recipes() -> None:
    """List the named settings."""
    from frame.train.commands import recipes_command

    recipes_command()


@app.command()
def settings() -> None:
    """List every setting with its default."""
    from frame.train.commands import settings_command

    settings_command()


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that has ended.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the programs.")],
    height: Annotated[int | None, typer.Option(help="Of the frames, in pixels. Default: as trained.")] = None,
    width: Annotated[int | None, typer.Option(help="Of the frames, in pixels. Default: as trained.")] = None,
) -> None:
    """Write torch.export programs: frame.pt2 (single frames) and, after stage 2, step.pt2 (memory as an input)."""
    from frame.train.commands import export_command

    export_command(run, out=out, height=height, width=width)


def _run(stage: Literal["stage1", "stage2"], given: dict[str, Any]) -> None:
    """One stage with the options as typer hands them over."""
    from frame.pipeline.store.objects import store_path
    from frame.train.commands import train_command

    caches = tuple(
        store_path(name.strip()) for text in given["cache"] or () for name in text.split(",") if name.strip()
    )
    named = ("student", "patch", "spatial", "semantic", "steps", "epochs", "batch_size", "lr", "seed", "precision")
    values = {name: given[name] for name in (*named, "student_init", "workers", "log") if given.get(name) is not None}
    for text in given["settings"] or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
        if values.setdefault(name, value) is not value:
            raise typer.BadParameter(f"{name} is given twice", param_hint="--set")
    sys.exit(
        train_command(
            stage,
            out=given["out"],
            caches=caches,
            init=given.get("init"),
            recipe=given["recipe"],
            settings=values,
            resume=given["resume"],
            as_json=given["as_json"],
        )
    )


def _requeue(*_: object) -> None:
    """Asked to stop before there is anything to save."""
    sys.exit(75)


def main() -> None:
    """The console command."""
    signal.signal(signal.SIGUSR1, _requeue)
    run_command(app, "frame-train", terminated=_requeue)


if __name__ == "__main__":
    main()
