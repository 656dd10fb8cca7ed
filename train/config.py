"""``TrainConfig``: everything that decides a run, in one flat record; from defaults, a recipe and the command line."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from frame.manifests.errors import InputError
from frame.model import WIDTHS
from frame.train.losses import ClsLoss, Scaling
from frame.train.optimizer import OptimizerName

Stage = Literal["stage1", "stage2"]
Student = Literal["vit_tiny", "vit_small", "vit_base"]
EncoderMode = Literal["frozen", "finetune", "scratch"]
Precision = Literal["no", "fp16", "bf16"]
Tracker = Literal["tensorboard", "wandb", "none"]

# What may differ when a run is resumed: it decides where and how fast, not what comes out.
UPKEEP = ("workers", "log", "checkpoint_every", "keep")

# What stage 1 has no use for.
STAGE2_ONLY = (
    *("max_stride", "future_spatial", "future_semantic", "future_weight", "tokens", "encoder", "anticipation"),
    *("memory_frames", "memory_dim", "memory_layers"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One stage's settings. None, and where it says so 0 or "", stands for "find out": ``frame.train.prepare`` does.
    Sources of the defaults: FRAME, and docs/training.md for the rest."""

    stage: Stage
    # Data.
    spatial: str = ""  # column of the patch targets; "": the cache's only *.patch
    semantic: str = ""  # column of the CLS targets; "": the cache's only *.cls
    split: str = "train"
    val_split: str = "val"
    share: float = 1.0  # part of the training clips used (FRAME's data ablation)
    segment: int = 0  # neighbouring windows cut from one segment; 0: 1 in stage 1, up to 16 in stage 2
    visits: int = 1  # segments taken from each clip an epoch
    max_stride: int = 4  # a window's frames lie 1 to this many rows apart
    future_spatial: int = 2  # the spatial anticipator's target, in frames ahead
    future_semantic: int = 4  # the semantic anticipator's
    tokens: str = ""  # stage 2: "" encodes pixels; NAME reads the columns NAME.patch and NAME.cls of the cache
    # Model.
    student: Student = "vit_small"
    student_init: str = ""  # safetensors of a ViT of the student's shape to begin as, or "teacher"; "": from scratch
    train_encoder: bool = True  # stage 1; False: a student begun as a teacher stays it, and only the heads learn
    patch: int = 16
    depth: int = 12
    spatial_depth: int = 1  # transformer blocks of a spatial decoder
    memory_frames: int = 5  # 0: no memory
    memory_dim: int = 64
    memory_layers: int = 1
    anticipation: bool = True
    encoder: EncoderMode = "frozen"  # stage 2: frozen, finetune, or scratch (no stage 1 at all)
    standardise: bool = False  # patch targets by the cache's mean and deviation a channel
    # Losses.
    cls_loss: ClsLoss = "cosine"
    scaling: Scaling = "mean"
    loss_dropout: float = 0.0
    future_weight: float = 1.0  # of the two anticipation losses, beside 1 for the current frame's
    # Optimisation.
    optimizer: OptimizerName = "adam"
    lr: float | None = None  # None: 5e-4 a batch of 128 in stage 1, scaled linearly; 1e-4 in stage 2
    weight_decay: float | None = None  # None: 1e-5 for Adam; 0.01 in stage 1 and 1e-4 in stage 2 for AdamW
    warmup_epochs: float | None = None  # None: a tenth of the first cycle
    cycle_epochs: float = 10.0  # the first cosine's length; each restart's is twice the one before. 0: the whole run
    clip: float = 1.0  # the gradient's largest norm; 0: any
    batch_size: int = 128  # windows a step, over all ranks
    accumulate: int = 1  # parts that each rank works its share of a batch off in
    epochs: float = 70.0
    steps: int = 0  # 0: as many as the epochs have
    eval_every: int = 0  # steps between validations; 0: at each epoch's end
    val_segments: int = 256  # segments of the validation split looked at, at most
    patience: int = 5  # validations without a better one before the run ends; 0: never
    seed: int = 0
    precision: Precision = "no"
    # Upkeep: see UPKEEP.
    workers: int = 2
    log: Tracker = "tensorboard"
    checkpoint_every: int = 500  # steps, besides one at each validation
    keep: int = 2  # newest checkpoints kept, besides the best

    def __post_init__(self) -> None:
        problems = [text for text, wrong in _problems(self).items() if wrong]
        if problems:
            raise InputError(what="These settings make no run.", where=self.stage, why="; ".join(problems))

    @property
    def width(self) -> int:
        """The student's width, D."""
        return WIDTHS[self.student]

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def _problems(config: TrainConfig) -> dict[str, bool]:
    c = config
    numbers = {name: value for name, value in asdict(c).items() if isinstance(value, float)}
    positive: tuple[str, ...] = (
        "patch",
        "depth",
        "spatial_depth",
        "memory_dim",
        "memory_layers",
        "visits",
        "max_stride",
    )
    positive += ("batch_size", "accumulate", "val_segments", "checkpoint_every", "keep")
    not_negative: tuple[str, ...] = (
        "segment",
        "memory_frames",
        "future_spatial",
        "future_semantic",
        "clip",
        "steps",
        "eval_every",
    )
    not_negative += ("patience", "seed", "workers", "cycle_epochs", "future_weight")
    return {
        **{f"{name} must be 1 or more": getattr(c, name) < 1 for name in positive},
        **{f"{name} must not be negative": getattr(c, name) < 0 for name in not_negative},
        **{f"{name} must be finite": not math.isfinite(value) for name, value in numbers.items()},
        "seed must be below 2^62": c.seed >= 1 << 62,
        "weight_decay and warmup_epochs must not be negative": min(c.weight_decay or 0, c.warmup_epochs or 0) < 0,
        "share must be above 0 and at most 1": not 0 < c.share <= 1,
        "loss_dropout must be from 0 to below 1": not 0 <= c.loss_dropout < 1,
        "epochs must be above 0": not c.epochs > 0,
        "lr must be above 0": c.lr is not None and not c.lr > 0,
        "memory_dim must be a multiple of 4 (sines and cosines of two axes)": c.memory_dim % 4 != 0,
        "the two anticipation targets need 1 frame ahead or more": c.stage == "stage2"
        and c.anticipation
        and min(c.future_spatial, c.future_semantic) < 1,
        "without memory and anticipation stage 2 would have nothing of its own to train": c.stage == "stage2"
        and not c.memory_frames
        and not c.anticipation,
        "cached tokens come from a frozen encoder: tokens needs encoder=frozen": bool(c.tokens)
        and c.encoder != "frozen",
    }


