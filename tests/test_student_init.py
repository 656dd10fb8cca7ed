from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_runs import SMALL

from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.model import FrameEncoder, ModelConfig
from frame.pipeline.store.local import LocalFacts, facts_path, read_facts, write_facts
from frame.train.prepare import Request, prepare
from frame.train.run import train
from frame.train.student_init import begin_as_teacher

CONFIG = ModelConfig(width=192, depth=2, patch=16, size=(48, 64), semantic_dim=8, spatial_dim=192)


def teacher(folder: Path, **changes: int) -> tuple[torch.nn.Module, Path]:
    """A classifier of timm with random weights, and its file."""
    torch.manual_seed(3)
    options = {"img_size": 224, "embed_dim": 192, "depth": 2, "num_heads": 3, "num_classes": 10, **changes}
    model = timm.models.vision_transformer.VisionTransformer(**options, dynamic_img_size=True).eval()
    for parameter in model.parameters():  # norms that are no identity, as in a trained one
        parameter.data += 0.1 * torch.randn(parameter.shape)
    save_file(model.state_dict(), folder / "teacher.safetensors")
    return model, folder / "teacher.safetensors"


def frames() -> torch.Tensor:
    return torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_student_gives_the_teachers_tokens_on_its_own_grid(tmp_path: Path) -> None:
    model, file = teacher(tmp_path)
    encoder = FrameEncoder(CONFIG).eval()
    begin_as_teacher(encoder, file)
    mean, std = (torch.tensor(value).reshape(1, 3, 1, 1) for value in (CONFIG.pixel_mean, CONFIG.pixel_std))
    with torch.no_grad():
        expected = model.forward_features((frames().permute(0, 3, 1, 2) / 255 - mean) / std)  # type: ignore[operator]
        tokens = encoder.vit(frames())
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("standardised", [False, True])
def test_its_spatial_decoder_begins_as_nearly_the_identity(tmp_path: Path, standardised: bool) -> None:
    _, file = teacher(tmp_path)
    encoder = FrameEncoder(CONFIG).eval()
    if standardised:
        encoder.spatial.mean.fill_(0.3)
        encoder.spatial.std.fill_(2.5)
    begin_as_teacher(encoder, file)
    with torch.no_grad():
        tokens = encoder.vit(frames())
        decoded = encoder.spatial(tokens)
    assert torch.cosine_similarity(decoded, tokens[:, 1:], dim=-1).mean() > 0.97
    assert (decoded - tokens[:, 1:]).square().mean() < 0.1 * tokens[:, 1:].square().mean()


@pytest.mark.parametrize("changes", [{"depth": 3}, {"embed_dim": 96}, {"patch_size": 8}, {"depth": 1}], ids=str)
def test_a_teacher_of_another_shape_is_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    _, file = teacher(tmp_path, **changes)
    with pytest.raises(InputError, match="cannot begin as this teacher"):
        begin_as_teacher(FrameEncoder(CONFIG), file)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"pickle")
    for file in (tmp_path / "x.safetensors", tmp_path / "none.safetensors"):
        with pytest.raises(InputError, match="cannot begin as this teacher"):
            begin_as_teacher(FrameEncoder(CONFIG), file)


def test_teacher_is_the_file_that_the_targets_were_made_with(train_cache: Path, tmp_path: Path) -> None:
    _, file = teacher(tmp_path, depth=1)
    before = read_facts(train_cache)
    asked = Request(
        stage="stage1", out=tmp_path / "run", caches=(train_cache,), settings={**SMALL, "student_init": "teacher"}
    )
    write_facts(train_cache, LocalFacts(source=before.source, weights={**before.weights, "test_vit": file}))
    try:
        prepared = prepare(asked)
        assert prepared.config.student_init == str(file)  # a run must not depend on what "teacher" means later
        state = timm.models.load_state_dict(str(file))
        torch.testing.assert_close(prepared.method.encoder.vit.vit.norm.weight, state["norm.weight"], rtol=0, atol=0)
        file.unlink()
        with pytest.raises(InputError, match="does not know a file with the weights of 'test_vit'"):
            prepare(asked)
    finally:
        write_facts(train_cache, before) if before != LocalFacts() else facts_path(train_cache).unlink()


def test_heads_alone_may_learn_over_a_student_that_stays_its_teacher(train_cache: Path, tmp_path: Path) -> None:
    _, file = teacher(tmp_path, depth=1)
    settings = {**SMALL, "student_init": str(file), "train_encoder": False, "lr": 1e-3}
    asked = Request(stage="stage1", out=tmp_path / "run", caches=(train_cache,), settings=settings)
    before = prepare(asked).method.encoder.state_dict()
    train(asked, Progress(quiet=True))
    after = FrameEncoder.from_pretrained(tmp_path / "run").state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"semantic", "spatial"}
    with pytest.raises(InputError, match="must begin as something"):
        prepare(replace(asked, out=tmp_path / "none", settings={**SMALL, "train_encoder": False}))
    with pytest.raises(InputError, match="setting of its own"):
        prepare(Request(stage="stage2", out=tmp_path / "two", init=tmp_path / "run", settings={"train_encoder": False}))
