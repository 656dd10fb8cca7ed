"""Plain vision transformers of timm: patch tokens on a grid, and a class token where the model has one.

What is kept is timm's own ``forward_features``: the last block after the final norm. Position embeddings are
interpolated to the real grid by timm at each forward (``dynamic_img_size``), so that the weights, and their
digest, are the checkpoint's at every frame size.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import sys
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from frame.manifests.errors import InputError
from frame.pipeline.teachers.names import TeacherName, unknown_teacher
from frame.pipeline.teachers.spec import Fit, TeacherSpec
from frame.pipeline.teachers.strict import mismatch

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
# Classifiers, and the projection heads of DINO's, DINOv2's and DINOv3's training: features come from before them.
_HEADS = re.compile(r"(head|fc|head_dist|dino_head|ibot_head)\.")


def version() -> str:
    """timm's version."""
    return str(timm.__version__)


def describe(name: TeacherName, *, size: int, fit: Fit) -> TeacherSpec:
    """See ``Library.describe``. Builds the model without memory, on torch's meta device, and runs it there."""
    config = _pretrained_config(name)
    full = f"{name.model}.{config.tag}" if config and config.tag else name.model
    model = _meta_model(name, full)
    patch, grid = _patch_and_grid(name, model, size)
    side = grid[0] * patch
    with torch.inference_mode():
        tokens = model.forward_features(torch.empty(1, 3, side, side, device="meta"))
    prefix, width = _tokens(name, model, tokens, grid)
    data = resolve_model_data_config(model)
    columns: dict[str, tuple[int, ...]] = {"patch": (grid[0] * grid[1], width)}
    if prefix and getattr(model, "cls_token", None) is not None:
        columns["cls"] = (width,)
    repository, files = _hub(config)
    return TeacherSpec(
        name=name.slug, requested=name.requested, library="timm", model=name.model,
        tag=(config.tag or "") if config else "", patch=patch, width=width, grid=grid, input_size=side, fit=fit,
        mean=tuple(data["mean"]), std=tuple(data["std"]), columns=columns,
        final_norm=not isinstance(model.norm, nn.Identity),
        licence=name.entry.licence if name.entry else (getattr(config, "license", None) or "unknown"),
        hub=repository, hub_files=files,
    )  # fmt: skip


def build(spec: TeacherSpec) -> nn.Module:
    """See ``Library.build``."""
    full = f"{spec.model}.{spec.tag}" if spec.tag else spec.model
    model: nn.Module = timm.create_model(full, pretrained=False, num_classes=0, dynamic_img_size=True)
    return model.eval()


def adapt(state: Mapping[str, Tensor], model: nn.Module, spec: TeacherSpec, *, may_resample: bool) -> dict[str, Tensor]:
    """See ``Library.adapt``: timm's own conversion of the original repositories' layouts, then heads dropped.

    timm's conversion would resample the patch and position embeddings of another architecture until they fit, and drop
    biases that a model variant has no place for: both are refused here, except for timm's own weights
    (``may_resample``).
    """
    if not may_resample and (problems := _resampled(state, model) + _lost_bias(state, model)):
        raise mismatch(problems, where=f"{spec.name} ({spec.model})")
    convert, options = _conversion(spec)
    try:
        # timm prints what it skips; the standard output belongs to the command, which may be writing JSON there.
        with contextlib.redirect_stdout(io.StringIO()):
            converted = convert(dict(state), model, **options)
    except Exception as error:
        raise mismatch([f"{type(error).__name__}: {error}"], where=f"{spec.name} ({spec.model})") from error
    wanted = model.state_dict()
    return {key: value for key, value in converted.items() if key in wanted or not _HEADS.match(key)}


