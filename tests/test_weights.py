"""Where weights come from: options, files of every known layout, the hub; and what is refused."""

from __future__ import annotations

import argparse
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor

from frame.manifests.errors import InputError
from frame.pipeline.teachers import hub, load_teacher, parse_weights, resolve, weights_digest
from frame.pipeline.teachers.checkpoint import read_checkpoint
from frame.pipeline.teachers.spec import TeacherSpec
from frame.pipeline.teachers.weights import HUB, RANDOM, WeightSource

State = dict[str, Tensor]


def spec_of(model: str) -> TeacherSpec:
    return resolve(f"timm:{model}", size=64, fit="crop")


def random_state(model: str, **options: Any) -> State:
    """The model's tensors under timm's own names, all drawn at random."""
    generator = torch.Generator().manual_seed(5)
    shapes = {name: value.shape for name, value in timm.create_model(model, **options).state_dict().items()}
    return {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}


def digest_of(path: Path, model: str = "test_vit") -> str:
    teacher = load_teacher(spec_of(model), weights=WeightSource(origin="file", file=path), device="cpu")
    return str(teacher.record()["weights"]["sha256"])


def saved(contents: object, path: Path) -> Path:
    if path.suffix == ".safetensors":
        assert isinstance(contents, dict)
        save_file(contents, path)
    else:
        torch.save(contents, path)
    return path


def refused(contents: object, folder: Path, *, model: str = "test_vit") -> str:
    with pytest.raises(InputError) as caught:
        digest_of(saved(contents, folder / "bad.pth"), model)
    assert len(caught.value.screen().splitlines()) < 24
    return caught.value.screen()


# -- options ----------------------------------------------------------------------------------------------------------


def test_options_name_a_source_for_each_teacher(tmp_path: Path) -> None:
    specs = [spec_of("test_vit"), resolve("spatial=timm:test_vit2", size=64, fit="crop"), spec_of("test_vit3")]
    file = saved({"x": torch.zeros(1)}, tmp_path / "a=b.safetensors")
    assert parse_weights([], specs) == {"test_vit": HUB, "spatial": HUB, "test_vit3": HUB}
    assert parse_weights(["random"], specs) == dict.fromkeys(("test_vit", "spatial", "test_vit3"), RANDOM)
    from_file = WeightSource(origin="file", file=file)
    assert parse_weights([f"timm:test_vit={file}", "spatial=random"], specs) == {
        "test_vit": from_file,
        "spatial": RANDOM,
        "test_vit3": HUB,
    }
    assert parse_weights([f"spatial=timm:test_vit2={file}", "random"], specs)["spatial"] == from_file


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("test_vit9=random", "names no teacher"),
        ("randm", "names no teacher"),
        ("test_vit", "names no teacher"),
        ("test_vit=", "cannot be read"),
        ("test_vit=nowhere.pth", "no such file"),
        ("test_vit=.", "not a file"),
        ("test_vit=FOLDER/notes.txt", "ends in .safetensors"),
    ],
)
def test_bad_options_are_refused(option: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=says):
        parse_weights([option.replace("FOLDER", str(tmp_path))], [spec_of("test_vit")])


def test_weights_given_twice_are_refused() -> None:
    with pytest.raises(InputError, match="twice"):
        parse_weights(["test_vit=random", "timm:test_vit=random"], [spec_of("test_vit")])


# -- files ------------------------------------------------------------------------------------------------------------


def test_every_wrapping_of_the_same_weights_is_the_same_teacher(tmp_path: Path) -> None:
    state = random_state("test_vit", num_classes=0)
    head = {"head.weight": torch.ones(5, 64), "head.bias": torch.ones(5)}
    dino_full = {
        "student": {f"module.backbone.{name}": value + 1 for name, value in state.items()},
        "teacher": {
            **{f"backbone.{name}": value for name, value in state.items()},
            "head.mlp.0.weight": torch.ones(3, 3),
        },
        "args": argparse.Namespace(arch="vit_small", lr=0.1),
        "epoch": 100,
    }
    layouts: dict[str, object] = {
        "plain.safetensors": state,
        "classifier.safetensors": {**state, **head},
        "plain.pth": state,
        "wrapped.bin": {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3},
        "deit.pt": {"model": {**state, **head}},
        "compiled.pt": {"model": {f"_orig_mod.module.{name}": value for name, value in state.items()}},
        "dino.pth": dino_full,
    }
    digests = {digest_of(saved(contents, tmp_path / name)) for name, contents in layouts.items()}
    assert len(digests) == 1
    changed = {**state, "norm.bias": state["norm.bias"] + 1e-6}
    assert digest_of(saved(changed, tmp_path / "changed.pth")) not in digests


