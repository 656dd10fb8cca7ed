"""Teachers: names, descriptions, and features equal to the library's own forward on the same pixels."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from frame.manifests.errors import InputError
from frame.pipeline.teachers import (
    Teacher,
    TeacherSpec,
    catalogue,
    finite,
    fit_clips,
    load_teacher,
    resolve,
    resolve_all,
)
from frame.pipeline.teachers.library import library_of
from frame.pipeline.teachers.weights import RANDOM, WeightSource

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1},
}


def noise(count: int, height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


CLIPS = [noise(2, 90, 120, 1), noise(1, 130, 75, 2)]


def random_state(model: nn.Module, seed: int = 3) -> dict[str, Tensor]:
    """Every tensor drawn at random: a fresh model's class token and layer scales are too near zero to test anything."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator) * 0.05 + (name.endswith("norm.weight") * 1.0)
        for name, value in model.state_dict().items()
    }


def pixels(spec: TeacherSpec) -> Tensor:
    """The reference's own path to the model's input: torchvision on contiguous floats."""
    fitted = []
    for clip in CLIPS:
        planes = torch.tensor(clip).permute(0, 3, 1, 2).contiguous().float()
        size = [spec.input_size] if spec.fit == "crop" else [spec.input_size] * 2
        resized = functional.resize(planes, size, interpolation=functional.InterpolationMode.BICUBIC, antialias=True)
        fitted.append(functional.center_crop(resized, [spec.input_size] * 2).clamp(0, 255))
    normalised: Tensor = functional.normalize(torch.cat(fitted) / 255.0, list(spec.mean), list(spec.std))
    return normalised


def assert_same_tokens(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert float(torch.nn.functional.cosine_similarity(found, expected, dim=-1).min()) > 0.999999
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def loaded(spec: TeacherSpec, state: dict[str, Tensor], folder: Path) -> Teacher:
    save_file(state, folder / "weights.safetensors")
    source = WeightSource(origin="file", file=folder / "weights.safetensors")
    return load_teacher(spec, weights=source, device="cpu")


# -- features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "sizes", "fit", "prefix"),
    [
        ("deit_tiny_patch16_224", (224,), "crop", 1),
        ("deit_tiny_distilled_patch16_224", (100,), "squash", 2),
        ("vit_small_patch14_reg4_dinov2", (98, 224), "crop", 5),
        ("vit_small_patch16_dinov3", (80,), "crop", 5),
        ("test_vit", (224,), "squash", 1),
    ],
)
def test_a_feature_is_timms_own_forward(
    model: str, sizes: tuple[int, ...], fit: str, prefix: int, tmp_path: Path
) -> None:
    reference = timm.create_model(model, num_classes=0, dynamic_img_size=True).eval()
    state = random_state(reference)
    reference.load_state_dict(state)
    for size in sizes:
        spec = resolve(f"timm:{model}", size=size, fit=fit)
        with torch.inference_mode():
            tokens = reference.forward_features(pixels(spec))
        features = loaded(spec, state, tmp_path)(CLIPS)
        assert set(features) == {"patch", "cls"}
        assert_same_tokens(features["patch"], tokens[:, prefix:])
        assert_same_tokens(features["cls"], tokens[:, 0])
        assert {name: values.shape[1:] for name, values in features.items()} == dict(spec.columns)


def test_a_model_without_class_token_or_token_norm_is_kept_as_timm_gives_it(tmp_path: Path) -> None:
    """timm's average-pooling variants norm after pooling: what is stored is still ``forward_features``, and so said."""
    spec = resolve("timm:test_vit2", size=64, fit="crop")
    assert not spec.final_norm
    reference = timm.create_model("test_vit2", num_classes=0, dynamic_img_size=True).eval()
    state = random_state(reference)
    reference.load_state_dict(state)
    with torch.inference_mode():
        tokens = reference.forward_features(pixels(spec))
    teacher = loaded(spec, state, tmp_path)
    assert_same_tokens(teacher(CLIPS)["patch"], tokens[:, reference.num_prefix_tokens :])
    assert teacher.record()["final_norm"] is False