def features(model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """See ``Library.features``: patch [B, rows x columns, width], row-major, and cls [B, width] if there is one."""
    vit: Any = model
    tokens: Tensor = vit.forward_features(pixels)
    kept = {"patch": tokens[:, vit.num_prefix_tokens :]}
    if vit.num_prefix_tokens and getattr(vit, "cls_token", None) is not None:
        kept["cls"] = tokens[:, 0]
    return kept


def _pretrained_config(name: TeacherName) -> Any:
    if not timm.is_model(name.model):
        raise unknown_teacher(name.requested, name.model, timm.list_models(), prefix="timm:")
    try:
        return timm.get_pretrained_cfg(f"{name.model}.{name.tag}" if name.tag else name.model)
    except RuntimeError as error:
        known = timm.list_models(f"{name.model}.*", pretrained=True)
        raise unknown_teacher(name.requested, f"{name.model}.{name.tag}", known, prefix="timm:") from error


def _meta_model(name: TeacherName, full: str) -> Any:
    try:
        with torch.device("meta"):
            return timm.create_model(full, pretrained=False, num_classes=0, dynamic_img_size=True).eval()
    except Exception as error:
        raise _not_plain(name, f"timm cannot build it for any image size ({str(error)[:200]})") from error


def _patch_and_grid(name: TeacherName, model: Any, size: int) -> tuple[int, tuple[int, int]]:
    sides = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if not isinstance(sides, tuple) or len(sides) != 2 or sides[0] != sides[1]:
        raise _not_plain(name, "it has no square patches")
    patch = int(sides[0])
    if size < patch:
        raise InputError(
            what=f"Frames of {size} pixels are smaller than a patch of {name.slug}.",
            where=f"--size {size}",
            fix=f"use at least {patch}",
        )
    return patch, (size // patch, size // patch)


def _tokens(name: TeacherName, model: Any, tokens: object, grid: tuple[int, int]) -> tuple[int, int]:
    """(prefix tokens, width) of what the model gives, if it is a grid of tokens after some prefix tokens."""
    prefix = getattr(model, "num_prefix_tokens", None)
    if not isinstance(tokens, Tensor) or tokens.ndim != 3 or not isinstance(prefix, int) or not hasattr(model, "norm"):
        raise _not_plain(name, "its features are not a row of tokens")
    if tokens.shape[1] != prefix + grid[0] * grid[1]:
        raise _not_plain(name, f"it gives {tokens.shape[1]} tokens for a grid of {grid[0]} x {grid[1]} patches")
    return prefix, int(tokens.shape[2])


def _not_plain(name: TeacherName, why: str) -> InputError:
    return InputError(
        what=f"{name.requested} is not a plain vision transformer with patch tokens.",
        where=f"--teachers {name.requested}",
        why=why,
        fix="use a ViT of timm, such as dino_vits16 or timm:deit_tiny_patch16_224",
    )


def _hub(config: Any) -> tuple[str, tuple[str, ...]]:
    repository = getattr(config, "hf_hub_id", None) or ""
    named = getattr(config, "hf_hub_filename", None)
    return repository, (named,) if named else _HUB_FILES if repository else ()


def _conversion(spec: TeacherSpec) -> tuple[Any, dict[str, bool]]:
    """timm's conversion for a model, with the options that its own loading passes."""
    module = sys.modules[timm.model_entrypoint(spec.model).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None) or _as_it_is
    # DeiT III's original files spell LayerScale differently; timm's deit module asks for this, and no other does.
    adapts = "adapt_layer_scale" in inspect.signature(convert).parameters and module.__name__ == "timm.models.deit"
    return convert, {"adapt_layer_scale": True} if adapts else {}


def _as_it_is(state: dict[str, Tensor], _model: nn.Module) -> dict[str, Tensor]:
    return state


def _resampled(state: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """What timm's conversion would resample to another patch size or another grid of positions."""
    wanted = model.state_dict()
    problems = []
    for key in ("patch_embed.proj.weight", "pos_embed"):
        if key not in state or key not in wanted or state[key].ndim != wanted[key].ndim:
            continue
        found, own = tuple(state[key].shape), tuple(wanted[key].shape)
        # Some originals keep positions for the prefix tokens that timm's variant has folded into the tokens themselves.
        extra = found[1] - own[1] if key == "pos_embed" else 0
        folded = 0 < extra <= int(getattr(model, "num_prefix_tokens", 0)) and found[2] == own[2]
        if found != own and not folded:
            problems.append(f"shape: {key} is {found}, the model's {own}")
    return problems


def _lost_bias(state: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """Query and value biases of a DINOv3 original for which the model, a variant without them, has no place."""
    wanted = model.state_dict()
    if any(key.endswith(("q_bias", "qkv.bias")) for key in wanted):
        return []
    biases = {key: value.chunk(3) for key, value in state.items() if key.endswith("attn.qkv.bias")}
    return [f"unexpected: {key} is not zero" for key, (q, _, v) in biases.items() if q.any() or v.any()]
