"""From a request to a run that can start: settings resolved, caches opened, windows planned, method built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from frame.manifests.errors import InputError
from frame.model import FrameEncoder, weights_digest
from frame.pipeline.store.objects import StorePath, store_path
from frame.train import stage1, stage2
from frame.train.config import STAGE2_ONLY, Stage, TrainConfig, changed, differences
from frame.train.loop import Pace
from frame.train.method import Method
from frame.train.recipe import Recipe, load_recipe
from frame.train.run_folder import CONFIG, ENCODER, read_config
from frame.train.sources import Sources, open_sources
from frame.train.student_init import TEACHER, teacher_file
from frame.train.windows import SpanTable, WindowPlan, WindowShape, find_spans, fitting

_INHERITED = ("student", "patch", "depth", "spatial_depth", "spatial", "semantic", "standardise")
_MOST_WINDOWS = 16  # of a segment: 16 windows of 6 frames then share 21
_FITTING = 0.95  # of the spans that a segment chosen here has to fit into


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was asked for. ``settings`` are those given by hand, by name."""

    stage: Stage
    out: Path
    caches: tuple[StorePath, ...] = ()
    init: Path | None = None
    recipe: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run, ready but for its place on a device. ``record`` is the content of RUN/config.json; ``val`` is None where
    the caches hold no validation clips; ``notes`` are for the person watching."""

    config: TrainConfig
    sources: Sources
    method: Method
    train: WindowPlan
    val: WindowPlan | None
    pace: Pace
    record: dict[str, Any]
    notes: tuple[str, ...]


def prepare(request: Request) -> Prepared:
    """Resolve everything; writes nothing. Raises ``InputError`` for whatever does not fit, and for a resumed run whose
    settings, caches or first stage are not those it was begun with."""
    _require_sense(request)
    saved = _saved(request)
    recipe = load_recipe(request.recipe) if request.recipe else None
    init = _init_path(request, saved)
    config = _asked(request, saved, recipe, init)
    if (
        not config.train_encoder and not config.student_init
    ):  # told only now: a recipe may say the one, a person the other
        raise InputError(
            what="An encoder that is not trained must begin as something.",
            where="train_encoder=False",
            fix="--student-init teacher, or --student-init FILE",
        )
    caches = request.caches or tuple(store_path(entry["path"]) for entry in (saved or {}).get("caches", ()))
    if not caches:
        raise InputError(what="Which cache?", where="--cache", fix="--cache CACHE, or several: --cache A,B")
    sources = open_sources(caches, config, None if saved else recipe)
    encoder, origin = _first_stage(request, config, init)
    config = replace(config, spatial=sources.spatial.name, semantic=sources.semantic.name)
    if config.student_init == TEACHER:
        config = replace(config, student_init=str(teacher_file(sources)))
    spans, val_spans = (_spans(sources, config, split) for split in (config.split, config.val_split))
    config = _resolved(config, spans)
    method = _build(config, sources, encoder)
    train, notes = _train_plan(config, method.shape, spans)
    val, more_notes = _val_plan(config, method.shape, val_spans)
    pace = _pace(config, train)
    if pace.batch * config.segment != config.batch_size:
        notes.append(f"a batch is {pace.batch} whole segments: {pace.batch * config.segment} windows")
    config = replace(config, batch_size=pace.batch * config.segment, warmup_epochs=_warmup(config, pace))
    record = {
        "stage": config.stage,
        "recipe": request.recipe or (saved or {}).get("recipe", ""),
        "settings": config.to_json(),
        "caches": sources.describe(),
        "init": origin,
        "parameters": method.encoder.parameters_by_part(),
        "segments_per_epoch": train.per_epoch,
        "total_steps": pace.total_steps,
    }
    if saved is not None:
        _require_same_run(saved, record, request.out)
    return Prepared(
        config=config,
        sources=sources,
        method=method,
        train=train,
        val=val,
        pace=pace,
        record=record,
        notes=(*notes, *more_notes),
    )


def _require_sense(request: Request) -> None:
    """Refuse options that would do nothing."""
    idle = [name for name in STAGE2_ONLY if name in request.settings] if request.stage == "stage1" else []
    if idle:
        raise InputError(
            what="Stage 1 has no use for these settings.",
            where=", ".join(idle),
            fix="leave them out; give them to stage 2",
        )
    if request.stage == "stage2" and request.init is not None and request.settings.get("student_init"):
        raise InputError(
            what="Stage 2 begins from the run in --init, not from a teacher.",
            where=f"student_init={request.settings['student_init']}",
            fix="give it to stage 1",
        )
    if request.stage == "stage2" and "train_encoder" in request.settings:
        raise InputError(
            what="Stage 2 has a setting of its own for this.",
            where=f"train_encoder={request.settings['train_encoder']}",
            fix="encoder=frozen, finetune or scratch",
        )
    if request.init is not None and request.settings.get("encoder") == "scratch":
        raise InputError(
            what="Training from scratch does not begin from a run.",
            where=f"--init {request.init}, encoder=scratch",
            fix="leave out one of them; encoder=finetune trains the encoder of --init on",
        )


def _saved(request: Request) -> dict[str, Any] | None:
    """The record of the run to go on with; None for a new one."""
    there = (request.out / CONFIG).exists()
    if there and not request.resume:
        raise InputError(
            what="The folder already holds a run.",
            where=str(request.out),
            fix="--resume goes on with it; or give another --out",
        )
    if not there and request.out.is_dir() and any(entry.name != "tmp" for entry in request.out.iterdir()):
        raise InputError(what="The output exists and is not a run.", where=str(request.out), fix="give another --out")
    # A batch job gives --resume from the start, so that being requeued changes nothing in its command.
    saved = read_config(request.out) if there else None
    if saved is not None and saved["stage"] != request.stage:
        raise InputError(
            what=f"This is a {saved['stage']} run.",
            where=str(request.out),
            fix=f"frame-train {saved['stage']} --out {request.out} --resume",
        )
    return saved


def _asked(request: Request, saved: Mapping[str, Any] | None, recipe: Recipe | None, init: Path | None) -> TrainConfig:
    """Defaults, then what stage 1 was trained with, then the recipe, then what was given by hand."""
    config = TrainConfig(stage=request.stage)
    if saved is not None:
        config = changed(config, _settings(saved), where=str(request.out / CONFIG))
    elif init is not None:
        inherited = read_config(init)["settings"]
        config = changed(
            config, {name: inherited[name] for name in _INHERITED if name in inherited}, where=str(init / CONFIG)
        )
    if recipe is not None:
        config = changed(config, recipe.settings(request.stage), where=f"--recipe {recipe.name}")
    return changed(config, request.settings, where="command line")


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record["settings"].items() if name != "stage" and value is not None}


def _init_path(request: Request, saved: Mapping[str, Any] | None) -> Path | None:
    """The first stage's run folder, if this run has one."""
    if request.stage == "stage1":
        if request.init is not None:
            raise InputError(what="Stage 1 begins from nothing.", where=f"--init {request.init}", fix="leave it out")
        return None
    path = request.init or (Path(saved["init"]["path"]) if saved and saved["init"] else None)
    if path is None:
        return None
    stage = read_config(path)["stage"]
    if stage != "stage1":
        raise InputError(
            what="Stage 2 begins from a stage-1 run.",
            where=f"--init {path}",
            why=f"this is a {stage} run",
            fix="give the folder that `frame-train stage1 … --out RUN` made",
        )
    return path