def changed(config: TrainConfig, values: Mapping[str, Any], *, where: str) -> TrainConfig:
    """``config`` with ``values`` by name, each of the field's own type. Raises ``InputError`` for any other."""
    return replace(config, **{name: typed(name, value, where=where) for name, value in values.items()})


def typed(name: str, value: object, *, where: str) -> Any:
    """``value`` as the field ``name`` has it: text from a command line or YAML's own types."""
    hints = _hints()
    if name not in hints or name == "stage":
        near = difflib.get_close_matches(name, list(hints), n=3)
        raise InputError(
            what=f"There is no setting {name!r}.",
            where=where,
            why=f"did you mean: {', '.join(near)}" if near else "",
            fix="`frame-train settings` lists them all.",
        )
    hint = hints[name]
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise _wrong(name, value, "one of " + ", ".join(get_args(hint)), where)
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)]
    return _scalar(name, value, kinds[0], where)


@functools.cache
def _hints() -> dict[str, Any]:
    """The fields' types: found once, since they are asked for once a setting."""
    return get_type_hints(TrainConfig)


def _scalar(name: str, value: object, kind: type, where: str) -> Any:
    if kind is bool:
        spelled = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}
        found = value if isinstance(value, bool) else spelled.get(str(value).lower())
        if found is None:
            raise _wrong(name, value, "true or false", where)
        return found
    if kind is str:
        return str(value)
    try:
        number = float(str(value))
        if isinstance(value, bool) or (kind is int and number != int(number)):
            raise ValueError
        return kind(number)
    except (ValueError, OverflowError):
        raise _wrong(name, value, "a whole number" if kind is int else "a number", where) from None


def _wrong(name: str, value: object, wanted: str, where: str) -> InputError:
    return InputError(what=f"{name} cannot be {value!r}.", where=where, fix=f"give {wanted}")


def differences(saved: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Where two settings differ in what decides a run: ``name: saved, asked``. A run from before a setting was there
    was trained with what is its default now."""
    decisive = {field.name: field.default for field in fields(TrainConfig) if field.name not in UPKEEP}
    pairs = {name: (saved.get(name, default), asked[name]) for name, default in decisive.items() if name in asked}
    return [f"{name}: run {old!r}, asked {new!r}" for name, (old, new) in pairs.items() if old != new]
