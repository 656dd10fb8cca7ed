"""One step of optimisation: the parts of a batch forward and backward, one look at the numbers, one update."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from frame.manifests.errors import InputError
from frame.train.batches import Batch
from frame.train.config import TrainConfig
from frame.train.losses import RunningMeans, gradient_norms, kept_terms, not_finite, weights
from frame.train.method import Terms


@dataclass(frozen=True, kw_only=True)
class Updater:
    """``module`` and ``optimizer`` are Accelerate's; ``base`` are the weights of the losses by name."""

    accelerator: Accelerator
    module: nn.Module
    optimizer: Any
    config: TrainConfig
    base: Mapping[str, float]

    def __call__(
        self, parts: Sequence[Batch], *, step: int, lr: float, means: RunningMeans, stop: bool
    ) -> tuple[dict[str, float], bool]:
        """Update the parameters once and ``means`` with them.

        Returns figures (raw losses over all ranks, the scaled total, the gradient's norm) and whether any rank was
        asked to stop: all ranks learn of it in the same step. Raises ``InputError`` before the update if a loss or the
        gradient is not finite.
        """
        base = self._base(step)
        parted = []
        for number, batch in enumerate(parts):
            last = number == len(parts) - 1
            # Gradients travel between ranks once a step, with its last part.
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.module):
                parted.append(self._part(batch, base, means, share=1.0 / len(parts)))
        figures, stopping = self._look(parted, stop)
        self._require_finite(figures, parted, parts, step)
        means.update({name: figures[self._measured(name)] for name in self.base})
        figures["grad_norm"] = self._update(lr, parts)
        return {key: value for key, value in figures.items() if not key.startswith("_")}, stopping

    def _base(self, step: int) -> dict[str, float]:
        if not self.config.loss_dropout:
            return dict(self.base)
        kept = kept_terms(list(self.base), share_dropped=self.config.loss_dropout, seed=self.config.seed, step=step)
        return {name: weight * kept[name] for name, weight in self.base.items()}

    def _measured(self, name: str) -> str:
        return f"_norm_{name}" if self.config.scaling == "gradient" else name

    def _part(self, batch: Batch, base: Mapping[str, float], means: RunningMeans, *, share: float) -> dict[str, Tensor]:
        """Forward and backward of one part; its raw losses, the scaled total and, where wanted, gradient norms."""
        terms: Terms = self.module(batch)
        found = {name: loss.detach().float() for name, loss in terms.losses.items()}
        if self.config.scaling == "gradient":
            norms = gradient_norms(terms.losses, terms.tokens)
            found |= {f"_norm_{name}": norm for name, norm in norms.items()}
        measured: dict[str, float] = {}
        if self.config.scaling != "none" and not means.means:  # the very first step has no past to be scaled by
            values = self._mean_over_ranks([found[self._measured(name)] for name in self.base])
            measured = dict(zip(self.base, values, strict=True))
        factors = weights(measured, means, scaling=self.config.scaling, base=base)
        # A term left out is multiplied by zero, not skipped: every parameter gets a gradient, as DDP expects.
        total = torch.stack([terms.losses[name].float() * factors[name] for name in self.base]).sum()
        self.accelerator.backward(total * share)
        return {**found, "loss": total.detach()}

    def _look(self, parted: Sequence[Mapping[str, Tensor]], stop: bool) -> tuple[dict[str, float], bool]:
        """The figures of the whole batch: means over parts and ranks, in one exchange and one wait for the device."""
        names = list(parted[0])
        means = [torch.stack([part[name] for part in parted]).mean() for name in names]
        flag = torch.tensor(float(stop), device=self.accelerator.device)
        *values, stopping = self._mean_over_ranks([*means, flag])
        return dict(zip(names, values, strict=True)), stopping > 0

    def _mean_over_ranks(self, values: Sequence[Tensor]) -> list[float]:
        reduced: Tensor = self.accelerator.reduce(torch.stack(list(values)), reduction="mean")
        return reduced.tolist()

    def _require_finite(
        self, figures: Mapping[str, float], parted: Sequence[Mapping[str, Tensor]], parts: Sequence[Batch], step: int
    ) -> None:
        bad = not_finite(figures)
        if not bad:
            return
        mine = [
            batch
            for batch, part in zip(parts, parted, strict=True)
            if not_finite({name: float(value) for name, value in part.items()})
        ]
        raise _stopped(step, f"not finite: {', '.join(name.strip('_') for name in bad)}", mine)

    def _update(self, lr: float, parts: Sequence[Batch]) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        learning = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        norm = float(self.accelerator.clip_grad_norm_(learning, self.config.clip or math.inf))
        if not math.isfinite(norm) and self.config.precision != "fp16":  # with fp16 the scaler skips such a step itself
            raise _stopped(None, "the gradient is not finite", parts)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm


def _stopped(step: int | None, why: str, batches: Sequence[Batch]) -> InputError:
    rows = [line for batch in batches for line in batch.rows()]
    return InputError(
        what="Training stopped: a loss is infinite or no number. The parameters were not updated with it.",
        where="; ".join(rows) or "rows of another rank, which names them",
        why=why + (f", in step {step}" if step is not None else ""),
        fix="look at these rows (`frame-cache verify`, `view`); lower --lr; or use --precision no. "
        "--resume goes on from the last checkpoint.",
    )