def _first_stage(
    request: Request, config: TrainConfig, init: Path | None
) -> tuple[FrameEncoder | None, dict[str, Any]]:
    """The trained first stage and what the run remembers of it; (None, {}) where there is none."""
    if request.stage == "stage1" or config.encoder == "scratch":
        return None, {}
    if init is None:
        raise InputError(
            what="Stage 2 begins from a stage-1 run: which one?",
            where="--init",
            fix="--init RUN; or --set encoder=scratch to train both at once",
        )
    if not (init / ENCODER).is_dir():
        raise InputError(
            what="This stage-1 run has not ended: it has no encoder yet.",
            where=str(init / ENCODER),
            fix=f"frame-train stage1 --out {init} --resume",
        )
    encoder = FrameEncoder.from_pretrained(init)
    return encoder, {"path": str(init.resolve()), "weights_sha256": weights_digest(encoder.state_dict())}


def _spans(sources: Sources, config: TrainConfig, split: str) -> SpanTable:
    names = [*stage2.input_columns(config), sources.spatial.name, sources.semantic.name]
    share = config.share if split == config.split else 1.0
    return SpanTable.joined(
        [
            find_spans(cache, number, names, splits_wanted=split, share=share, seed=config.seed)
            for number, cache in enumerate(sources.caches)
        ]
    )


def _shape(config: TrainConfig, segment: int) -> WindowShape:
    return stage1.window_shape(segment) if config.stage == "stage1" else stage2.window_shape(config, segment)


