"""Stage 1: the student learns the teachers' patch features and CLS token, frame by frame (FRAME 3.1).

Legend: S segments, L frames of a segment, B = S * L, N tokens (CLS and patches), D student width, C target width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from frame.model import FrameEncoder, ModelConfig
from frame.pipeline.store.columns import FRAMES
from frame.train.batches import Batch, Steps
from frame.train.config import TrainConfig
from frame.train.losses import ClsLoss, cls_loss, mean_cosine, patch_loss
from frame.train.method import Method, Terms
from frame.train.sources import Sources
from frame.train.student_init import begin_as_teacher
from frame.train.windows import WindowShape


class Stage1Module(nn.Module):
    """Encoder, semantic and spatial decoder on single frames."""

    def __init__(self, encoder: FrameEncoder, *, spatial: str, semantic: str, kind: ClsLoss) -> None:
        super().__init__()
        self.encoder, self._spatial, self._semantic, self._kind = encoder, spatial, semantic, kind

    def forward(self, batch: Batch) -> Terms:
        """Raw losses ``patch`` and ``cls``, and their cosines."""
        tokens_BND = self.encoder.vit(batch.columns[FRAMES].flatten(0, 1))
        if torch.is_grad_enabled() and not tokens_BND.requires_grad:
            tokens_BND = tokens_BND.requires_grad_()  # so that gradient balancing can ask how each loss pulls on them
        return head_terms(
            self.encoder.decode(tokens_BND),
            {
                "spatial": batch.columns[self._spatial].flatten(0, 1),
                "semantic": batch.columns[self._semantic].flatten(0, 1),
            },
            tokens=tokens_BND,
            std=self.encoder.spatial.std,
            kind=self._kind,
        )


_LOSS_NAMES = {
    "spatial": "patch",
    "semantic": "cls",
    "future_spatial": "future_patch",
    "future_semantic": "future_cls",
}


def head_terms(
    predicted: dict[str, Tensor], targets: dict[str, Tensor], *, tokens: Tensor, std: Tensor, kind: ClsLoss
) -> Terms:
    """The losses of every head that is there: patch heads by MSE, CLS heads by cosine (or as ``kind`` says).

    ``predicted`` and ``targets`` are [B, N-1, C] or [B, C] by the head's name.
    """
    losses, measures = {}, {}
    for head, prediction in predicted.items():
        name, target = _LOSS_NAMES[head], targets[head]
        spatial = head.endswith("spatial")
        losses[name] = patch_loss(prediction, target, std) if spatial else cls_loss(prediction, target, kind)
        measures[f"{name}_cosine"] = mean_cosine(prediction, target)
    return Terms(losses=losses, measures=measures, tokens=tokens)


def window_shape(segment: int) -> WindowShape:
    """Single frames: no past, no future."""
    return WindowShape(windows=segment, past=0, future=0)


def build_stage1(config: TrainConfig, sources: Sources) -> Method:
    """An untrained student; its values are a function of the seed. ``config.segment`` must be resolved."""
    encoder = new_encoder(config, sources)
    encoder.vit.requires_grad_(config.train_encoder)
    current = Steps(first=0, stop=config.segment)
    return Method(
        module=Stage1Module(
            encoder, spatial=sources.spatial.name, semantic=sources.semantic.name, kind=config.cls_loss
        ),
        encoder=encoder,
        weights={"patch": 1.0, "cls": 1.0},
        shape=window_shape(config.segment),
        columns={FRAMES: current, sources.spatial.name: current, sources.semantic.name: current},
    )


def new_encoder(config: TrainConfig, sources: Sources) -> FrameEncoder:
    """A stage-1 encoder with random values from the seed; its heads give the teachers' own units."""
    model = ModelConfig(
        width=config.width,
        depth=config.depth,
        patch=config.patch,
        size=(sources.size, sources.size),
        semantic_dim=sources.semantic.shape[-1],
        spatial_dim=sources.spatial.shape[-1],
        spatial_depth=config.spatial_depth,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        encoder = FrameEncoder(model)
    if config.standardise:
        mean, std = (torch.from_numpy(values) for values in sources.target_moments())
        # A channel that hardly changes must not outweigh all others.
        encoder.spatial.mean.copy_(mean)
        encoder.spatial.std.copy_(std.clamp(min=0.01 * float(std.mean()) or 1.0))
    if config.student_init:
        begin_as_teacher(encoder, Path(config.student_init))
    return encoder