def test_the_final_norm_is_applied(tmp_path: Path) -> None:
    spec = resolve("timm:test_vit", size=64, fit="crop")
    model = timm.create_model("test_vit", num_classes=0)
    state = random_state(model)
    state["norm.weight"] = torch.zeros_like(state["norm.weight"])
    state["norm.bias"] = torch.full_like(state["norm.bias"], 7.0)
    features = loaded(spec, state, tmp_path)(CLIPS)
    assert bool((features["patch"] == 7.0).all())
    assert bool((features["cls"] == 7.0).all())


def test_patches_run_along_the_rows(tmp_path: Path) -> None:
    """Without blocks and positions a token depends on its own patch alone: a bright patch shows at its own index."""
    spec = resolve("timm:test_vit", size=64, fit="crop")
    model = timm.create_model("test_vit", num_classes=0)
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    state["patch_embed.proj.weight"] = torch.randn(state["patch_embed.proj.weight"].shape) * 0.1
    state["norm.weight"] += 1.0
    frames = np.full((1, 64, 64, 3), 90, dtype=np.uint8)
    frames[:, 16:32, 48:64] = 220  # row 1, column 3 of a grid of 4 x 4
    patch = loaded(spec, state, tmp_path)([frames])["patch"][0]
    differs = (patch - patch[0]).abs().amax(dim=-1) > 1e-3
    assert spec.grid == (4, 4)
    assert differs.nonzero().flatten().tolist() == [1 * 4 + 3]


@pytest.fixture
def tiny_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], dict[str, Any]]:
    """Register a small CLIP with a tag ``toy`` trained with QuickGELU, or not."""

    def register(quick_gelu: bool) -> dict[str, Any]:
        (tmp_path / "tiny-clip.json").write_text(json.dumps(TINY_CLIP))
        monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [tmp_path / "tiny-clip.json"])
        monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {})
        open_clip.factory._rescan_model_configs()
        entry = {"hf_hub": "someone/tiny/", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "quick_gelu": quick_gelu}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-clip", {"toy": entry})
        return entry

    return register


