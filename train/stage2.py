"""Stage 2: over a frozen encoder, memory of the past frames and anticipation of future features (FRAME 3.2, 3.3).

Legend: S segments, F frames of a segment (P past, then L current ones), B = S * L, N tokens (CLS and patches),
D student width, M memory width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frame.manifests.errors import InputError
from frame.model import FrameEncoder, MemoryConfig, weights_digest
from frame.model.memory import Memory, past_windows
from frame.pipeline.store.columns import FRAMES
from frame.train.batches import Batch, Steps
from frame.train.config import TrainConfig
from frame.train.losses import ClsLoss
from frame.train.method import Method, Terms
from frame.train.sources import STUDENT, Sources
from frame.train.stage1 import head_terms, new_encoder
from frame.train.windows import WindowShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Columns of the two targets, the windows of a segment (L), and how far ahead the anticipated ones lie."""

    spatial: str
    semantic: str
    windows: int
    future_spatial: int
    future_semantic: int

    def of(self, batch: Batch) -> dict[str, Tensor]:
        """Targets by head, [B, ...]: each cached row is in the batch once, however many windows look at it."""
        spatial, semantic = batch.columns[self.spatial], batch.columns[self.semantic]
        windows = {
            "spatial": (spatial, 0),
            "semantic": (semantic, 0),
            "future_spatial": (spatial, self.future_spatial),
            "future_semantic": (semantic, self.future_semantic),
        }
        return {head: x[:, ahead : ahead + self.windows].flatten(0, 1) for head, (x, ahead) in windows.items()}


class Stage2Module(nn.Module):
    """Tokens of a segment, each frame encoded once; then memory and heads for every window of it."""

    def __init__(
        self, encoder: FrameEncoder, *, targets: Targets, past: int, tokens: str, frozen: bool, kind: ClsLoss
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self._targets, self._past, self._column, self._frozen, self._kind = targets, past, tokens, frozen, kind

    def forward(self, batch: Batch) -> Terms:
        """Raw losses ``patch``, ``cls`` and, with anticipation, ``future_patch``, ``future_cls``; and their cosines."""
        tokens_SFND = self._tokens(batch)
        tokens_BND = tokens_SFND[:, self._past :].flatten(0, 1)
        if self.encoder.memory is not None:
            tokens_BND = self._remember(self.encoder.memory, tokens_SFND, batch.present)
        if torch.is_grad_enabled() and not tokens_BND.requires_grad:
            tokens_BND = tokens_BND.requires_grad_()  # so that gradient balancing can ask how each loss pulls on them
        predicted = self.encoder.decode(tokens_BND)
        targets = self._targets.of(batch)
        return head_terms(predicted, targets, tokens=tokens_BND, std=self.encoder.spatial.std, kind=self._kind)

    def _tokens(self, batch: Batch) -> Tensor:
        if self._column:
            cls_SFD, patch_SFND = (batch.columns[f"{self._column}.{part}"] for part in ("cls", "patch"))
            return torch.cat([cls_SFD.unsqueeze(2), patch_SFND], dim=2).float()
        frames_SFHW3 = batch.columns[FRAMES]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            tokens_BND = self.encoder.vit(frames_SFHW3.flatten(0, 1))
        tokens_SFND: Tensor = tokens_BND.reshape(*frames_SFHW3.shape[:2], *tokens_BND.shape[1:])
        # A cache keeps float16: rounded here too, so that both ways train on the same numbers (in full precision:
        # under autocast these tokens are the autocast ones).
        return tokens_SFND.half().float() if self._frozen else tokens_SFND

    def _remember(self, memory: Memory, tokens_SFND: Tensor, present_SF: Tensor) -> Tensor:
        """The current tokens [B, N, D] after looking at the past of each; frames are projected once."""
        side = self.encoder.config.size[0] // self.encoder.config.patch
        grid = (side, side)
        stored_BNM = memory.store(tokens_SFND.flatten(0, 1), grid)
        stored_SFNM = stored_BNM.reshape(*tokens_SFND.shape[:2], *stored_BNM.shape[1:])
        past_BPNM = past_windows(stored_SFNM, self._past).flatten(0, 1)
        present_BP = past_windows(present_SF, self._past).flatten(0, 1)
        return memory.attend(tokens_SFND[:, self._past :].flatten(0, 1), past_BPNM, grid, present_BP)


def window_shape(config: TrainConfig, segment: int) -> WindowShape:
    """The memory's past frames, and as many frames ahead as the farther target."""
    future = max(config.future_spatial, config.future_semantic) if config.anticipation else 0
    return WindowShape(windows=segment, past=config.memory_frames, future=future)


def build_stage2(config: TrainConfig, sources: Sources, init: FrameEncoder | None) -> Method:
    """Stage 2 over ``init`` (None: from scratch). ``config.segment`` must be resolved. Raises ``InputError`` where the
    encoder, the targets and the cache's tokens do not fit each other."""
    base = new_encoder(config, sources) if init is None else init
    _require_heads(base, config, sources)
    memory = None
    if config.memory_frames:
        memory = MemoryConfig(frames=config.memory_frames, dim=config.memory_dim, layers=config.memory_layers)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed + 1)
        encoder = base.as_stage2(memory=memory, anticipation=config.anticipation)
    frozen = config.encoder == "frozen"
    encoder.vit.requires_grad_(not frozen)
    if config.tokens:
        _require_tokens(encoder, config.tokens, sources)
    ahead = (config.future_spatial, config.future_semantic) if config.anticipation else (0, 0)
    targets = Targets(
        spatial=sources.spatial.name,
        semantic=sources.semantic.name,
        windows=config.segment,
        future_spatial=ahead[0],
        future_semantic=ahead[1],
    )
    past = config.memory_frames
    futures = {"future_patch": config.future_weight, "future_cls": config.future_weight}
    return Method(
        module=Stage2Module(
            encoder, targets=targets, past=past, tokens=config.tokens, frozen=frozen, kind=config.cls_loss
        ),
        encoder=encoder,
        weights={"patch": 1.0, "cls": 1.0, **(futures if config.anticipation else {})},
        shape=window_shape(config, config.segment),
        columns=_columns(config, targets),
    )


