"""A trained student of this package: its frame encoder's own tokens, so that training the memory need not compute them.

A name is ``frame:WIDTH-DEPTH-PATCH[@HEIGHTxWIDTH]``: an architecture and the size in pixels that its positions were
learned for (without it, the frames' own). What is kept is what ``frame.model.ViTEncoder`` gives: all tokens after the
final norm. Memory and decoders play no part. A student sees exactly the pictures that the cache keeps, because it was
trained on those: their size, rounded to 8 bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version as installed
from typing import Any

from torch import Tensor, nn

from frame.manifests.errors import InputError
from frame.model.config import ModelConfig
from frame.model.vit import ViTEncoder
from frame.pipeline.teachers.names import TeacherName
from frame.pipeline.teachers.spec import Fit, TeacherSpec
from frame.pipeline.teachers.strict import mismatch

_MODEL = re.compile(r"([1-9]\d{0,4})-([1-9]\d{0,3})-([1-9]\d{0,3})")
_TAG = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
# How a whole encoder's weights name its frame encoder, which alone is wanted.
_PREFIX = "vit."


def version() -> str:
    """This package's version."""
    return installed("frame-encoder")


def student_name(config: ModelConfig) -> str:
    """``frame:192-12-16@224x224``: what to write after ``--teachers ALIAS=`` for the frame encoder of ``config``."""
    height, width = config.size
    return f"frame:{config.width}-{config.depth}-{config.patch}@{height}x{width}"


def describe(name: TeacherName, *, size: int, fit: Fit) -> TeacherSpec:
    """See ``Library.describe``."""
    if "=" not in name.requested:
        raise InputError(
            what="A student needs a name for its columns.",
            where=f"--teachers {name.requested}",
            fix="put one before it: --teachers student=RUN",
        )
    parts = _MODEL.fullmatch(name.model)
    if parts is not None and size % int(parts[3]):
        raise _no_whole_patches(name, size, int(parts[3]))
    tag = name.tag or f"{size}x{size}"
    config = _config(name.model, tag, where=f"--teachers {name.requested}")
    grid = (size // config.patch, size // config.patch)
    return TeacherSpec(
        name=name.slug, requested=name.requested, library="frame", model=name.model, tag=tag,
        patch=config.patch, width=config.width, grid=grid, input_size=size, fit=fit,
        mean=config.pixel_mean, std=config.pixel_std,
        columns={"patch": (grid[0] * grid[1], config.width), "cls": (config.width,)}, final_norm=True,
        licence="unknown", hub="", hub_files=(), eight_bit=True,
    )  # fmt: skip


def build(spec: TeacherSpec) -> nn.Module:
    """See ``Library.build``."""
    return ViTEncoder(_config(spec.model, spec.tag, where=f"--teachers {spec.requested}")).eval()


def adapt(
    state: Mapping[str, Tensor],
    model: nn.Module,
    spec: TeacherSpec,
    *,
    may_resample: bool,  # noqa: ARG001
) -> dict[str, Tensor]:
    """See ``Library.adapt``: the frame encoder's tensors out of a whole encoder's. Nothing is ever resampled."""
    encoder = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    if not encoder.keys() & model.state_dict().keys():
        raise mismatch([f"missing: every key of the frame encoder ({_PREFIX}...)"], where=f"{spec.name} ({spec.model})")
    return encoder


def features(model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """See ``Library.features``: patch [B, rows x columns, width], row-major, and cls [B, width]."""
    encoder: Any = model
    tokens: Tensor = encoder.tokens(pixels)
    return {"cls": tokens[:, 0], "patch": tokens[:, 1:]}


def _config(model: str, tag: str, *, where: str) -> ModelConfig:
    """The frame encoder's part of a configuration. Raises InputError for what is no such name."""
    parts, sides = _MODEL.fullmatch(model), _TAG.fullmatch(tag)
    if parts is None or sides is None:
        raise InputError(
            what="A student is named by its architecture.",
            where=where,
            why=f"{model}@{tag} is not WIDTH-DEPTH-PATCH@HEIGHTxWIDTH",
            fix="write --teachers student=RUN with its run folder, or for instance student=frame:192-12-16",
        )
    width, depth, patch = map(int, parts.groups())
    # The decoders are not built: any widths of teachers do.
    size = (int(sides[1]), int(sides[2]))
    try:
        return ModelConfig(width=width, depth=depth, patch=patch, size=size, semantic_dim=1, spatial_dim=1)
    except InputError as error:
        raise InputError(what=error.what, where=where, why=error.why or error.where, fix=error.fix) from error


def _no_whole_patches(name: TeacherName, size: int, patch: int) -> InputError:
    below, above = size // patch * patch, -(-size // patch) * patch
    sizes = f"{below} or {above}" if below else f"{above}"
    return InputError(
        what=f"Frames of {size} pixels are no whole number of patches of {name.slug}.",
        where=f"--teachers {name.requested}",
        why=f"a student sees the cache's own pictures, uncut, and its patches have {patch} pixels a side",
        fix=f"use a cache with --size {sizes}, or a student whose patches divide {size}",
    )
