"""An encoder that is kept and got back: exactly, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import hub_mixin
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_models import STAGE1, STAGE2, noise, small_encoder
from torch import Tensor

from frame.manifests.errors import InputError
from frame.model import FrameEncoder, ModelConfig, weights_digest
from frame.model.pretrained import write

TINY = ModelConfig(width=16, depth=1, patch=8, size=(16, 24), semantic_dim=4, spatial_dim=4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    small_encoder(TINY).save_pretrained(folder)
    return folder


def same(found: FrameEncoder, expected: FrameEncoder) -> bool:
    ours, theirs = found.state_dict(), expected.state_dict()
    equal = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    return equal and found.config == expected.config


@pytest.mark.parametrize("config", [STAGE1, STAGE2, replace(STAGE2, memory=None), replace(STAGE2, anticipation=False)])
def test_an_encoder_survives_being_kept(config: ModelConfig, tmp_path: Path) -> None:
    encoder = small_encoder(config)
    encoder.save_pretrained(tmp_path / "new" / "folder")
    found = FrameEncoder.from_pretrained(tmp_path / "new" / "folder")
    assert same(found, encoder)
    assert not found.training
    assert torch.equal(found.step(noise(16, 16)).patches, encoder.step(noise(16, 16)).patches)


def test_what_is_kept_are_three_plain_files(saved: Path) -> None:
    assert sorted(file.name for file in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    described = json.loads((saved / "config.json").read_text())
    assert described.pop("weights_sha256") == weights_digest(load_file(saved / "model.safetensors"))
    assert described == TINY.to_json()


def test_the_model_card_has_the_real_counts(saved: Path) -> None:
    card = (saved / "README.md").read_text()
    for part, count in small_encoder(TINY).parameters_by_part().items():
        assert f"| {part} | {count:,} |" in card
    assert "16 x 24" in card


def test_saving_again_replaces_the_encoder(tmp_path: Path) -> None:
    small_encoder(STAGE2).save_pretrained(tmp_path)
    small_encoder(TINY, seed=5).save_pretrained(tmp_path)
    assert same(FrameEncoder.from_pretrained(str(tmp_path)), small_encoder(TINY, seed=5))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_runs_folder_stands_for_its_encoder(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "encoder")
    (tmp_path / "config.json").write_text('{"stage": "stage1"}')
    assert same(FrameEncoder.from_pretrained(tmp_path), small_encoder(TINY))


def test_loading_leaves_the_random_state_alone(saved: Path) -> None:
    before = torch.random.get_rng_state()
    FrameEncoder.from_pretrained(saved)
    assert torch.equal(torch.random.get_rng_state(), before)


@settings(max_examples=150)
@given(data=st.data(), name=st.sampled_from(["config.json", "model.safetensors"]))
def test_a_flipped_bit_never_passes(
    data: st.DataObject, name: str, saved: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray((saved / name).read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    folder = tmp_path_factory.mktemp("flipped")
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(content)
    try:
        found = FrameEncoder.from_pretrained(folder)
    except InputError:
        return
    # White space of JSON, for instance.
    assert same(found, small_encoder(TINY))


@settings(max_examples=40)
@given(data=st.data(), name=st.sampled_from(["config.json", "model.safetensors"]))
def test_a_file_that_was_cut_off_is_refused(
    data: st.DataObject, name: str, saved: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = (saved / name).read_bytes()
    folder = tmp_path_factory.mktemp("cut")
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    # The line's end that closes the JSON is no part of it.
    (folder / name).write_bytes(content[: data.draw(st.integers(0, len(content.rstrip()) - 1))])
    with pytest.raises(InputError):
        FrameEncoder.from_pretrained(folder)


def changed(change: Callable[[dict[str, Tensor]], object]) -> dict[str, Tensor]:
    state = {name: value.clone() for name, value in small_encoder(TINY).state_dict().items()}
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: state.pop("vit.vit.cls_token"), "missing: vit.vit.cls_token"),
        (lambda state: state.update(more=torch.ones(2)), "unexpected: more"),
        (
            lambda state: state.update({"vit.vit.cls_token": torch.ones(1, 1, 8)}),
            r"shape: vit.vit.cls_token is \(1, 1, 8\)",
        ),
        (lambda state: state["vit.vit.norm.bias"].fill_(float("nan")), "not finite: vit.vit.norm.bias"),
    ],
)
def test_weights_of_another_model_are_refused(
    change: Callable[[dict[str, Tensor]], object], why: str, tmp_path: Path
) -> None:
    write(tmp_path, TINY, changed(change))
    with pytest.raises(InputError, match=why):
        FrameEncoder.from_pretrained(tmp_path)


def test_the_two_files_must_be_of_one_encoder(saved: Path, tmp_path: Path) -> None:
    small_encoder(TINY, seed=1).save_pretrained(tmp_path)
    shutil.copy(saved / "config.json", tmp_path)
    with pytest.raises(InputError, match="another digest"):
        FrameEncoder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"depth": 3}, "is not the one that model.safetensors was written with"),
        ({"pixel_mean": [0.5, 0.5, 0.5]}, "is not the one that model.safetensors was written with"),
        ({"depht": 3}, "unknown: depht"),
        ({"weights_sha256": None}, "no weights_sha256"),
    ],
)
def test_an_edited_configuration_is_refused(change: dict[str, Any], why: str, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    described = json.loads((saved / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | change))
    with pytest.raises(InputError, match=why):
        FrameEncoder.from_pretrained(tmp_path)


def test_weights_that_something_else_wrote_are_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    save_file(load_file(saved / "model.safetensors"), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="was written with"):
        FrameEncoder.from_pretrained(tmp_path)


def test_pickled_weights_are_not_looked_at(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(saved / "config.json", tmp_path)
    torch.save(load_file(saved / "model.safetensors"), tmp_path / "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(InputError, match=r"no model\.safetensors; pytorch_model\.bin may hold code, and is not read"):
        FrameEncoder.from_pretrained(tmp_path)


def test_a_folder_without_an_encoder_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"stage": "stage1"}')
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        FrameEncoder.from_pretrained(tmp_path)
    (tmp_path / "encoder").mkdir()
    with pytest.raises(InputError, match=r"no config\.json and no model\.safetensors"):
        FrameEncoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["./runs/stage2", "/nowhere/stage2", "~/nowhere", "my/runs/stage2"])
def test_what_can_only_be_a_folder_is_not_asked_of_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(InputError, match="no such folder"):
        FrameEncoder.from_pretrained(name)


def test_a_file_is_no_folder(saved: Path) -> None:
    with pytest.raises(InputError, match="it is a file, not a folder"):
        FrameEncoder.from_pretrained(saved / "model.safetensors")


def test_an_encoder_comes_from_the_hub_by_name(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(name: str, file: str, *, revision: str | None, token: str | bool | None) -> str:
        asked.append((name, file, revision, token))
        return str(saved / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert same(FrameEncoder.from_pretrained("lab/frame", revision="v1", token=False), small_encoder(TINY))
    assert asked == [("lab/frame", "config.json", "v1", False), ("lab/frame", "model.safetensors", "v1", False)]


def test_a_hub_that_does_not_answer_is_said_with_what_to_do() -> None:
    """The real client, in its offline mode."""
    with pytest.raises(InputError, match="cannot be fetched from the hub") as caught:
        FrameEncoder.from_pretrained("lab/frame")
    assert "huggingface.co/lab/frame, config.json" in caught.value.where
    assert "hf download lab/frame" in caught.value.fix


def test_a_name_that_the_hub_cannot_have_is_said_to_be_no_folder() -> None:
    with pytest.raises(InputError, match="There is no such folder, and the hub has no such names"):
        FrameEncoder.from_pretrained("lab/frame--..")


def test_an_encoder_goes_to_the_hub_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hub:
        def __init__(self, token: str | None) -> None: ...

        def create_repo(self, *, repo_id: str, **_: object) -> huggingface_hub.RepoUrl:
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, *, folder_path: Path, **_: object) -> str:
            shutil.copytree(folder_path, tmp_path, dirs_exist_ok=True)
            return "done"

    monkeypatch.setattr(hub_mixin, "HfApi", Hub)
    assert small_encoder(TINY).push_to_hub("lab/frame") == "done"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, file, **__: str(tmp_path / file))
    assert same(FrameEncoder.from_pretrained("lab/frame"), small_encoder(TINY))


def test_a_full_disk_leaves_what_was_there(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)

    def full(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        write(tmp_path, STAGE1, {})
    assert same(FrameEncoder.from_pretrained(tmp_path), small_encoder(TINY))
    assert len(list(tmp_path.iterdir())) == 3
