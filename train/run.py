"""``train``: one run from its request to its folder: prepared, placed on devices, looped, exported."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.model import FrameEncoder
from frame.pipeline.store import disk
from frame.pipeline.store.files import disk_error
from frame.train.batches import Batch, BatchDataset, SegmentReader, batches
from frame.train.checkpoint import Checkpoint, drop_checkpoints, load_checkpoint, newest_checkpoint, save_checkpoint
from frame.train.curves import write_curves
from frame.train.loop import Loop
from frame.train.optimizer import load_optimizer_tensors, make_optimizer, optimizer_tensors
from frame.train.prepare import Prepared, Request, prepare
from frame.train.run_folder import CONFIG, ENCODER, Metrics, owned, read_config, read_metrics, write_config
from frame.train.signals import StopRequest, stop_requests
from frame.train.state import RunState
from frame.train.trackers import make_accelerator, start_tracker
from frame.train.update import Updater
from frame.train.validate import Validator


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended. ``exit_code`` is 0 when it is over, else that of the signal that stopped it. ``speaks``: of
    several processes, this is the one to tell about it."""

    run: Path
    state: RunState
    exit_code: int
    last_val: dict[str, float]
    speaks: bool


def train(request: Request, progress: Progress) -> Outcome:
    """Run, or go on with, one stage. Raises ``InputError`` for whatever a person has to mend."""
    prepared = prepare(request)
    accelerator = make_accelerator(prepared.config, request.out)
    quiet = Progress(quiet=True)
    said = progress if accelerator.is_main_process else quiet
    for note in prepared.notes:
        said.note(note)
    with contextlib.ExitStack() as stack:
        # One process writes; the others only compute.
        tmp = stack.enter_context(owned(request.out)) if accelerator.is_main_process else None
        stop = stack.enter_context(stop_requests())
        return _Run(prepared, request, accelerator, said, tmp, stop).go()


