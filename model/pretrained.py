"""Keeping an encoder's weights, and getting exactly them back: ``config.json`` and ``model.safetensors`` in a folder.

``config.json`` holds the configuration and the digest of the weights; the weights' file repeats the configuration. So
neither can be damaged, or be of another encoder, without being noticed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from frame.manifests.errors import InputError
from frame.model.config import ModelConfig
from frame.model.files import replacing
from frame.model.weights import weights_digest

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_RUN = "encoder"  # where a training run keeps its encoder
_DIGEST = "weights_sha256"
_SHOWN = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The two files of an encoder, and what a person called it."""

    name: str
    config: Path
    weights: Path


def find(name: str | Path, *, revision: str | None, token: str | bool | None) -> Source:
    """The files of an encoder: of a run, of a folder, or of the hub. Raises InputError where they are not to be had."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _in_folder(folder)
    if folder.exists() or not isinstance(name, str) or name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise InputError(
            what="There is no encoder here.",
            where=str(name),
            why="it is a file, not a folder" if folder.exists() else "there is no such folder",
            fix="give a run's folder, or one that save_pretrained wrote",
        )
    return Source(
        name=name,
        config=_download(name, CONFIG, revision, token),
        weights=_download(name, WEIGHTS, revision, token),
    )


def read(source: Source) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration and the weights, checked against each other. Raises InputError for damage of any kind."""
    described = _json(source.config)
    digest = described.pop(_DIGEST, None)
    if not isinstance(digest, str):
        raise _damaged(source, f"{CONFIG} has no {_DIGEST}: FrameEncoder.save_pretrained did not write it")
    config = ModelConfig.from_json(described, where=str(source.config))
    try:
        with safe_open(source.weights, framework="pt") as file:
            repeated = (file.metadata() or {}).get(CONFIG)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(source, f"{WEIGHTS} cannot be read: {error}") from error
    if repeated != _canonical(config):
        raise _damaged(source, f"{CONFIG} is not the one that {WEIGHTS} was written with")
    if weights_digest(state) != digest:
        raise _damaged(source, f"the weights have another digest than the one in {CONFIG}")
    return config, state


def fill(model: nn.Module, state: Mapping[str, Tensor], source: Source) -> None:
    """Copy the weights into a model. Raises InputError for a key missing, unknown, of another shape or not finite."""
    wanted = model.state_dict()
    problems = [f"missing: {key}" for key in wanted if key not in state]
    problems += [f"unexpected: {key}" for key in state if key not in wanted]
    for key in sorted(wanted.keys() & state.keys()):
        if state[key].shape != wanted[key].shape:
            problems.append(f"shape: {key} is {tuple(state[key].shape)}, the model's {tuple(wanted[key].shape)}")
        elif not bool(torch.isfinite(state[key]).all()):
            problems.append(f"not finite: {key}")
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InputError(
            what="These weights are not those of the encoder that they are said to be.",
            where=str(source.weights),
            why="; ".join(problems[:_SHOWN]) + more,
            fix="use the version of this package that wrote them",
        )
    model.load_state_dict(dict(state), strict=True)


def write(folder: Path, config: ModelConfig, state: Mapping[str, Tensor]) -> None:
    """Both files, each whole or not at all; the weights first, so that a folder with a ``config.json`` is complete."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with replacing(folder / WEIGHTS) as partial:
        # Not `save_file`: its own error for a full disk is no OSError.
        partial.write_bytes(save(tensors, metadata={"format": "pt", CONFIG: _canonical(config)}))
    described = {**config.to_json(), _DIGEST: weights_digest(tensors)}
    with replacing(folder / CONFIG) as partial:
        partial.write_text(json.dumps(described, indent=2) + "\n")


def card(config: ModelConfig, parts: Mapping[str, int], data: ModelCardData) -> ModelCard:
    """A model card that says what is known here, and what is not."""
    stage = "frame encoder with memory (stage 2)" if config.memory else "frame encoder without memory (stage 1)"
    counts = "\n".join(f"| {part} | {count:,} |" for part, count in parts.items())
    text = f"""# FRAME {config.name}

A {stage} of [FRAME](https://arxiv.org/abs/2506.05543): tokens of width {config.width} for every frame of a video, on
patches of {config.patch} pixels, distilled from a spatial teacher (width {config.spatial_dim}) and a semantic one
(width {config.semantic_dim}).

```python
from frame.model import FrameEncoder

encoder = FrameEncoder.from_pretrained("…")  # this folder, or its name on the hub
for frame in video:  # uint8 [H, W, 3], trained at {config.size[0]} x {config.size[1]}
    tokens = encoder.step(frame)  # cls [{config.width}], patches [h, w, {config.width}]
encoder.reset()
```

| part | parameters |
|---|---|
{counts}

Not recorded here, and to be added by whoever publishes it: the training data, the teachers and their licences, and any
measured quality. Weights trained from a teacher's features may fall under the teacher's licence.
"""
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def _in_folder(folder: Path) -> Source:
    inner = folder / _RUN if (folder / _RUN).is_dir() else folder
    absent = [name for name in (CONFIG, WEIGHTS) if not (inner / name).is_file()]
    if absent:
        pickled = sorted(file.name for file in inner.iterdir() if file.suffix in (".bin", ".pth", ".pt"))
        why = f"it has no {' and no '.join(absent)}"
        raise InputError(
            what="There is no encoder here.",
            where=str(inner),
            why=f"{why}; {pickled[0]} may hold code, and is not read" if pickled else why,
            fix="give the folder of a run that has saved its encoder, or one that save_pretrained wrote",
        )
    return Source(name=str(folder), config=inner / CONFIG, weights=inner / WEIGHTS)


def _download(name: str, file: str, revision: str | None, token: str | bool | None) -> Path:
    where = f"{huggingface_hub.constants.ENDPOINT}/{name}, {file}"
    try:
        return Path(huggingface_hub.hf_hub_download(name, file, revision=revision, token=token))
    except HFValidationError as error:
        raise InputError(
            what="There is no such folder, and the hub has no such names.", where=name, why=_first_line(error)
        ) from error
    except Exception as error:  # whatever the client, or what it makes its requests with, has to say
        raise InputError(
            what="The encoder is no folder here, and cannot be fetched from the hub.",
            where=where,
            why=_first_line(error),
            fix=f"give a folder that exists; or check the name; or, where the hub cannot be reached, run "
            f"`hf download {name}` on a machine that reaches it and give the folder that it prints",
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _json(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(what="The encoder's configuration cannot be read.", where=str(path), why=str(error)) from error
    if not isinstance(stored, dict):
        raise InputError(
            what="The encoder's configuration cannot be read.", where=str(path), why="it is no JSON object"
        )
    return stored


def _canonical(config: ModelConfig) -> str:
    return json.dumps(config.to_json(), sort_keys=True)


def _damaged(source: Source, why: str) -> InputError:
    return InputError(
        what="The encoder is damaged, or its two files are not of one encoder.",
        where=str(source.config.parent),
        why=why,
        fix="copy or download both files again, or save the encoder again",
    )
