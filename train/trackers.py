"""Accelerate, with the tracker that was asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin

from frame.manifests.errors import InputError
from frame.train.config import TrainConfig
from frame.train.run_folder import TRACKERS


def make_accelerator(config: TrainConfig, run: Path) -> Accelerator:
    """Accelerate for this process, under whatever launched it. Raises ``InputError`` for a precision that the device
    lacks, and for a tracker that is not installed."""
    if config.log == "wandb" and importlib.util.find_spec("wandb") is None:
        raise InputError(
            what="Weights & Biases is not installed.",
            where="--log wandb",
            fix="pip install 'frame-encoder[wandb]'; or --log tensorboard",
        )
    try:
        accelerator = Accelerator(
            mixed_precision=config.precision,
            # The loop divides a batch itself; an environment variable of the launcher must not divide it again.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            log_with=None if config.log == "none" else config.log,
            project_dir=run / TRACKERS,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            what=f"This device cannot train with --precision {config.precision}.", why=str(error), fix="--precision no"
        ) from error
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        raise InputError(
            what="This device cannot train with --precision fp16.",
            why="float16 wants a GPU: a processor has neither the speed nor the scaling of gradients",
            fix="--precision no, or bf16",
        )
    return accelerator


def start_tracker(
    accelerator: Accelerator, config: TrainConfig, run: Path, record: Mapping[str, Any], *, step: int
) -> None:
    """Begin the tracker's record of this run, or go on with it after ``step``."""
    if config.log == "none":
        return
    folder = run / TRACKERS
    options = {
        "tensorboard": {"purge_step": step + 1},
        # The same id each time: a resumed run goes on in the same record.
        "wandb": {"name": run.name, "dir": str(folder), "resume": "allow", "id": _run_id(record)},
    }
    flat = {key: value for key, value in record["settings"].items() if value is not None}
    try:
        folder.mkdir(exist_ok=True)
        accelerator.init_trackers("frame", config=flat, init_kwargs={config.log: options[config.log]})
    except Exception as error:  # a tracker may want a login, a network, a disk
        raise InputError(
            what=f"The tracker {config.log} could not be started.",
            where=str(folder),
            why=str(error).splitlines()[0] if str(error) else repr(error),
            fix="mend it (wandb: `wandb login`, or WANDB_MODE=offline), or --log none",
        ) from error


def _run_id(record: Mapping[str, Any]) -> str:
    return str(record["id"])
