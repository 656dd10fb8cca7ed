"""Phase 2: training from caches, without any teacher. ``train(Request(…), Progress())`` is ``frame-train``'s body."""

from frame.train.prepare import Request
from frame.train.run import Outcome, train

__all__ = ["Outcome", "Request", "train"]
