"""Checkpoints: whole or not there. Written aside, flushed, renamed into place; the receipt inside names every byte.

RUN/checkpoints/00000120/model.safetensors      the method's parameters and buffers
                         optimizer.safetensors  Adam's moments, by parameter
                         state.json             step, running means, the best validation so far
                         receipt.json           bytes and sha256 of the others; itself sealed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from frame.manifests.errors import InputError
from frame.pipeline.store import disk
from frame.pipeline.store.files import aside, disk_error, make_folder, make_root, sha256_bytes
from frame.pipeline.store.layout import sealed, unseal

FOLDER = "checkpoints"
_RECEIPT = "receipt.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """``model`` and ``optimizer`` are tensors by name on the CPU, ``state`` plain JSON values."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def checkpoint_steps(run: Path) -> list[int]:
    """Steps that have a checkpoint, intact or not, oldest first."""
    folder = run / FOLDER
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()) if folder.is_dir() else []


def save_checkpoint(run: Path, checkpoint: Checkpoint, *, tmp: Path) -> None:
    """Add a checkpoint to ``run``, or leave it as it was. ``tmp`` is on the same file system.

    One of the same step is replaced, unless it is the same and intact: between the two renames that take there is none.
    Raises ``CacheError`` (an ``InputError``) on a full or failing disk.
    """
    target = _place(run, checkpoint.step)
    partial, before = aside(tmp, "checkpoint"), aside(tmp, "replaced")
    files = {
        "model.safetensors": save(checkpoint.model),
        "optimizer.safetensors": save(checkpoint.optimizer),
        "state.json": sealed(checkpoint.state),
    }
    entries = {name: {"bytes": len(data), "sha256": sha256_bytes(data)} for name, data in files.items()}
    receipt = sealed({"format": _FORMAT, "kind": "frame-checkpoint", "step": checkpoint.step, "files": entries})
    files[_RECEIPT] = receipt
    try:
        make_root(target.parent)
        if not _holds(target, files):
            make_folder(partial)
            for name, data in files.items():
                disk.write_file(partial / name, data)
            disk.fsync_folder(partial)
            if target.exists():  # damaged: a run that was stopped and resumed behind it comes by again
                disk.move(target, before)
            disk.move(partial, target)
        disk.fsync_folder(target.parent)
    except OSError as error:
        disk.remove_tree(partial)
        raise disk_error(error, target) from error
    finally:
        disk.remove_tree(before)


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    try:
        return all((folder / name).read_bytes() == data for name, data in files.items())
    except OSError:
        return False


def load_checkpoint(run: Path, step: int) -> Checkpoint:
    """Read a checkpoint, every byte compared with its receipt. Raises ``InputError`` for damage of any kind."""
    folder = _place(run, step)
    receipt = _unsealed(_read(folder / _RECEIPT), folder / _RECEIPT)
    if receipt.get("format") != _FORMAT or receipt.get("step") != step:
        raise _damaged(folder / _RECEIPT, f"it is of step {receipt.get('step')}, format {receipt.get('format')}")
    data = {name: _read_checked(folder / name, entry) for name, entry in receipt["files"].items()}
    try:
        model, optimizer = load(data["model.safetensors"]), load(data["optimizer.safetensors"])
    except (SafetensorError, KeyError) as error:
        raise _damaged(folder, repr(error)) from error
    state = _unsealed(data["state.json"], folder / "state.json")
    return Checkpoint(step=step, model=model, optimizer=optimizer, state=state)


def newest_checkpoint(run: Path) -> tuple[Checkpoint | None, list[InputError]]:
    """The newest intact checkpoint, and what is wrong with those that are newer. None: there is no intact one."""
    problems: list[InputError] = []
    for step in reversed(checkpoint_steps(run)):
        try:
            return load_checkpoint(run, step), problems
        except InputError as error:
            problems.append(error)
    return None, problems


def drop_checkpoints(run: Path, *, step: int, keep: int, best: int | None, tmp: Path) -> None:
    """Remove all but the ``keep`` newest up to ``step``, which was just saved, and that of step ``best``.

    Later ones can only be damaged: a run that is resumed behind them makes them again. Each goes in one rename, then
    from the disk.
    """
    steps = checkpoint_steps(run)
    kept = {*[each for each in steps if each <= step][-keep:], best}
    try:
        # That of ``step`` may be the work of a run that was killed before it had flushed the name.
        disk.fsync_folder(run / FOLDER)
        for each in steps:
            if each not in kept:
                gone = aside(tmp, "dropped")
                disk.move(_place(run, each), gone)
                disk.remove_tree(gone)
    except OSError as error:
        raise disk_error(error, run / FOLDER) from error


def _place(run: Path, step: int) -> Path:
    return run / FOLDER / f"{step:08d}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error


def _read_checked(path: Path, entry: Mapping[str, Any]) -> bytes:
    data = _read(path)
    if len(data) != entry["bytes"] or sha256_bytes(data) != entry["sha256"]:
        raise _damaged(path, "its bytes are not those that the receipt names")
    return data


def _unsealed(data: bytes, path: Path) -> dict[str, Any]:
    try:
        return unseal(data, where=path)
    except InputError as error:
        raise _damaged(path, error.why) from error


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        what="A checkpoint is damaged.",
        where=str(path),
        why=why,
        fix="--resume goes on from the newest intact one; if this is the best one, train again for its encoder.",
    )