def test_half_precision_files_load_as_the_floats_they_are(tmp_path: Path) -> None:
    state = {name: value.half() for name, value in random_state("test_vit", num_classes=0).items()}
    floats = {name: value.float() for name, value in state.items()}
    assert digest_of(saved(state, tmp_path / "half.pth")) == digest_of(saved(floats, tmp_path / "float.pth"))


def original_dinov2(state: State) -> State:
    """timm's tensors in the layout of the original repository's files."""
    state = dict(state)
    positions, registers, cls = state.pop("pos_embed"), state.pop("reg_token"), state.pop("cls_token")
    shared = torch.full_like(cls[:, 0:1], 0.25)
    return {
        "cls_token": cls - shared,
        "pos_embed": torch.cat([shared, positions], dim=1),
        "register_tokens": registers,
        "mask_token": torch.zeros(1, cls.shape[-1]),
        **state,
    }


def original_dinov3(state: State) -> State:
    renamed = {
        name.replace("reg_token", "storage_tokens")
        .replace("gamma_1", "ls1.gamma")
        .replace("gamma_2", "ls2.gamma"): value
        for name, value in state.items()
    }
    biases = {f"blocks.{i}.attn.qkv.bias": torch.zeros(3 * 384) for i in range(12)}
    extra = {"mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.ones(16)}
    return {**renamed, **biases, **extra}


@pytest.mark.parametrize(
    ("model", "original"),
    [("vit_small_patch14_reg4_dinov2", original_dinov2), ("vit_small_patch16_dinov3", original_dinov3)],
)
def test_the_original_repositories_layouts_load(
    model: str, original: Callable[[State], State], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = random_state(model, num_classes=0)
    # Sums that are exact in floats, so that the two layouts hold the same values bit for bit.
    state["cls_token"] = (state["cls_token"] * 64).round() / 64 + 0.0
    expected = digest_of(saved(state, tmp_path / "timm.safetensors"), model)
    assert digest_of(saved(original(state), tmp_path / "original.pth"), model) == expected
    assert capsys.readouterr().out == ""


def test_a_dinov3_bias_that_the_variant_has_no_place_for_is_refused(tmp_path: Path) -> None:
    state = original_dinov3(random_state("vit_small_patch16_dinov3", num_classes=0))
    state["blocks.3.attn.qkv.bias"][0] = 0.5
    assert "blocks.3.attn.qkv.bias is not zero" in refused(state, tmp_path, model="vit_small_patch16_dinov3")


def test_every_mismatch_is_listed(tmp_path: Path) -> None:
    state = random_state("test_vit", num_classes=0)
    state["extra.weight"] = torch.zeros(2)
    state["norm.weight"] = torch.zeros(7)
    state["norm.bias"] = torch.full((64,), float("nan"))
    state["cls_token"] = torch.zeros(1, 1, 64, dtype=torch.int64)
    del state["blocks.0.norm1.bias"]
    screen = refused(state, tmp_path)
    for line in (
        "5 of their tensors",
        "missing: blocks.0.norm1.bias",
        "unexpected: extra.weight",
        "shape: norm.weight is (7,), the model's (64,)",
        "not finite: norm.bias",
        "type: cls_token is torch.int64",
        "bad.pth",
    ):
        assert line in screen


def test_a_long_list_of_mismatches_fits_a_screen(tmp_path: Path) -> None:
    screen = refused({f"layer{i}.weight": torch.zeros(1) for i in range(90)}, tmp_path)
    assert " more" in screen


@pytest.mark.parametrize("key", ["patch_embed.proj.weight", "pos_embed"])
def test_embeddings_of_another_model_are_not_resampled_until_they_fit(key: str, tmp_path: Path) -> None:
    state = random_state("test_vit", num_classes=0)
    shape = list(state[key].shape)
    shape[1 if key == "pos_embed" else 2 :] = [401, 64] if key == "pos_embed" else [8, 8]
    state[key] = torch.zeros(shape)
    assert f"shape: {key} is {tuple(shape)}" in refused(state, tmp_path)


def test_a_text_tower_is_dropped_and_anything_else_of_clip_is_listed(tmp_path: Path) -> None:
    spec = resolve("open_clip:ViT-S-32-alt", size=224, fit="crop")
    model = open_clip.create_model(spec.model)
    state = dict(model.state_dict())
    path = saved({**state, "input_resolution": torch.tensor(224)}, tmp_path / "clip.pth")
    source = WeightSource(origin="file", file=path)
    teacher = load_teacher(spec, weights=source, device="cpu")
    assert teacher.record()["weights"]["sha256"] == weights_digest(model.visual.state_dict())
    for change, says in (
        ({"visual.odd": torch.ones(1)}, "unexpected: odd"),
        ({"odd": torch.ones(1)}, "unexpected: odd"),
    ):
        saved({**state, **change}, path)
        with pytest.raises(InputError, match=says):
            load_teacher(spec, weights=source, device="cpu")


class Payload:
    """Pickles into a call: whoever unpickles it runs it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.marker),))


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    screen = refused({"state_dict": random_state("test_vit", num_classes=0), "extra": Payload(marker)}, tmp_path)
    assert "running code" in screen
    assert "mkdir" in screen
    assert "save_file" in screen
    assert not marker.exists()


def test_torchscript_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("archive/data.pkl", "archive/constants.pkl", "archive/code/__torch__.py"):
            archive.writestr(name, b"")
    with pytest.raises(InputError, match=r"torch\.jit\.load") as caught:
        read_checkpoint(path)
    assert "ViT-B-32.safetensors" in caught.value.fix


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "text.pth", "text.safetensors", "empty.pth", "zip.pt"])
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.startswith("cut"):
        saved(random_state("test_vit", num_classes=0), path)
        path.write_bytes(path.read_bytes()[:5000])
    elif name.startswith("zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/readme.txt", b"no weights")
    else:
        path.write_bytes(b"this is no checkpoint" * (not name.startswith("empty")))
    with pytest.raises(InputError, match=name) as caught:
        read_checkpoint(path)
    assert "running code" not in caught.value.screen()


@pytest.mark.parametrize("contents", [{}, [1, 2], {"epoch": 3}, {"state_dict": {"a": torch.ones(1), "b": "text"}}])
def test_files_without_the_weights_of_one_network_are_refused(contents: object, tmp_path: Path) -> None:
    assert "weights of one network" in refused(contents, tmp_path)


def test_the_digest_covers_names_types_shapes_and_bytes() -> None:
    base = {"a": torch.arange(6.0), "b": torch.ones(2)}
    digests = {
        weights_digest(state)
        for state in (
            base,
            {"a": base["a"].reshape(2, 3), "b": base["b"]},
            {"a": base["a"], "c": base["b"]},
            {"a": base["b"], "b": base["a"]},
            {"a": base["a"].double(), "b": base["b"]},
            {"a": base["a"].nextafter(torch.tensor(9.0)), "b": base["b"]},
            {"a": base["a"].bfloat16(), "b": base["b"]},
            {},
        )
    }
    assert len(digests) == 8
    assert weights_digest({"b": base["b"], "a": torch.stack([base["a"]] * 2, 1)[:, 0]}) == weights_digest(base)


# -- the hub ----------------------------------------------------------------------------------------------------------


class StubHub:
    """Stands in for the hub: ``files`` is what it has, ``asked`` what was asked of it."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files, self.asked, self.downloads = files, list[str](), 0

    def download(self, repository: str, name: str, *, local_files_only: bool = False) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        self.downloads += 1
        return str(self.files[f"{repository}/{name}"])

    def metadata(self, url: str, *, timeout: float) -> None:
        assert timeout <= 10
        self.asked.append(url.removeprefix("https://huggingface.co/").replace("/resolve/main", ""))
        if self.asked[-1] not in self.files:
            raise EntryNotFoundError("no such file")


@pytest.fixture
def stub_hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Path]], StubHub]:
    def install(files: dict[str, Path]) -> StubHub:
        stub = StubHub(files)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", stub.download)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", stub.metadata)
        return stub

    return install


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_the_hub_is_asked_for_the_librarys_own_files(
    file: str, stub_hub: Callable[[dict[str, Path]], StubHub], tmp_path: Path
) -> None:
    path = saved(random_state("test_vit"), tmp_path / file)
    stub = stub_hub({f"timm/test_vit.r160_in1k/{file}": path})
    teacher = load_teacher(spec_of("test_vit"), weights=HUB, device="cpu")
    weights = teacher.record()["weights"]
    assert stub.asked[-1] == f"timm/test_vit.r160_in1k/{file}"
    assert stub.asked[0] == "timm/test_vit.r160_in1k/model.safetensors"
    assert (weights["origin"], weights["file"], weights["repository"]) == ("hub", file, "timm/test_vit.r160_in1k")
    assert weights["sha256"] == digest_of(path)


