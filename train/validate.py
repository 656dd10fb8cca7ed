"""Validation: raw losses and cosines over the same segments each time, shared out among the ranks."""

from __future__ import annotations

from collections.abc import Iterator
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
        with torch.no_grad():
            for segments in self._mine():
                batch = self.reader.read(segments).to(self.accelerator.device)
                terms: Terms = self.module(batch)
                for name, value in {**terms.losses, **terms.measures}.items():
                    sums[name] = sums.get(name, torch.zeros_like(seen)) + value.float() * len(segments)
                seen += len(segments)
        self.module.train()
        names = sorted(sums)
        packed = torch.stack([*(sums[name] for name in names), seen])
        *totals, count = self.accelerator.reduce(packed, reduction="sum").tolist()
        return {name: total / count for name, total in zip(names, totals, strict=True)}

    def _mine(self) -> Iterator[list[Segment]]:
        """This rank's batches. Every rank has one at least, an empty rank would not know the names of the figures."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        positions = list(range(rank, self.count, ranks)) or [rank % self.count]
        for start in range(0, len(positions), self.size):
            yield [self.plan.segment(position) for position in positions[start : start + self.size]]
