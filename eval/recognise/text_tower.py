"""The text tower of an open_clip model by itself, from a file or the hub, with every key accounted for.

P prompts, C channels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPTextCfg, _build_text_tower
from torch import Tensor, nn

from frame.manifests.errors import InputError
from frame.model import weights_digest
from frame.pipeline.teachers import TeacherSpec, WeightSource, parse_weights, resolve
from frame.pipeline.teachers.checkpoint import read_checkpoint
from frame.pipeline.teachers.hub import hub_file
from frame.pipeline.teachers.strict import load_strictly, mismatch

_PREFIX = "text."
# CLIP's own layout keeps the text tower's tensors at the top of the checkpoint, later models below `text.`.
_BARE = re.compile(r"(transformer|token_embedding|ln_final)\.|(positional_embedding|text_projection|cls_emb)$")
_OTHERS = re.compile(
    r"(visual|text_decoder)\.|attn_mask$|logit_(scale|bias)$|input_resolution$|context_length$|vocab_size$"
)
_ANY_SIZE = 224  # only describes the model
_TOGETHER = 128  # prompts at a time


class TextTower:
    """Prompts in, vectors out. ``model`` is MODEL.TAG as an encoder's info writes it, ``weights`` file, hub or random,
    ``digest`` a sha256 over the tensors."""

    def __init__(self, name: str, weights: str, device: torch.device) -> None:
        self._spec = _describe(name)
        self._tokens = open_clip.get_tokenizer(self._spec.model)
        tower = _build(self._spec)
        source = _source(self._spec, weights)
        path = _checkpoint(self._spec, source)
        if path is not None:
            load_strictly(tower, text_state(read_checkpoint(path), where=str(path)), where=str(path))
        self.model = f"{self._spec.model}.{self._spec.tag}" if self._spec.tag else self._spec.model
        self.weights, self.digest = source.origin, weights_digest(tower.state_dict())
        self._tower, self._device = tower.eval().requires_grad_(False).to(device), device

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """[P, C], not normalised: ``encode_text(normalize=False)``. Raises InputError for a prompt that is too long."""
        for prompt in prompts:
            length = len(self._tokens.encode(prompt)) + 2  # open_clip would cut the end off without a word
            if length > self._tokens.context_length:
                raise InputError(
                    what="A prompt is too long for this text tower.", where=prompt[:80],
                    why=f"{length} tokens, it reads {self._tokens.context_length}",
                )  # fmt: skip
        with torch.inference_mode():
            parts = [prompts[first : first + _TOGETHER] for first in range(0, len(prompts), _TOGETHER)]
            return torch.cat([self._forward(self._tokens(list(part)).to(self._device)) for part in parts])

    def _forward(self, tokens_PL: Tensor) -> Tensor:
        found: Tensor | tuple[Tensor, ...] = self._tower(tokens_PL)
        return found[0] if isinstance(found, tuple) else found  # CoCa's tower gives its tokens too


def text_state(state: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """The text tower's tensors of a CLIP checkpoint, by the tower's own names. Raises InputError for strange keys."""
    tower = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    bare = {key: value for key, value in state.items() if _BARE.match(key)}
    strange = [key for key in state if not (key.startswith(_PREFIX) or _BARE.match(key) or _OTHERS.match(key))]
    problems = [f"unexpected: {key}" for key in (*strange, *(bare if tower else ()))]
    if not tower and not bare:
        problems.insert(0, "missing: every key of the text tower")
    if problems:
        raise mismatch(problems, where=where)
    return tower or bare


def _describe(name: str) -> TeacherSpec:
    spec = resolve(name, size=_ANY_SIZE, fit="crop")
    if spec.library != "open_clip":
        raise InputError(
            what="Only a CLIP has a text tower.", where=f"--text {name}", fix="write --text open_clip:MODEL/TAG"
        )
    config: dict[str, Any] = open_clip.get_model_config(spec.model)["text_cfg"]
    if config.get("hf_model_name") or config.get("hf_tokenizer_name") or "siglip" in spec.model.lower():
        raise InputError(
            what="The text tower of this model cannot be built here.", where=f"--text {name}",
            why="it needs a tokenizer or a configuration from the hub",
            fix="make the embeddings where there is a network and give them by --text-embeddings FILE.npz",
        )  # fmt: skip
    return spec


def _build(spec: TeacherSpec) -> nn.Module:
    config: dict[str, Any] = open_clip.get_model_config(spec.model)
    # As for the image tower: which of two activations the weights were trained with, the tag knows.
    tag = open_clip.get_pretrained_cfg(spec.model, spec.tag) if spec.tag else config
    seed = int.from_bytes(hashlib.sha256(f"text:{spec.model}".encode()).digest()[:7], "big")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        text = CLIPTextCfg(**config["text_cfg"])
        tower: nn.Module = _build_text_tower(config["embed_dim"], text, bool(tag.get("quick_gelu", False)))
    return tower


def _source(spec: TeacherSpec, weights: str) -> WeightSource:
    option = weights if weights in ("", "random") else f"{spec.name}={weights}"
    try:
        return parse_weights([option] if option else [], [spec])[spec.name]
    except InputError as error:
        raise InputError(what=error.what, where=f"--text-weights {weights}", why=error.why, fix=error.fix) from error


def _checkpoint(spec: TeacherSpec, source: WeightSource) -> Any:
    if source.origin != "hub":
        return source.file
    fix = "give --text-weights FILE (the whole CLIP's checkpoint), or --text-embeddings FILE.npz"
    if not spec.hub:
        raise InputError(what=f"open_clip names no hub source for {spec.model}.", where=spec.requested, fix=fix)
    return hub_file(spec.hub, spec.hub_files, fix=fix)
