"""Reading a checkpoint without running any code of it: safetensors, or torch's weights-only loader."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from frame.manifests.errors import InputError
from frame.model.weights import weights_digest

__all__ = ["SUFFIXES", "read_checkpoint", "weights_digest"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")

# What training scripts put around the weights: DINO's full checkpoints keep the network that is wanted under `teacher`.
_WRAPPERS = ("teacher", "state_dict", "model")
# What wrappers of modules put before every key: DINO's multi-crop wrapper, data parallelism, torch.compile.
_PREFIXES = ("module.", "backbone.", "_orig_mod.")
# How torch's weights-only loader names what it will not call.
_CODE = re.compile(r"nsupported (?:global: )?GLOBAL (\S+)")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU, without known wrappers and prefixes.

    Raises InputError where the file is damaged, holds no tensors, is a TorchScript archive, or could only be read by
    running pickled code.
    """
    stored = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)
    return _strip(_unwrap(stored, path), path)


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(what="The weights cannot be read as safetensors.", where=str(path), why=str(error)) from error


def _read_torch(path: Path) -> object:
    if _is_torchscript(path):
        raise InputError(
            what="The weights are a TorchScript archive, which holds code, not just weights.",
            where=str(path),
            fix=_conversion(path, f"torch.jit.load({path.name!r}, 'cpu').state_dict()"),
        )
    try:
        # A plain bag of options, in every DINO and timm training checkpoint: making one runs no code of the file.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 (restricted: calls nothing)
    except Exception as error:  # the restricted loader fails in any way at all on a damaged file
        code = _CODE.search(str(error))
        if code is None:
            reason = f"{type(error).__name__}: {str(error).rpartition('WeightsUnpickler error:')[2].strip()[:200]}"
            raise InputError(what="The weights cannot be read.", where=str(path), why=reason) from error
        raise InputError(
            what="The weights can only be read by running code that the file names, and are refused.",
            where=str(path),
            why=f"reading it would call {code[1]}",
            fix=_conversion(path, f"torch.load({path.name!r}, 'cpu', weights_only=False)"),
        ) from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())


def _conversion(path: Path, expression: str) -> str:
    return (
        "where you trust the file, convert it once (and take the weights out of what is around them): "
        f'python -c "import torch; from safetensors.torch import save_file; state = {expression}; '
        f'save_file({{k: v.clone().contiguous() for k, v in state.items()}}, {path.stem + ".safetensors"!r})"'
    )


def _unwrap(stored: object, path: Path) -> dict[str, Tensor]:
    while isinstance(stored, Mapping):
        inner = next((stored[key] for key in _WRAPPERS if isinstance(stored.get(key), Mapping)), None)
        if inner is None:
            break
        stored = inner
    state = stored if isinstance(stored, Mapping) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        kind = sorted(str(key) for key, value in state.items() if not isinstance(value, Tensor))[:6]
        raise InputError(
            what="The file does not hold the weights of one network.",
            where=str(path),
            why=f"not tensors: {', '.join(kind)}" if kind else "it holds no tensors by name",
            fix=f"save its state_dict alone, or under one of the keys {', '.join(_WRAPPERS)}",
        )
    return {str(key): value for key, value in state.items()}


def _strip(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            stripped = {key.removeprefix(prefix): value for key, value in state.items()}
            if len(stripped) != len(state):
                raise InputError(
                    what="The weights hold two networks at once.",
                    where=str(path),
                    why=f"keys with and without {prefix!r}",
                )
            state = stripped
    return state