class _Run:
    """What the steps of ``train`` share: the run on its device."""

    def __init__(
        self,
        prepared: Prepared,
        request: Request,
        accelerator: Accelerator,
        progress: Progress,
        tmp: Path | None,
        stop: StopRequest,
    ) -> None:
        self.prepared, self.path, self.accelerator, self.progress = prepared, request.out, accelerator, progress
        self.tmp, self.stop, self.config = tmp, stop, prepared.config
        self.module: Any = prepared.method.module
        self.state = RunState()

    def go(self) -> Outcome:
        """Begin or resume, loop, and leave the folder whole."""
        record = self._record()
        dataset = self._dataset()
        optimizer = self._optimizer()
        checkpoint = self._resume()
        self.module, self.optimizer = self.accelerator.prepare(self.module, optimizer)
        if checkpoint is not None:
            self._restore(checkpoint)
        if self.tmp is not None:
            write_config(self.path, record, tmp=self.tmp)
        self.accelerator.wait_for_everyone()
        over = self._loop(record, dataset)
        if self.tmp is not None:
            write_curves(self.path, read_metrics(self.path), tmp=self.tmp)
            if over:
                self._export(self.tmp)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        validations = [line for line in read_metrics(self.path) if line["kind"] == "val"]
        return Outcome(
            run=self.path,
            state=self.state,
            exit_code=0 if over else self.stop.exit_code,
            last_val=validations[-1] if validations else {},
            speaks=self.accelerator.is_main_process,
        )

    def _record(self) -> dict[str, Any]:
        before = read_config(self.path) if (self.path / CONFIG).exists() else {}
        return {**self.prepared.record, "id": before.get("id", uuid.uuid4().hex[:12])}

    def _optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        assert config.lr is not None  # resolved
        assert config.weight_decay is not None
        return make_optimizer(
            self.module.to(self.accelerator.device),
            name=config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=self.accelerator.device.type == "cuda",
        )

    def _resume(self) -> Checkpoint | None:
        """The newest intact checkpoint; what is wrong with newer ones is said. None for a run without any."""
        checkpoint, problems = newest_checkpoint(self.path)
        for problem in problems:
            self.progress.note(f"left out: {problem}")
        if checkpoint is None and problems:
            raise InputError(
                what="No checkpoint of this run is intact.",
                where=str(self.path),
                fix="remove the folder, or give another --out, and train again",
            )
        if checkpoint is not None:
            self.state = self._state_of(checkpoint)
            self._reconsider_end(self.state, self.prepared.pace.total_steps)
            self.progress.note(f"resuming after step {self.state.step}")
            if not problems:
                self._drop()  # a run that was killed between saving and dropping may have been at its end
        return checkpoint

    def _reconsider_end(self, state: RunState, total: int) -> None:
        """More steps than before may be asked for, but not fewer than are behind."""
        if state.step > total:
            raise InputError(
                what=f"The run is past step {total} already.",
                where=str(self.path),
                why=f"its newest checkpoint is of step {state.step}",
                fix="leave out --steps and --epochs, or ask for more",
            )
        if state.ended != "early":
            state.ended = "steps" if state.step == total else ""

    def _state_of(self, checkpoint: Checkpoint) -> RunState:
        try:
            return RunState.from_json(checkpoint.state["run"])
        except (ValueError, KeyError) as error:
            raise self._foreign(checkpoint, error) from error

    def _foreign(self, checkpoint: Checkpoint, error: Exception) -> InputError:
        return InputError(
            what="The checkpoint was written by another version of this package.",
            where=f"{self.path}, step {checkpoint.step}",
            why=str(error).splitlines()[0],
            fix="resume with the version that wrote it, or train again",
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        plain = self.accelerator.unwrap_model(self.module)
        try:
            plain.load_state_dict(checkpoint.model, strict=True)
            load_optimizer_tensors(plain, self.optimizer.optimizer, checkpoint.optimizer)
        except (ValueError, RuntimeError) as error:
            raise self._foreign(checkpoint, error) from error
        if self.accelerator.scaler is not None and checkpoint.state["scaler"]:
            self.accelerator.scaler.load_state_dict(checkpoint.state["scaler"])

    def _loop(self, record: dict[str, Any], dataset: BatchDataset) -> bool:
        prepared, state, accelerator = self.prepared, self.state, self.accelerator
        # Without a checkpoint even the line of step 0 is made again.
        upto = state.step if state.step or state.first else -1
        metrics = Metrics.resumed(self.path, upto=upto, tmp=self.tmp) if self.tmp is not None else None
        start_tracker(accelerator, self.config, self.path, record, step=state.step)
        remaining = prepared.pace.total_steps - state.step
        # Closed however the loop ends: Python's exit would wait for ever for processes that still read ahead.
        closing = contextlib.closing(self._batches(dataset))
        with closing as data, self.progress.bar(self.config.stage, total=remaining, unit="steps") as tick:
            loop = Loop(
                config=self.config,
                pace=prepared.pace,
                state=state,
                update=Updater(
                    accelerator=accelerator,
                    module=self.module,
                    optimizer=self.optimizer,
                    config=self.config,
                    base=prepared.method.weights,
                ),
                validator=self._validator(),
                metrics=metrics,
                save=lambda: self._save(metrics),
                track=lambda figures, step: accelerator.log(figures, step=step),
                tick=tick,
                stop=self.stop,
            )
            return loop.run(data)

    def _dataset(self) -> BatchDataset:
        """Made before anything is written: it refuses a batch that cannot be shared out."""
        return BatchDataset(
            reader=self._reader(),
            plan=self.prepared.train,
            size=self.prepared.pace.batch,
            rank=self.accelerator.process_index,
            ranks=self.accelerator.num_processes,
            accumulation=self.config.accumulate,
        )

    def _batches(self, dataset: BatchDataset) -> Generator[Batch, None, None]:
        accelerator, config = self.accelerator, self.config
        start, stop = (step * config.accumulate for step in (self.state.step, self.prepared.pace.total_steps))
        cuda = accelerator.device.type == "cuda"
        with contextlib.closing(batches(dataset, start, stop, workers=config.workers, pin=cuda)) as read:
            for batch in read:
                yield batch.to(accelerator.device, non_blocking=cuda)

    def _reader(self) -> SegmentReader:
        return SegmentReader(self.prepared.sources.caches, self.prepared.method.columns)

    def _validator(self) -> Validator | None:
        plan = self.prepared.val
        if plan is None:
            return None
        return Validator(
            accelerator=self.accelerator,
            module=self.module,
            reader=self._reader(),
            plan=plan,
            count=min(plan.per_epoch, self.config.val_segments),
            size=max(1, self.prepared.pace.batch // (self.accelerator.num_processes * self.config.accumulate)),
        )

    def _save(self, metrics: Metrics | None) -> None:
        """Make a checkpoint of the present state; on one rank, while the others wait."""
        if self.tmp is not None and metrics is not None:
            scaler = self.accelerator.scaler
            plain = self.accelerator.unwrap_model(self.module)
            model = {key: value.detach().cpu().contiguous() for key, value in plain.state_dict().items()}
            checkpoint = Checkpoint(
                step=self.state.step,
                model=model,
                optimizer=optimizer_tensors(plain, self.optimizer.optimizer),
                state={"run": self.state.to_json(), "scaler": scaler.state_dict() if scaler is not None else {}},
            )
            metrics.flush()
            save_checkpoint(self.path, checkpoint, tmp=self.tmp)
            self._drop()
        self.accelerator.wait_for_everyone()

    def _drop(self) -> None:
        """Remove the checkpoints that the newest one makes superfluous."""
        if self.tmp is not None:
            drop_checkpoints(
                self.path, step=self.state.step, keep=self.config.keep, best=self.state.best_step, tmp=self.tmp
            )

    def _export(self, tmp: Path) -> None:
        """RUN/encoder: the best checkpoint's model, or the last one's where nothing was validated."""
        best = self.state.step if self.state.best_step is None else self.state.best_step
        plain = self.accelerator.unwrap_model(self.module)
        plain.load_state_dict(load_checkpoint(self.path, best).model, strict=True)
        encoder: FrameEncoder = self.prepared.method.encoder
        try:
            encoder.cpu().save_pretrained(tmp / ENCODER)
            _flush_files(tmp / ENCODER)
            if (self.path / ENCODER).exists():
                disk.move(self.path / ENCODER, tmp / "encoder.before")
            disk.move(tmp / ENCODER, self.path / ENCODER)
            disk.fsync_folder(self.path)
        except OSError as error:
            disk.remove_tree(tmp / ENCODER)
            raise disk_error(error, self.path / ENCODER) from error


def _flush_files(folder: Path) -> None:
    """Flush what a library has written, before the folder gets the name by which it counts."""
    for file in sorted(folder.iterdir()):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            disk.fsync(descriptor)
        finally:
            os.close(descriptor)
    disk.fsync_folder(folder)
