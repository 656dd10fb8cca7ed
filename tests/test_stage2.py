"""The segment-wise forward pass against the plain one: every window on its own, by ``FrameEncoder.step``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from frame.pipeline.store import open_cache
from frame.train.batches import SegmentReader
from frame.train.config import TrainConfig, changed
from frame.train.sources import open_sources
from frame.train.stage2 import build_stage2
from frame.train.windows import WindowPlan, find_spans, fitting

SETTINGS = {"spatial": "test_vit.patch", "semantic": "other.cls", "student": "vit_tiny", "depth": 1, "segment": 3}


@pytest.mark.parametrize(
    ("past", "ahead", "stride"), [(5, (2, 4), 1), (3, (1, 6), 2), (7, (4, 2), 1)], ids=["paper", "strided", "long"]
)
def test_segments_give_the_losses_of_windows_one_by_one(
    train_cache: Path, past: int, ahead: tuple[int, int], stride: int
) -> None:
    given = {**SETTINGS, "memory_frames": past, "future_spatial": ahead[0], "future_semantic": ahead[1]}
    config = changed(TrainConfig(stage="stage2", encoder="scratch"), given, where="")
    sources = open_sources([train_cache], config, None)
    method = build_stage2(config, sources, None)
    generator = torch.Generator().manual_seed(7)
    for parameter in method.encoder.parameters():  # the memory begins as the identity: it must have an effect here
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    spans = find_spans(sources.caches[0], 0, list(method.columns), splits_wanted="train", seed=0)
    plan = WindowPlan(fitting(spans, method.shape), method.shape, seed=3, max_stride=stride)
    segments = [plan.segment(position) for position in range(4)]
    assert any(not segment.present(-past) for segment in segments)
    with torch.no_grad():
        terms = method.module.eval()(SegmentReader(sources.caches, method.columns).read(segments))
    expected: dict[str, list[torch.Tensor]] = {"patch": [], "cls": [], "future_patch": [], "future_cls": []}
    cache, encoder = open_cache(train_cache), method.encoder.eval()

    def row(column: str, number: int) -> torch.Tensor:
        return torch.from_numpy(cache.read(column, number, number + 1)[0])

    for segment in segments:
        for window in range(segment.windows):
            encoder.reset()
            for step in range(window - past, window + 1):
                if segment.present(step):
                    tokens = encoder.step(row("frames", segment.row(step)))
            with torch.inference_mode():
                joined = torch.cat([tokens.cls[None], tokens.patches.flatten(0, 1)])[None]
                found = {name: value[0] for name, value in encoder.decode(joined).items()}
            spatial, semantic = (row(SETTINGS[name], segment.row(window)).float() for name in ("spatial", "semantic"))
            later = row(SETTINGS["spatial"], segment.row(window + ahead[0])).float()
            much_later = row(SETTINGS["semantic"], segment.row(window + ahead[1])).float()
            expected["patch"].append(functional.mse_loss(found["spatial"], spatial))
            expected["future_patch"].append(functional.mse_loss(found["future_spatial"], later))
            expected["cls"].append(1 - functional.cosine_similarity(found["semantic"], semantic, dim=0))
            expected["future_cls"].append(1 - functional.cosine_similarity(found["future_semantic"], much_later, dim=0))
    for name, values in expected.items():
        assert float(terms.losses[name]) == pytest.approx(float(torch.stack(values).mean()), rel=2e-5), name


def test_the_frozen_encoder_learns_nothing_and_everything_else_does(train_cache: Path) -> None:
    config = changed(TrainConfig(stage="stage2"), {**SETTINGS, "encoder": "frozen"}, where="")
    sources = open_sources([train_cache], config, None)
    method = build_stage2(config, sources, None)
    spans = find_spans(sources.caches[0], 0, list(method.columns), splits_wanted="train", seed=0)
    plan = WindowPlan(fitting(spans, method.shape), method.shape, seed=0, max_stride=1)
    for layer in method.encoder.memory.layers:  # type: ignore[union-attr]  # away from zero, where gradients stop
        layer.proj.weight.data.normal_(std=0.02)
        layer.block.attn.proj.weight.data.normal_(std=0.02)
        layer.block.mlp.fc2.weight.data.normal_(std=0.02)
    terms = method.module(SegmentReader(sources.caches, method.columns).read(plan.batch(0, 2)))
    torch.stack(list(terms.losses.values())).sum().backward()
    without = {name for name, parameter in method.encoder.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in method.encoder.named_parameters() if name.startswith("vit.")}
