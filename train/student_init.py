"""A student that begins as a teacher of its own shape, instead of from scratch: the short cut that small data needs."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import checkpoint_filter_fn

from frame.manifests.errors import InputError
from frame.model import FrameEncoder
from frame.pipeline.store.local import read_facts
from frame.train.sources import Sources

TEACHER = "teacher"  # as student_init: the spatial teacher's own weights
_HEADS = ("head.", "head_dist.", "fc_norm.")  # classifiers: features come from before them


def teacher_file(sources: Sources) -> Path:
    """The file that the spatial targets were made with, by this machine's record of the build. Raises ``InputError``
    where there is none: for a cache that came from elsewhere, or weights that came from the hub."""
    name = sources.spatial.teacher or ""
    for cache in sources.caches:
        file = read_facts(cache.path).weights.get(name)
        if file is not None and file.is_file():
            return file
    raise InputError(
        what=f"This machine does not know a file with the weights of {name!r}.",
        where=f"student_init={TEACHER}",
        why="the cache was built elsewhere, from the hub's copy, or the file has gone",
        fix="--student-init FILE: timm's safetensors of that teacher",
    )


def begin_as_teacher(encoder: FrameEncoder, file: Path) -> None:
    """Fill the encoder's transformer from timm's safetensors of a ViT of the same width, depth and patch.

    Positions are resampled to the student's grid, by timm. Where the spatial target has the student's width, its
    decoder begins as nearly the identity: it is then the teacher's own. Raises ``InputError`` for a file that cannot
    be read or has another shape.
    """
    vit = encoder.vit.vit
    try:
        state = load_file(file)
        if state.get("patch_embed.proj.weight", vit.patch_embed.proj.weight).shape != vit.patch_embed.proj.weight.shape:
            raise ValueError("its patches have another size or width")  # timm would resample them
        converted = checkpoint_filter_fn(dict(state), vit)
        vit.load_state_dict({key: value for key, value in converted.items() if not key.startswith(_HEADS)})
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(
            what="The student cannot begin as this teacher.",
            where=f"student_init={file}",
            why=" ".join(lines[:3])[:300],
            fix=f"give timm's safetensors of a plain ViT of the student's shape ({encoder.config.name})",
        ) from error
    if encoder.config.spatial_dim == encoder.config.width:
        _pass_on(encoder)


@torch.no_grad()
def _pass_on(encoder: FrameEncoder) -> None:
    """Let the spatial decoder begin by giving back the tokens that it gets, but for what its norm takes away."""
    decoder, norm = encoder.spatial, encoder.vit.vit.norm
    for name, parameter in decoder.blocks.named_parameters():
        if name.rpartition(".")[0].endswith(("attn.proj", "mlp.fc2")):  # the last layer of each branch
            parameter.zero_()
    # After the encoder's own norm a token's values have about this deviation and mean.
    deviation = (norm.weight.square().mean() + norm.bias.var()).sqrt()
    decoder.head.weight.copy_(torch.eye(len(decoder.std)) * deviation / decoder.std[:, None])
    decoder.head.bias.copy_((norm.bias.mean() - decoder.mean) / decoder.std)
