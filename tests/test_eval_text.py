"""Class names as vectors: prompts, ensembles, the file, and the text tower of open_clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from small_actions import register_tiny_clip
from torch import Tensor
from torch.nn import functional
from typer.testing import CliRunner

from frame.eval import cli
from frame.eval.recognise.text import (
    TextEmbeddings,
    embed_names,
    for_classes,
    prompts,
    read_embeddings,
    read_templates,
    write_embeddings,
)
from frame.eval.recognise.text_tower import TextTower, text_state
from frame.manifests.errors import InputError

CPU = torch.device("cpu")
PROMPTS = ["a person brushing hair", "a person", "b"]


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> None:
    register_tiny_clip(tmp_path_factory.mktemp("configs"))


def clip_file(path: Path, name: str) -> tuple[torch.nn.Module, Path]:
    """A whole CLIP of open_clip with random weights, and its checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = open_clip.create_model(name).eval()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return model, path


@pytest.mark.parametrize("name", ["tiny-clip", "tiny-quick", "tiny-custom"])
def test_the_tower_says_what_open_clips_whole_model_says(tmp_path: Path, name: str) -> None:
    model, path = clip_file(tmp_path / "clip.safetensors", name)
    tower = TextTower(f"open_clip:{name}", str(path), CPU)
    with torch.inference_mode():
        wanted = model.encode_text(open_clip.get_tokenizer(name)(PROMPTS))  # type: ignore[operator]
    torch.testing.assert_close(tower.encode(PROMPTS), wanted)
    torch.testing.assert_close(torch.cat([tower.encode([one]) for one in PROMPTS]), wanted)
    assert (tower.model, tower.weights) == (name, "file")


def test_random_weights_are_the_same_each_time_and_named() -> None:
    before = torch.random.get_rng_state()
    one, two = (TextTower("open_clip:tiny-clip", "random", CPU) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.digest == two.digest
    assert one.weights == "random"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("ln_final.weight"), "missing: ln_final.weight"),
        (lambda state: state.update(ln_final_two=torch.zeros(1)), "unexpected: ln_final_two"),
        (lambda state: state.update({"text.ln_final.weight": torch.zeros(16)}), "unexpected: ln_final.bias"),
        (lambda state: state.update({"ln_final.weight": torch.zeros(17)}), "shape: ln_final.weight"),
        (lambda state: state.update({"ln_final.weight": torch.full((16,), torch.nan)}), "not finite"),
    ],
)
def test_weights_that_do_not_fit_in_every_key_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], said: str
) -> None:
    model, path = clip_file(tmp_path / "clip.safetensors", "tiny-clip")
    state = dict(model.state_dict())
    change(state)
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    with pytest.raises(InputError, match=said):
        TextTower("open_clip:tiny-clip", str(path), CPU)


