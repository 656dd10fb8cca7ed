"""Validation: raw losses and cosines over the same segments each time, shared out among the ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from frame.train.batches import SegmentReader
from frame.train.method import Terms
from frame.train.windows import Segment, WindowPlan


@dataclass(frozen=True, kw_only=True)
class Validator:
    """The first ``count`` segments of ``plan``'s first epoch, ``size`` at a time."""

    accelerator: Accelerator
    module: nn.Module
    reader: SegmentReader
    plan: WindowPlan
    count: int
    size: int

    def __call__(self) -> dict[str, float]:
        """Each raw loss and measure, averaged over all windows of all ranks."""
        self.module.eval()
        sums: dict[str, Tensor] = {}
        seen = torch.zeros((), device=self.accelerator.device)
        segments, weight = self._mine()
        with torch.no_grad():
            for start in range(0, len(segments), self.size):
                part = segments[start : start + self.size]
                terms: Terms = self.module(self.reader.read(part).to(self.accelerator.device))
                for name, value in {**terms.losses, **terms.measures}.items():
                    sums[name] = sums.get(name, torch.zeros_like(seen)) + value.float() * len(part) * weight
                seen += len(part) * weight
        self.module.train()
        names = sorted(sums)
        packed = torch.stack([*(sums[name] for name in names), seen])
        *totals, count = self.accelerator.reduce(packed, reduction="sum").tolist()
        return {name: total / count for name, total in zip(names, totals, strict=True)}

    def _mine(self) -> tuple[list[Segment], int]:
        """This rank's segments and what they count. A rank without any looks at one that counts nothing: it would else
        not know the names of the figures."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        positions = range(rank, self.count, ranks)
        return [self.plan.segment(position) for position in positions or [0]], int(bool(positions))
