"""What a FRAME encoder is built from: every number that decides its shape, and how it reads pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from frame.manifests.errors import InputError

# Widths of timm's models of these names, whose depth (12) and heads (64 channels each) are the defaults here.
WIDTHS = {"vit_tiny": 192, "vit_small": 384, "vit_base": 768}

_HEAD = 64  # channels of an attention head, as in every DINO and DeiT
_Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryConfig:
    """The memory of past frames (FRAME 3.2).

    ``frames`` are remembered (five: FRAME's best), each token as ``dim`` numbers (64, as in SAM 2), and read by
    ``layers`` layers of attention. Raises InputError for impossible values.
    """

    frames: int = 5
    dim: int = 64
    layers: int = 1

    def __post_init__(self) -> None:
        _require_counts(memory_frames=self.frames, memory_dim=self.dim, memory_layers=self.layers)
        if self.dim % 4:
            raise _impossible(f"memory dim is {self.dim}", "make it a multiple of 4: sines and cosines of two axes")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """An encoder and its decoders.

    ``size`` is (height, width) in pixels that positions are learned for; other sizes interpolate them. ``memory`` is
    None in stage 1. ``anticipation``: whether the two decoders of the future are there. Raises InputError for
    impossible values.
    """

    width: int  # D, a multiple of 64 (below 64: one head)
    depth: int = 12
    patch: int = 16  # pixels a side
    size: tuple[int, int]
    semantic_dim: int  # width of the CLIP space
    spatial_dim: int  # width of the DINO space
    spatial_depth: int = 1  # transformer blocks of a spatial decoder
    memory: MemoryConfig | None = None
    anticipation: bool = False
    pixel_mean: _Triple = (0.485, 0.456, 0.406)  # of RGB in 0..1; ImageNet's
    pixel_std: _Triple = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        _require_counts(
            width=self.width, depth=self.depth, patch=self.patch, height=self.size[0], width_in_pixels=self.size[1],
            semantic_dim=self.semantic_dim, spatial_dim=self.spatial_dim, spatial_depth=self.spatial_depth,
        )  # fmt: skip
        if self.width > _HEAD and self.width % _HEAD:
            raise _impossible(f"width is {self.width}", f"make it a multiple of {_HEAD}, the width of a head")
        if any(side % self.patch for side in self.size):
            raise _impossible(
                f"size is {self.size[0]} x {self.size[1]}, patch is {self.patch}",
                "make height and width multiples of the patch",
            )
        if not all(map(math.isfinite, (*self.pixel_mean, *self.pixel_std))) or min(self.pixel_std) <= 0:
            raise _impossible(
                f"pixel_mean is {self.pixel_mean}, pixel_std is {self.pixel_std}",
                "give finite means and positive standard deviations",
            )

    @property
    def heads(self) -> int:
        """Attention heads of every block: one for each 64 channels."""
        return max(1, self.width // _HEAD)

    @property
    def name(self) -> str:
        """``vit-WIDTH-DEPTH-PATCH``, for instance ``vit-384-12-16``."""
        return f"vit-{self.width}-{self.depth}-{self.patch}"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: object, *, where: str = "") -> ModelConfig:
        """The configuration that ``to_json`` gave.

        ``where`` is the file, for messages. Raises InputError naming what is unknown, missing or impossible.
        """
        values = _by_field(cls, stored, where)
        memory = values.get("memory")
        try:
            if memory is not None:
                values["memory"] = MemoryConfig(**_by_field(MemoryConfig, memory, where))
            return cls(**values)
        except InputError as error:
            raise InputError(what=error.what, where=error.where or where, why=error.why, fix=error.fix) from error


def _by_field(kind: type[MemoryConfig] | type[ModelConfig], stored: object, where: str) -> dict[str, Any]:
    """The values of a dataclass's fields out of a JSON object, each of the right type."""
    name = kind.__name__
    if not isinstance(stored, Mapping):
        raise InputError(what=f"This is no {name}.", where=where, why=f"it is {stored!r}, not a JSON object")
    known = {field.name: field for field in fields(kind)}
    problems = [f"unknown: {key}" for key in stored if key not in known]
    problems += [f"missing: {key}" for key, field in known.items() if key not in stored and field.default is MISSING]
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
    for key in values.keys() & known.keys():
        if not _TYPES[str(known[key].type)](values[key]):
            problems.append(f"impossible: {key} is {stored[key]!r}")
    if problems:
        raise InputError(
            what=f"This is not the {name} of an encoder of this version.",
            where=where,
            why="; ".join(sorted(problems)),
            fix="use the file as the encoder's save_pretrained wrote it, and the version of this package that wrote it",
        )
    return values


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_triple(value: object) -> bool:
    numbers = isinstance(value, tuple) and all(_is_int(item) or isinstance(item, float) for item in value)
    return numbers and len(value) == 3  # type: ignore[arg-type]


# What a JSON value must be for each type of field above (annotations are text here: this module postpones them).
_TYPES: dict[str, Callable[[object], bool]] = {
    "int": _is_int,
    "bool": lambda value: isinstance(value, bool),
    "tuple[int, int]": lambda value: isinstance(value, tuple) and len(value) == 2 and all(map(_is_int, value)),
    "_Triple": _is_triple,
    "MemoryConfig | None": lambda value: value is None or isinstance(value, Mapping),
}


def _require_counts(**counts: int) -> None:
    wrong = [f"{name} is {value}" for name, value in counts.items() if not _is_int(value) or value < 1]
    if wrong:
        raise _impossible("; ".join(wrong), "give whole numbers of 1 and more")


def _impossible(why: str, fix: str) -> InputError:
    return InputError(what="No such encoder can be built.", why=why, fix=fix)
