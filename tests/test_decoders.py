"""Decoders: from tokens to a teacher's space."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_models import STAGE1, normal, randomise
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from frame.model.decoders import SemanticDecoder, SpatialDecoder

TOKENS = normal(3, 1 + 12, 128)


def made(kind: str) -> SemanticDecoder | SpatialDecoder:
    decoder = SemanticDecoder(128, 12) if kind == "semantic" else SpatialDecoder(STAGE1)
    randomise(decoder)
    return decoder.eval()


def decoded(decoder: nn.Module, tokens: Tensor = TOKENS) -> Tensor:
    with torch.no_grad():
        out: Tensor = decoder(tokens)
    return out


def test_the_semantic_decoder_is_one_linear_layer_on_cls() -> None:
    decoder = made("semantic")
    out = decoded(decoder)
    raw = TOKENS[:, 0].double() @ decoder.head.weight.double().T + decoder.head.bias.double()
    torch.testing.assert_close(out.double(), (raw * decoder.std + decoder.mean).detach(), rtol=1e-5, atol=1e-5)
    assert out.shape == (3, 12)


def test_the_semantic_decoder_looks_at_cls_alone_and_the_spatial_one_at_the_patches_alone() -> None:
    other_patches, other_cls = TOKENS.clone(), TOKENS.clone()
    other_patches[:, 1:] += 1
    other_cls[:, 0] += 1
    assert torch.equal(decoded(made("semantic")), decoded(made("semantic"), other_patches))
    assert torch.equal(decoded(made("spatial")), decoded(made("spatial"), other_cls))
    assert not torch.allclose(decoded(made("spatial")), decoded(made("spatial"), other_patches))


@pytest.mark.parametrize("depth", [1, 2])
def test_the_spatial_decoder_is_timms_blocks_a_norm_and_a_projection(depth: int) -> None:
    decoder = SpatialDecoder(replace(STAGE1, spatial_depth=depth)).eval()
    randomise(decoder)
    x = TOKENS[:, 1:]
    with torch.no_grad():
        for ours in decoder.blocks:
            block = Block(128, num_heads=2, qkv_bias=True).eval()
            block.load_state_dict(ours.state_dict())
            x = block(x)
        x = nn.functional.layer_norm(x, (128,), decoder.norm.weight, decoder.norm.bias, eps=1e-6)
        expected = (x @ decoder.head.weight.T + decoder.head.bias) * decoder.std + decoder.mean
    assert len(decoder.blocks) == depth
    assert expected.shape == (3, 12, 20)
    torch.testing.assert_close(decoded(decoder), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["semantic", "spatial"])
def test_statistics_are_kept_but_not_trained_and_undone_by_standardising(kind: str) -> None:
    decoder = made(kind)
    assert {"mean", "std"} <= decoder.state_dict().keys()
    assert not {"mean", "std"} & {name for name, _ in decoder.named_parameters()}
    out, mean, std = decoded(decoder), decoder.mean.clone(), decoder.std.clone()
    decoder.mean.zero_()
    decoder.std.fill_(1)
    torch.testing.assert_close((out - mean) / std, decoded(decoder), rtol=1e-5, atol=1e-5)


def test_fresh_statistics_change_nothing() -> None:
    decoder = SemanticDecoder(128, 12)
    assert torch.equal(decoded(decoder), decoder.head(TOKENS[:, 0]).detach())