def input_columns(config: TrainConfig) -> list[str]:
    """What the tokens come from: the frames, or the student's own cached columns."""
    return [f"{config.tokens}.cls", f"{config.tokens}.patch"] if config.tokens else [FRAMES]


def _columns(config: TrainConfig, targets: Targets) -> dict[str, Steps]:
    seen = Steps(first=-config.memory_frames, stop=config.segment)
    return {
        **dict.fromkeys(input_columns(config), seen),
        targets.spatial: Steps(first=0, stop=config.segment + targets.future_spatial),
        targets.semantic: Steps(first=0, stop=config.segment + targets.future_semantic),
    }


def _require_heads(encoder: FrameEncoder, config: TrainConfig, sources: Sources) -> None:
    have, size = encoder.config, sources.size
    asked = {
        "standardise": (bool((encoder.spatial.std != 1).any()), config.standardise),
        "width (--student)": (have.width, config.width),
        "patch": (have.patch, config.patch),
        "depth": (have.depth, config.depth),
        "blocks of a spatial decoder": (have.spatial_depth, config.spatial_depth),
        "pixels": (tuple(have.size), (size, size)),
        f"channels of {sources.spatial.name}": (have.spatial_dim, sources.spatial.shape[-1]),
        f"channels of {sources.semantic.name}": (have.semantic_dim, sources.semantic.shape[-1]),
    }
    differing = [f"{name}: {mine}, here {here}" for name, (mine, here) in asked.items() if mine != here]
    if differing:
        raise InputError(
            what="The stage-1 encoder does not fit these settings and this cache.",
            where="--init",
            why="; ".join(differing),
            fix="use the cache and columns it was trained with, or train stage 1 anew",
        )


def _require_tokens(encoder: FrameEncoder, name: str, sources: Sources) -> None:
    """The cached tokens must be this very encoder's."""
    digest = weights_digest(encoder.vit.state_dict())
    for cache in sources.caches:
        record = cache.meta.teachers.get(name, {})
        missing = [part for part in ("cls", "patch") if f"{name}.{part}" not in cache.columns]
        why = ""
        if missing:
            why = f"it has no column {name}.{missing[0]} (it has {', '.join(sorted(cache.columns))})"
        elif record.get("library") != STUDENT or record["weights"]["sha256"] != digest:
            why = f"its {name!r} are the tokens of another model than the one in --init"
        if why:
            raise InputError(
                what=f"The cache does not hold the student's tokens under {name!r}.",
                where=str(cache.path),
                why=why,
                fix="`frame-cache build CACHE --teachers NAME=RUN` adds those of the stage-1 run RUN",
            )
