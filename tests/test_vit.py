"""The frame encoder: timm's own forward on pixels normalised by torchvision, for grids of any shape."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from small_models import STAGE1, noise, randomise
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from frame.model.vit import ViTEncoder


def small_vit(seed: int = 0) -> ViTEncoder:
    vit = ViTEncoder(STAGE1).eval()
    randomise(vit, seed)
    return vit


def timms(ours: ViTEncoder) -> nn.Module:
    """timm's model of the same shape, from its own factory, with the same weights."""
    model: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=128, depth=2, num_heads=2, num_classes=0,
        dynamic_img_size=True,
    )  # fmt: skip
    model.load_state_dict(ours.vit.state_dict(), strict=True)
    return model.eval()


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (8, 64), (64, 64)])
def test_tokens_equal_timms_own_forward(size: tuple[int, int]) -> None:
    ours = small_vit()
    frames = noise(3, *size)
    pixels = functional.normalize(
        frames.permute(0, 3, 1, 2).contiguous().float() / 255, STAGE1.pixel_mean, STAGE1.pixel_std
    )
    with torch.no_grad():
        expected = timms(ours).forward_features(pixels)  # type: ignore[operator]
        found = ours(frames)
    assert found.shape == (3, 1 + size[0] // 8 * (size[1] // 8), 128)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_positions_are_interpolated_for_another_grid() -> None:
    """Of a frame without anything in it, only the positions tell the patches apart."""
    vit = small_vit()
    plain = torch.full((1, 64, 64, 3), 128, dtype=torch.uint8)
    seen: list[Tensor] = []
    hook = vit.vit.norm_pre.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        vit(plain)
        vit(plain[:, :32, :32])
    hook.remove()
    large, small = (tokens[0, 1:] - tokens[0, 1:].mean(0) for tokens in seen)
    expected = nn.functional.interpolate(
        vit.vit.pos_embed[:, 1:].detach().reshape(1, 4, 4, 128).permute(0, 3, 1, 2),
        size=(8, 8),
        mode="bicubic",
        antialias=True,
    )
    expected = expected.flatten(2)[0].T
    torch.testing.assert_close(large, expected - expected.mean(0), rtol=1e-4, atol=1e-4)
    own = vit.vit.pos_embed[0, 1:].detach()
    torch.testing.assert_close(small, own - own.mean(0), rtol=1e-4, atol=1e-4)


def test_the_arithmetic_of_pixels_is_the_teachers_bit_for_bit() -> None:
    vit, frames = small_vit(), noise(2, 32, 32)
    shape = (1, 3, 1, 1)
    mean, std = torch.tensor(STAGE1.pixel_mean).reshape(shape), torch.tensor(STAGE1.pixel_std).reshape(shape)
    with torch.no_grad():
        assert torch.equal(vit(frames), vit.tokens((frames.permute(0, 3, 1, 2).float() / 255.0 - mean) / std))
        assert torch.equal(vit(frames), vit(frames.float()))


def test_only_the_transformer_is_in_the_state() -> None:
    assert {name.partition(".")[0] for name in small_vit().state_dict()} == {"vit"}


def test_half_precision_weights_take_the_same_frames() -> None:
    with torch.no_grad():
        assert small_vit().to(torch.bfloat16)(noise(1, 32, 32)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("size", "advice"),
    [((33, 32), "32 x 32"), ((32, 45), "32 x 48"), ((0, 32), "8 x 32"), ((3, 32), "8 x 32"), ((31, 1), "32 x 8")],
)
def test_a_part_of_a_patch_is_refused_with_a_size_that_would_do(size: tuple[int, int], advice: str) -> None:
    vit = small_vit()
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} .* to {advice}$"):
        vit.grid(*size)
    with pytest.raises(ValueError, match=advice):
        vit(noise(1, *size))


@pytest.mark.parametrize("wrong", [noise(32, 32), noise(1, 32, 32).permute(0, 3, 1, 2), noise(1, 32, 32).long()])
def test_what_are_no_frames_is_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match="frames are"):
        small_vit()(wrong)


def test_other_pixel_statistics_change_what_is_seen() -> None:
    ours, other = small_vit(), ViTEncoder(replace(STAGE1, pixel_mean=(0.0, 0.0, 0.0))).eval()
    other.load_state_dict(ours.state_dict())
    with torch.no_grad():
        assert not torch.allclose(ours(noise(1, 32, 32)), other(noise(1, 32, 32)))