@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_a_clip_feature_is_encode_image(
    quick_gelu: bool, fit: str, tiny_clip: Callable[[bool], dict[str, Any]], tmp_path: Path
) -> None:
    tiny_clip(quick_gelu)
    spec = resolve("open_clip:tiny-clip/toy", size=400, fit=fit)
    assert (spec.name, spec.input_size, spec.columns) == ("tiny-clip_toy", 64, {"cls": (24,)})
    assert (spec.mean, spec.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    reference = open_clip.create_model("tiny-clip", force_quick_gelu=quick_gelu).eval()
    state = random_state(reference)
    reference.load_state_dict(state)
    with torch.inference_mode():
        expected = reference.encode_image(pixels(spec), normalize=False)
    teacher = loaded(spec, state, tmp_path)
    assert_same_tokens(teacher(CLIPS)["cls"], expected)
    assert not any("text" in name or "token_embedding" in name for name in teacher.model.state_dict())


@pytest.mark.parametrize(("tag", "expected"), [("openai", True), ("laion2b_s34b_b79k", False)])
def test_the_tag_decides_on_quick_gelu(tag: str, expected: bool) -> None:
    spec = resolve(f"open_clip:ViT-B-32/{tag}", size=224, fit="crop")
    with torch.device("meta"):
        tower = library_of("open_clip").build(spec)
    kinds = {type(module).__name__ for module in tower.modules()}
    assert ("QuickGELU" in kinds, "GELU" in kinds) == (expected, not expected)


def test_fitted_frames_can_be_shared_between_teachers() -> None:
    teacher = load_teacher(resolve("timm:test_vit", size=64, fit="crop"), weights=RANDOM, device="cpu")
    fitted = fit_clips(CLIPS, 64, "crop")
    kept = fitted.clone()
    whole, shared = teacher(CLIPS), teacher.forward(fitted)
    assert all(torch.equal(whole[name], shared[name]) for name in whole)
    assert torch.equal(fitted, kept)


def test_no_clips_give_no_rows() -> None:
    teacher = load_teacher(resolve("timm:test_vit", size=64, fit="crop"), weights=RANDOM, device="cpu")
    assert {name: tuple(values.shape) for name, values in teacher([]).items()} == {"patch": (0, 16, 64), "cls": (0, 64)}


def test_lower_precisions_give_float32_near_the_full_one() -> None:
    spec = resolve("timm:test_vit", size=64, fit="crop")
    full, half = (load_teacher(spec, weights=RANDOM, device="cpu", precision=p) for p in ("float32", "bfloat16"))
    exact, rough = full(CLIPS)["patch"], half(CLIPS)["patch"]
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert float(torch.nn.functional.cosine_similarity(exact, rough, dim=-1).min()) > 0.999


def test_values_that_are_not_finite_are_named_by_row() -> None:
    patch, cls = torch.zeros(4, 3, 2), torch.zeros(4, 2)
    patch[1, 2, 0] = float("nan")
    cls[3, 1] = float("inf")
    assert finite({"patch": patch, "cls": cls}).tolist() == [True, False, True, False]


# -- random weights and records ---------------------------------------------------------------------------------------


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone() -> None:
    spec = resolve("timm:test_vit", size=64, fit="crop")
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = load_teacher(spec, weights=RANDOM, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second = load_teacher(spec, weights=RANDOM, device="cpu")
    assert first.record() == second.record()
    assert torch.equal(first(CLIPS)["patch"], second(CLIPS)["patch"])
    other = load_teacher(resolve("timm:test_vit3", size=64, fit="crop"), weights=RANDOM, device="cpu")
    assert other.record()["weights"]["sha256"] != first.record()["weights"]["sha256"]


def test_the_record_is_json_and_names_everything_but_paths(tmp_path: Path) -> None:
    spec = resolve("student=timm:test_vit", size=70, fit="crop")
    state = random_state(timm.create_model("test_vit", num_classes=0))
    record = loaded(spec, state, tmp_path).record()
    assert json.loads(json.dumps(record)) == record
    assert str(tmp_path) not in json.dumps(record)
    assert record["name"] == "student"
    assert record["columns"] == {"student.patch": [16, 64], "student.cls": [64]}
    assert record["weights"]["origin"] == "file"
    assert record["weights"]["file"] == "weights.safetensors"
    assert len(record["weights"]["sha256"]) == 64
    assert (record["library"], record["library_version"], record["model"]) == ("timm", timm.__version__, "test_vit")
    assert (record["input_size"], record["grid"], record["precision"]) == (64, [4, 4], "float32")


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(catalogue()))
def test_the_catalogue_agrees_with_the_installed_libraries(name: str) -> None:
    """``resolve`` itself compares patch, width, columns and hub with the library's; the rest is checked here."""
    spec = resolve(name, size=224, fit="crop")
    assert spec.name == spec.requested == name
    assert spec.final_norm
    assert spec.licence
    if spec.library == "timm":
        assert f"{spec.model}.{spec.tag}" in timm.list_models(pretrained=True)
        assert spec.mean == timm.get_pretrained_cfg(f"{spec.model}.{spec.tag}").mean
        assert spec.grid == (spec.input_size // spec.patch,) * 2 if spec.patch else False
        assert set(spec.columns) == {"patch", "cls"}
    else:
        assert (spec.model, spec.tag) in open_clip.list_pretrained()
        assert (spec.input_size, spec.columns) == (224, {"cls": (spec.width,)})


def test_a_catalogue_that_the_library_contradicts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from frame.pipeline.teachers import names

    wrong = {"dino_vits16": replace(catalogue()["dino_vits16"], width=385)}
    monkeypatch.setattr(names, "catalogue", lambda: wrong)
    with pytest.raises(InputError, match=r"manifests/teachers\.yaml"):
        resolve("dino_vits16", size=224, fit="crop")


@pytest.mark.parametrize(
    ("requested", "name"),
    [
        ("dino_vits16", "dino_vits16"),
        ("timm:deit_tiny_patch16_224", "deit_tiny_patch16_224"),
        ("timm:vit_small_patch16_224.dino", "vit_small_patch16_224_dino"),
        ("open_clip:ViT-B-32/openai", "ViT-B-32_openai"),
        ("open_clip:ViT-B-32", "ViT-B-32"),
        ("spatial=timm:deit_tiny_patch16_224", "spatial"),
        ("semantic=clip_vitb32", "semantic"),
    ],
)
def test_names_become_folders(requested: str, name: str) -> None:
    spec = resolve(requested, size=224, fit="crop")
    assert (spec.name, spec.requested) == (name, requested)
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301 - specs travel to other processes


@given(size=st.integers(16, 700))
@settings(max_examples=10, deadline=None)
def test_frames_are_rounded_down_to_whole_patches(size: int) -> None:
    spec = resolve("timm:test_vit", size=size, fit="crop")
    assert spec.grid is not None
    assert spec.input_size == 16 * spec.grid[0] <= size < spec.input_size + 16
    assert spec.columns["patch"] == (spec.grid[0] * spec.grid[1], 64)


def test_400_becomes_392_for_patches_of_14_and_224_fits_all() -> None:
    assert resolve("dinov2_vits14", size=400, fit="crop").input_size == 392
    assert {resolve(name, size=224, fit="crop").input_size for name in ("dino_vits8", "dinov2_vits14")} == {224}


@pytest.mark.parametrize(
    ("requested", "says"),
    [
        ("dino_vit16", "dino_vits16"),
        ("timm:vit_small_patch16_224.dinno", r"timm:vit_small_patch16_224\.dino"),
        ("timm:deit_tiny_patch16_225", "timm:deit_tiny_patch16_224"),
        ("deit_tiny_patch16_224", "such as timm:deit_tiny_patch16_224"),
        ("open_clip:ViT-B-23/openai", "open_clip:ViT-B-32"),
        ("open_clip:ViT-B-32/opena", "open_clip:ViT-B-32/openai"),
        ("timm:", "known by name"),
        ("", "known by name"),
        ("timm:convnext_tiny", "not a plain vision transformer"),
        ("timm:swin_tiny_patch4_window7_224", "not a plain vision transformer"),
        ("timm:vit_small_r26_s32_224", "not a plain vision transformer"),
        ("timm:resnet18", "not a plain vision transformer"),
        ("frames=dino_vits16", "cannot be called 'frames'"),
        ("a.b=dino_vits16", "becomes a folder"),
        ("../x=dino_vits16", "becomes a folder"),
        ("=dino_vits16", "becomes a folder"),
    ],
)
def test_bad_names_say_what_to_write(requested: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        resolve(requested, size=224, fit="crop")


def test_bad_sizes_and_fits_are_refused() -> None:
    for size in (15, 1, 0, -3):
        with pytest.raises(InputError, match="--size"):
            resolve("dino_vits16", size=size, fit="crop")
    with pytest.raises(InputError, match="crop or squash"):
        resolve("dino_vits16", size=224, fit="stretch")


def test_two_teachers_of_one_name_are_refused() -> None:
    specs = resolve_all(["a=timm:test_vit", "timm:test_vit"], size=64, fit="crop")
    assert [spec.name for spec in specs] == ["a", "test_vit"]
    with pytest.raises(InputError, match="ALIAS=timm:test_vit3"):
        resolve_all(["Spatial=timm:test_vit", "spatial=timm:test_vit3"], size=64, fit="crop")