@pytest.mark.parametrize("name", ["timm:test_vit", "dino_vits16", "dinov2_vits14_reg", "clip_vitb32"])
def test_the_hub_files_are_those_that_the_library_asks_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def record(repository: str = "", name: str = "", repo_id: str = "", filename: str = "", **_: object) -> str:
        asked.append((repository or repo_id, name or filename))
        raise RuntimeError("enough")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", record)
    monkeypatch.setattr("open_clip.pretrained.hf_hub_download", record)
    spec = resolve(name, size=224, fit="crop")
    if spec.library == "timm":
        with torch.device("meta"), pytest.raises(RuntimeError):
            timm.create_model(f"{spec.model}.{spec.tag}", pretrained=True)
    else:
        with pytest.raises(RuntimeError):
            open_clip.create_model(spec.model, pretrained=spec.tag, force_quick_gelu=True)
    assert asked[0] == (spec.hub, spec.hub_files[0])


def test_the_local_copy_of_the_hub_is_used_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "a" * 40
    folder = tmp_path / "models--timm--test_vit.r160_in1k"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    path = saved(random_state("test_vit"), folder / "snapshots" / commit / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", None)
    teacher = load_teacher(spec_of("test_vit"), weights=HUB, device="cpu")
    assert teacher.record()["weights"]["sha256"] == digest_of(path)


def no_network(_url: str, **_: float) -> None:
    raise OSError("[Errno -2] Name or service not known")


def a_dead_name_server(_url: str, **_: float) -> None:
    time.sleep(3)


@pytest.mark.parametrize(
    ("failure", "says"), [(no_network, "Name or service"), (a_dead_name_server, "no answer within")]
)
def test_without_network_the_error_says_how_to_give_a_file(
    failure: Callable[..., None],
    says: str,
    stub_hub: Callable[[dict[str, Path]], StubHub],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub = stub_hub({})
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", failure)
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        load_teacher(spec_of("test_vit"), weights=HUB, device="cpu")
    screen = caught.value.screen()
    assert time.monotonic() - started < 2.5
    assert "timm/test_vit.r160_in1k, file model.safetensors" in screen
    assert says in screen
    assert "--weights test_vit=FILE" in screen
    assert stub.downloads == 0


def test_a_hub_without_the_file_and_a_model_without_a_hub_are_errors(
    stub_hub: Callable[[dict[str, Path]], StubHub],
) -> None:
    stub = stub_hub({})
    with pytest.raises(InputError, match=r"none of model\.safetensors, pytorch_model\.bin"):
        load_teacher(spec_of("test_vit"), weights=HUB, device="cpu")
    assert len(stub.asked) == 2
    with pytest.raises(InputError, match="no hub source"):
        load_teacher(resolve("open_clip:ViT-S-32-alt", size=224, fit="crop"), weights=HUB, device="cpu")


def test_a_hub_file_that_does_not_fit_is_refused_too(
    stub_hub: Callable[[dict[str, Path]], StubHub], tmp_path: Path
) -> None:
    state = random_state("test_vit")
    del state["norm.bias"]
    stub_hub({"timm/test_vit.r160_in1k/model.safetensors": saved(state, tmp_path / "model.safetensors")})
    with pytest.raises(InputError, match=r"missing: norm\.bias"):
        load_teacher(spec_of("test_vit"), weights=HUB, device="cpu")
