"""CLIP's image towers of open_clip: one embedding a frame, in the space shared with text.

What is kept is ``encode_image(normalize=False)``: the projected embedding as it is, so that no length is lost; whoever
wants cosines divides by it. Only the image tower is ever built. A tower sees its own native size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import open_clip
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import Tensor, nn

from frame.manifests.errors import InputError
from frame.pipeline.teachers.names import TeacherName, unknown_teacher
from frame.pipeline.teachers.spec import Fit, TeacherSpec
from frame.pipeline.teachers.strict import mismatch

_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_TOWER = "visual."
# Everything of a CLIP checkpoint that is not its image tower: the text tower, the captioner, the temperature, and three
# sizes that OpenAI's files keep among the weights.
_NOT_THE_TOWER = re.compile(
    r"(transformer|token_embedding|ln_final|text|text_decoder)\.|positional_embedding$|text_projection$|attn_mask$"
    r"|logit_(scale|bias)$|input_resolution$|context_length$|vocab_size$"
)


def version() -> str:
    """open_clip's version."""
    return str(open_clip.__version__)


def describe(name: TeacherName, *, size: int, fit: Fit) -> TeacherSpec:  # noqa: ARG001
    """See ``Library.describe``. ``size`` does not matter: the tower sees its native size."""
    config, pretrained = _config(name), _pretrained(name)
    vision = CLIPVisionCfg(**config["vision_cfg"])
    side = _side(name, vision.image_size)
    preprocess = merge_preprocess_dict(asdict(PreprocessCfg()), pretrained)
    plain = not vision.timm_model_name and not isinstance(vision.layers, (tuple, list))
    repository, _, file = str(pretrained.get("hf_hub", "")).rpartition("/")
    width = int(config["embed_dim"])
    return TeacherSpec(
        name=name.slug, requested=name.requested, library="open_clip", model=name.model, tag=name.tag,
        patch=vision.patch_size if plain else None, width=width, grid=None, input_size=side, fit=fit,
        mean=tuple(preprocess["mean"]), std=tuple(preprocess["std"]), columns={"cls": (width,)}, final_norm=True,
        licence=name.entry.licence if name.entry else "unknown",
        hub=repository, hub_files=(file,) if file else _HUB_FILES if repository else (),
    )  # fmt: skip


def build(spec: TeacherSpec) -> nn.Module:
    """See ``Library.build``."""
    config = open_clip.get_model_config(spec.model)
    # The weights were trained with one of two activations, and the tag knows which: OpenAI's with QuickGELU, whatever
    # the configuration of that model's name says.
    tag = open_clip.get_pretrained_cfg(spec.model, spec.tag) if spec.tag else config
    vision = CLIPVisionCfg(**{**config["vision_cfg"], "timm_model_pretrained": False})
    tower: nn.Module = _build_vision_tower(config["embed_dim"], vision, bool(tag.get("quick_gelu", False)))
    return tower.eval()


def adapt(
    state: Mapping[str, Tensor],
    model: nn.Module,  # noqa: ARG001
    spec: TeacherSpec,
    *,
    may_resample: bool,  # noqa: ARG001
) -> dict[str, Tensor]:
    """See ``Library.adapt``: the image tower's tensors, under the tower's own names. Nothing is ever resampled."""
    tower = {key.removeprefix(_TOWER): value for key, value in state.items() if key.startswith(_TOWER)}
    problems = [f"unexpected: {key}" for key in state if not key.startswith(_TOWER) and not _NOT_THE_TOWER.match(key)]
    if not tower:
        problems.insert(0, f"missing: every key of the image tower ({_TOWER}...)")
    if problems:
        raise mismatch(problems, where=f"{spec.name} ({spec.model})")
    return tower


def features(model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """See ``Library.features``: cls [B, width], the embedding as ``encode_image(normalize=False)`` gives it."""
    embedding: Tensor | tuple[Tensor, ...] = model(pixels)
    # CoCa's towers give their tokens too, after the embedding.
    return {"cls": embedding[0] if isinstance(embedding, tuple) else embedding}


def _config(name: TeacherName) -> dict[str, Any]:
    if name.model not in open_clip.list_models():
        raise unknown_teacher(name.requested, name.model, open_clip.list_models(), prefix="open_clip:")
    config: dict[str, Any] = open_clip.get_model_config(name.model)
    return config


def _pretrained(name: TeacherName) -> dict[str, Any]:
    """open_clip's entry for a tag; empty where no tag is given, which leaves open_clip's defaults and no hub."""
    if not name.tag:
        return {}
    config: dict[str, Any] = open_clip.get_pretrained_cfg(name.model, name.tag)
    if not config:
        known = [f"{name.model}/{tag}" for tag in open_clip.list_pretrained_tags_by_model(name.model)]
        raise unknown_teacher(name.requested, f"{name.model}/{name.tag}", known, prefix="open_clip:")
    return config


def _side(name: TeacherName, size: int | tuple[int, int]) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise InputError(
            what=f"{name.requested} does not see squares.",
            where=f"--teachers {name.requested}",
            why=f"but {size} pixels",
        )
    return int(sides.pop())