def test_an_image_tower_alone_is_no_text_tower() -> None:
    with pytest.raises(InputError, match="missing: every key of the text tower"):
        text_state({"visual.proj": torch.zeros(1), "logit_scale": torch.zeros(1)}, where="file")


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("dino_vits16", "random", "Only a CLIP has a text tower"),
        ("open_clip:tiny-hub", "random", "cannot be built here[\\s\\S]*--text-embeddings"),
        ("open_clip:ViT-B-16-SigLIP", "random", "cannot be built here"),
        ("open_clip:tiny-clip", "", "names no hub source[\\s\\S]*--text-weights FILE"),
        ("open_clip:tiny-clip", "/no/such/file.pt", "cannot be read[\\s\\S]*--text-weights /no/such"),
        ("open_clip:ViT-B-32/openai", "", "cannot be fetched from the hub[\\s\\S]*--text-embeddings FILE.npz"),
        ("open_clip:no-such-model", "random", "no teacher"),
    ],
)
def test_towers_that_cannot_be_had_are_refused(name: str, weights: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        TextTower(name, weights, CPU)


def test_a_prompt_that_would_be_cut_is_refused() -> None:
    tower = TextTower("open_clip:tiny-clip", "random", CPU)
    tower.encode(["a " * 14])
    with pytest.raises(InputError, match="17 tokens, it reads 16"):
        tower.encode(["a " * 15])


def letters(texts: Sequence[str]) -> Tensor:
    """Counts of a, b and c: prompts as vectors that anybody can check."""
    return torch.tensor([[float(text.count(letter)) for letter in "abc"] for text in texts])


def test_the_ensemble_is_the_mean_of_unit_vectors() -> None:
    text = embed_names(["Bacca", "cab_c"], ["{label} a", "bbb {}"], letters)
    wanted = []
    for name in ("bacca", "cab c"):
        total = np.zeros(3)
        for prompt in (f"{name} a", f"bbb {name}"):
            vector = np.array([prompt.count(letter) for letter in "abc"], dtype=float)
            total += vector / np.sqrt((vector**2).sum())
        wanted.append(total / np.sqrt((total**2).sum()))
    assert text.vectors == pytest.approx(np.stack(wanted), abs=1e-6)
    assert prompts("a {label} {x}", ["{label}", "Go{0}"]) == ["a {label} {x}", "a go{0} {x}"]


def test_a_name_without_a_vector_is_refused() -> None:
    with pytest.raises(InputError, match="zero or not finite: xyz"):
        embed_names(["abc", "xyz"], ["{label}"], letters)


def test_templates_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("a photo of {label}\n\nsomeone doing {}\n")
    assert read_templates(path) == ("a photo of {label}", "someone doing {}")
    for text, said in (("none\n", "line 1: none"), ("{label} {}\n", "name the class once"), ("\n", "no template")):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            read_templates(path)


def test_the_file_gives_back_what_was_written_and_finds_classes_by_words(tmp_path: Path) -> None:
    text = TextEmbeddings(names=("brush_hair", "YoYo", "wave"), vectors=np.eye(3, 4, dtype=np.float32), source="tower")
    write_embeddings(tmp_path / "text.npz", text)
    found = read_embeddings(tmp_path / "text.npz")
    assert (found.names, found.source) == (text.names, "tower")
    assert np.array_equal(found.vectors, text.vectors)
    assert for_classes(found, ["Yo Yo", "BrushHair"], where="f").tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    with pytest.raises(InputError, match=r"1 of 2 classes have no text embedding[\s\S]*Juggling"):
        for_classes(found, ["wave", "Juggling"], where="f")
    twice = TextEmbeddings(names=("Wave", "wave"), vectors=np.eye(2, dtype=np.float32))
    with pytest.raises(InputError, match="two text embeddings"):
        for_classes(twice, ["wave"], where="f")
    with pytest.raises(InputError, match="kept in an"):
        write_embeddings(tmp_path / "text.txt", text)


NAMES, VECTORS = np.array(["a", "b"]), np.eye(2)


@pytest.mark.parametrize(
    "arrays",
    [
        {"names": NAMES},
        {"names": np.array(["a", 1], dtype=object), "embeddings": VECTORS},
        {"names": NAMES[:, None], "embeddings": VECTORS},
        {"names": np.arange(2), "embeddings": VECTORS},
        {"names": NAMES, "embeddings": VECTORS[:1]},
        {"names": NAMES, "embeddings": VECTORS.astype(int)},
        {"names": NAMES, "embeddings": VECTORS[0]},
        {"names": NAMES, "embeddings": VECTORS * 0},
        {"names": NAMES, "embeddings": np.full((2, 2), np.inf)},
        {"names": NAMES[:0], "embeddings": VECTORS[:0]},
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "text.npz", **arrays)
    with pytest.raises(InputError, match=r"no file of text embeddings|cannot be compared"):
        read_embeddings(tmp_path / "text.npz")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 broken", b"\x93NUMPY", b"\x80\x04\x95"])
def test_other_files_are_refused_without_running_them(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "text.npz").write_bytes(data)
    with pytest.raises(InputError, match="no file of text embeddings"):
        read_embeddings(tmp_path / "text.npz")
    with pytest.raises(InputError, match="no file of text embeddings"):
        read_embeddings(tmp_path / "none.npz")


def test_one_array_is_no_embeddings(tmp_path: Path) -> None:
    with (tmp_path / "text.npz").open("wb") as file:
        np.save(file, VECTORS)
    with pytest.raises(InputError, match="one array"):
        read_embeddings(tmp_path / "text.npz")


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    _, weights = clip_file(tmp_path / "clip.safetensors", "tiny-clip")
    names, out = tmp_path / "classInd.txt", tmp_path / "deep" / "text.npz"
    names.write_text("1 BrushHair\r\n2 YoYo\r\n")
    arguments = ["text", "--names", str(names), "--text", "open_clip:tiny-clip", "--out", str(out)]
    ran = CliRunner().invoke(cli.app, [*arguments, "--text-weights", str(weights), "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    found = read_embeddings(out)
    assert found.names == ("BrushHair", "YoYo")
    assert found.source.startswith("tiny-clip (")
    assert "a person {label}" in found.source
    tower = TextTower("open_clip:tiny-clip", str(weights), CPU)
    wanted = functional.normalize(tower.encode(["a person brush hair", "a person yo yo"]), dim=-1)
    torch.testing.assert_close(torch.from_numpy(found.vectors), wanted)
    names.write_text("wave\nWave\n")
    ran = CliRunner().invoke(cli.app, [*arguments, "--text-weights", str(weights)])
    assert isinstance(ran.exception, InputError)
    assert "there twice" in str(ran.exception)
