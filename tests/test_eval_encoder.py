"""Any encoder behind one face: the same tokens as the library gives, and no memory of another sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from safetensors.torch import save_file
from small_models import STAGE1, STAGE2, small_encoder

from frame.eval.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder, Picture, open_device, open_encoder
from frame.eval.image_encoder import clip_tokens
from frame.manifests.errors import InputError
from frame.model import weights_digest

TYPO = (0.228, 0.224, 0.225)
TIMM = "timm:vit_tiny_patch16_224"


def pictures(count: int, height: int, width: int, seed: int = 0) -> list[Picture]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "encoder"
    small_encoder(STAGE2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return open_encoder(TIMM, weights="random")


def test_timm_tokens_are_timms_own_after_the_norm_on_a_rectangle(tmp_path: Path) -> None:
    model = timm.create_model("deit_tiny_patch16_224", num_classes=0, dynamic_img_size=True).eval()
    torch.nn.init.normal_(model.norm.weight)  # so that a missing norm cannot hide
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    encoder = open_encoder("timm:deit_tiny_patch16_224", weights=str(tmp_path / "w.safetensors"))
    frames = pictures(2, 48, 80)
    for std in (None, TYPO):
        scale = torch.tensor(std or IMAGENET_STD)[:, None, None]
        found = list(encoder.stream(frames, std=std))
        for frame, tokens in zip(frames, found, strict=True):
            pixels = torch.from_numpy(frame).permute(2, 0, 1) / 255
            with torch.inference_mode():
                wanted = model.forward_features(((pixels - torch.tensor(IMAGENET_MEAN)[:, None, None]) / scale)[None])
            assert tokens.patches.shape == (3, 5, 192)
            torch.testing.assert_close(tokens.cls, wanted[0, 0], atol=2e-5, rtol=1e-5)
            torch.testing.assert_close(tokens.patches.flatten(0, 1), wanted[0, 1:], atol=2e-5, rtol=1e-5)
    assert encoder.info.digest == weights_digest(model.state_dict())
    assert (encoder.info.weights, encoder.info.patch, encoder.info.memory) == ("file", 16, 0)


def test_register_tokens_are_no_patches() -> None:
    encoder = open_encoder("timm:vit_small_patch14_reg4_dinov2", weights="random")
    (tokens,) = encoder.stream(pictures(1, 28, 42))
    assert tokens.patches.shape == (2, 3, 384)


def test_a_protocols_std_is_for_encoders_with_imagenets_only() -> None:
    encoder = open_encoder("timm:vit_tiny_patch16_224", weights="random")  # timm's own: 0.5, 0.5
    assert encoder.info.std == (0.5, 0.5, 0.5)
    (one,), (other,) = (list(encoder.stream(pictures(1, 32, 32), std=std)) for std in (None, TYPO))
    assert torch.equal(one.patches, other.patches)


def test_frame_stream_is_the_encoders_steps_from_an_empty_memory(run: Path) -> None:
    encoder, reference = open_encoder(str(run)), small_encoder(STAGE2)
    frames = pictures(6, 24, 40)
    first = list(encoder.stream(frames))
    # A sequence that is left in its middle, then another: nothing of the first may remain.
    next(encoder.stream(pictures(3, 24, 40, seed=1)))
    second = list(encoder.stream(frames))
    for frame, one, two in zip(frames, first, second, strict=True):
        wanted = reference.step(frame)
        assert torch.equal(one.patches, wanted.patches)
        assert torch.equal(two.cls, wanted.cls)
    assert encoder.info.memory == 3


def test_two_interleaved_streams_are_refused_or_kept_apart(run: Path) -> None:
    encoder = open_encoder(str(run))
    frames, others = pictures(4, 24, 40), pictures(4, 24, 40, seed=1)
    alone = [tokens.cls for tokens in encoder.stream(frames)]
    stream = encoder.stream(frames)
    next(stream)
    for _ in encoder.stream(others):
        pass
    with pytest.raises(RuntimeError, match="one stream at a time"):
        list(stream)
    assert all(torch.equal(a, b.cls) for a, b in zip(alone, encoder.stream(frames), strict=True))


def test_the_protocols_std_reaches_a_frame_encoder(run: Path) -> None:
    encoder = open_encoder(str(run))
    frame = pictures(1, 16, 16)[0]
    (shifted,) = encoder.stream([frame], std=TYPO)
    reference = small_encoder(STAGE2)
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(TYPO)[:, None, None]
    pixels = (torch.from_numpy(frame).permute(2, 0, 1) / 255 - mean) / std
    with torch.inference_mode():
        tokens = reference.vit.tokens(pixels[None])
        assert reference.memory is not None
        wanted = reference.memory.attend(tokens, torch.zeros(1, 0, 5, 16), (2, 2))[0]
    torch.testing.assert_close(shifted.cls, wanted[0], atol=1e-5, rtol=1e-5)


def test_text_space_of_a_run_and_its_absence_in_timm(run: Path, tiny: Encoder) -> None:
    cls = torch.randn(2, 128)
    encoder = small_encoder(STAGE2)
    torch.testing.assert_close(open_encoder(str(run)).semantic(cls), encoder.semantic(cls[:, None]))
    with pytest.raises(InputError, match="no space shared with text"):
        tiny.semantic(cls)


def test_clip_tokens_on_its_own_grid_and_on_others() -> None:
    vision = CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=8, image_size=32)
    tower = _build_vision_tower(24, vision, False).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        cls, patches = clip_tokens(tower, pixels, (4, 4), name="x")
        torch.testing.assert_close(cls, tower(pixels))
        assert patches.shape == (2, 16, 64)
        wide, more = clip_tokens(tower, torch.randn(2, 3, 32, 48), (4, 6), name="x")
        assert wide.shape == (2, 24)
        assert more.shape == (2, 24, 64)
        torch.testing.assert_close(tower(pixels), cls)  # left as it was


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("no-such-teacher", "", "no teacher"),
        ("./nowhere", "", "no encoder here"),
        ("timm:resnet18", "random", "no plain|not a plain"),
        ("dino_vits16", "/no/such/file.safetensors", "cannot be read"),
    ],
)
def test_refusals(name: str, weights: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_encoder(name, weights=weights)


def test_a_run_takes_no_weights_and_a_device_must_exist(run: Path) -> None:
    with pytest.raises(InputError, match="own weights"):
        open_encoder(str(run), weights="random")
    with pytest.raises(InputError, match="no such device"):
        open_device("nonsense")


def test_stage_1_has_no_memory(tmp_path: Path) -> None:
    small_encoder(STAGE1).save_pretrained(tmp_path / "a")
    assert open_encoder(str(tmp_path / "a")).info.memory == 0