def _resolved(config: TrainConfig, spans: SpanTable) -> TrainConfig:
    """Fill in what was left to be found out."""
    first = config.stage == "stage1"
    segment = config.segment or (1 if first else _longest_segment(config, spans))
    lr = config.lr or (5e-4 * config.batch_size / 128 if first else 1e-4)
    decay = {"adam": 1e-5, "adamw": 0.01 if first else 1e-4}[config.optimizer]
    return replace(
        config,
        segment=segment,
        lr=lr,
        weight_decay=decay if config.weight_decay is None else config.weight_decay,
        future_spatial=0 if first else config.future_spatial,
        future_semantic=0 if first else config.future_semantic,
    )


def _longest_segment(config: TrainConfig, spans: SpanTable) -> int:
    """The most windows, up to 16 and a batch, whose segment fits into nearly all of the clips."""
    for windows in range(min(_MOST_WINDOWS, config.batch_size), 1, -1):
        if len(fitting(spans, _shape(config, windows))) >= _FITTING * len(spans):
            return windows
    return 1


def _build(config: TrainConfig, sources: Sources, encoder: FrameEncoder | None) -> Method:
    if config.stage == "stage1":
        return stage1.build_stage1(config, sources)
    return stage2.build_stage2(config, sources, encoder)


def _train_plan(config: TrainConfig, shape: WindowShape, spans: SpanTable) -> tuple[WindowPlan, list[str]]:
    fits = fitting(spans, shape)
    if not fits:
        longest = int((spans.stop - spans.start).max()) if len(spans) else 0
        raise InputError(
            what="No clip is long enough to train on." if spans else "There is no clip to train on.",
            where=f"split {config.split!r}",
            why=f"a segment of {shape.windows} windows takes {shape.windows + shape.future} frames, the longest run of "
            f"frames has {longest}"
            if spans
            else "no clip of this split can be read in all columns that are needed",
            fix="--set segment=1, nearer targets (future_spatial, future_semantic), or longer clips"
            if spans
            else "--set split=NAME; `frame-cache info CACHE` tells what is there",
        )
    notes = []
    if len(fits) < len(spans):
        notes.append(f"{len(spans) - len(fits)} of {len(spans)} runs of frames are too short for a segment: left out")
    plan = WindowPlan(fits, shape, seed=config.seed, max_stride=config.max_stride, visits=config.visits)
    return plan, notes


def _val_plan(config: TrainConfig, shape: WindowShape, spans: SpanTable) -> tuple[WindowPlan | None, list[str]]:
    fits = fitting(spans, shape)
    if not fits:
        return None, [f"no clips of split {config.val_split!r} to validate on: no early stopping, the last step counts"]
    return WindowPlan(fits, shape, seed=config.seed, max_stride=config.max_stride), []


def _pace(config: TrainConfig, plan: WindowPlan) -> Pace:
    batch = max(1, round(config.batch_size / config.segment))
    total = config.steps or math.ceil(config.epochs * plan.per_epoch / batch)
    return Pace(batch=batch, per_epoch=plan.per_epoch, total_steps=total, eval_every=config.eval_every)


def _warmup(config: TrainConfig, pace: Pace) -> float:
    """In epochs: a tenth of the first cycle, where nothing was said."""
    if config.warmup_epochs is not None:
        return config.warmup_epochs
    return 0.1 * (config.cycle_epochs or pace.epoch(pace.total_steps))


def _require_same_run(saved: Mapping[str, Any], record: Mapping[str, Any], out: Path) -> None:
    """Refuse to go on with a run under anything else than it was begun with; a longer one is no other one, unless its
    schedule spans the whole run."""
    differing = differences(saved["settings"], record["settings"])
    if record["settings"]["cycle_epochs"]:
        differing = [text for text in differing if not text.startswith(("steps:", "epochs:"))]
    for number, (old, new) in enumerate(zip(saved["caches"], record["caches"], strict=False)):
        differing += [
            f"cache {number + 1}: {key} run {old[key]}, now {new[key]}"
            for key in ("plan", "targets")
            if old[key] != new[key]
        ]
    if len(saved["caches"]) != len(record["caches"]):
        differing.append(f"caches: run {len(saved['caches'])}, asked {len(record['caches'])}")
    if (saved["init"] or {}).get("weights_sha256") != (record["init"] or {}).get("weights_sha256"):
        differing.append("the stage-1 encoder is another one")
    if saved["segments_per_epoch"] != record["segments_per_epoch"]:
        differing.append(f"segments an epoch: run {saved['segments_per_epoch']}, now {record['segments_per_epoch']}")
    if differing:
        raise InputError(
            what="The run was begun with other options or other data.",
            where=str(out),
            why="; ".join(differing),
            fix="resume with the same ones (leave them out: they are remembered), or give another --out",
        )
