"""A trained student as a teacher: the very tokens of its frame encoder on the very pictures of the cache."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_resume import complete, without_ray  # noqa: F401 - a fixture that every test here uses
from test_stages import QUIET, tree
from torch import Tensor

import frame.pipeline.cli as cli
from frame.manifests.errors import InputError
from frame.model import FrameEncoder
from frame.model.config import MemoryConfig, ModelConfig
from frame.model.weights import weights_digest
from frame.pipeline.check_teacher import check_rows
from frame.pipeline.options import BuildOptions
from frame.pipeline.prepare import Prepared, create, resume
from frame.pipeline.store import Cache, open_cache
from frame.pipeline.store.local import facts_path
from frame.pipeline.teachers import WeightSource, fit_clips, load_teacher, resolve
from frame.pipeline.teachers.frame_vit import student_name
from frame.pipeline.teachers.student import expand_students
from frame.pipeline.teachers.weights import RANDOM

SIZE, SECRET = 48, "name-of-nobodys-business"
CONFIG = ModelConfig(
    width=64, depth=2, patch=16, size=(SIZE, SIZE), semantic_dim=5, spatial_dim=6, memory=MemoryConfig(frames=2, dim=8)
)


def trained(folder: Path, config: ModelConfig = CONFIG, *, seed: int = 0) -> FrameEncoder:
    """A run folder with an encoder whose every tensor is drawn at random: a fresh one has no positions to speak of."""
    encoder = FrameEncoder(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in encoder.parameters():
            value += torch.randn(value.shape, generator=generator) * 0.1
    (folder / "encoder").mkdir(parents=True)
    encoder.save_pretrained(folder / "encoder")
    return encoder


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FrameEncoder]:
    folder = tmp_path_factory.mktemp("runs") / SECRET
    return folder, trained(folder)


def plan(
    source: Path, out: Path, teachers: Sequence[str], weights: Sequence[str] = ("random",), **changes: Any
) -> Prepared:
    names, files = expand_students(teachers, weights)
    values: dict[str, Any] = {"size": SIZE, "unit_rows": 48, "batch_rows": 8, "limit": 4, **changes}
    return create(BuildOptions(dataset="folder", source=source, teachers=names, weights=files, **values), out, QUIET)


def tokens_of(encoder: FrameEncoder, cache: Cache, first: int, stop: int) -> Tensor:
    """What the encoder itself gives on the stored pictures."""
    with torch.inference_mode():
        tokens: Tensor = encoder.vit(torch.tensor(cache.read("frames", first, stop)))
    return tokens


def assert_students_own(cache: Cache, encoder: FrameEncoder) -> None:
    """Every readable row of the columns is the encoder's own output, rounded to float16."""
    seen = 0
    for clip in cache.index.to_pylist():
        rows = clip["first_row"], clip["first_row"] + clip["n_frames"]
        tokens = tokens_of(encoder, cache, *rows)
        stored = torch.cat(
            [torch.tensor(cache.read("student.cls", *rows))[:, None], torch.tensor(cache.read("student.patch", *rows))],
            dim=1,
        )
        torch.testing.assert_close(stored.float(), tokens, rtol=2.0**-10, atol=1e-5)
        seen += len(tokens)
    assert seen > 30


def test_cached_tokens_are_the_students_own_on_the_stored_pictures(
    clips: Path, student: tuple[Path, FrameEncoder], tmp_path: Path
) -> None:
    folder, encoder = student
    complete(plan(clips, tmp_path / "c", [f"student={folder}"]))
    cache = open_cache(tmp_path / "c")
    assert {name: column.shape for name, column in cache.columns.items()} == {
        "frames": (SIZE, SIZE, 3),
        "student.patch": (9, 64),
        "student.cls": (64,),
    }
    assert_students_own(cache, encoder)


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_a_student_is_added_to_a_finished_cache_and_goes_on_without_being_named_again(
    clips: Path, student: tuple[Path, FrameEncoder], tmp_path: Path, store: str
) -> None:
    folder, encoder = student
    path = tmp_path / "c"
    complete(plan(clips, path, ["timm:test_vit"], store=store))
    before = tree(path)
    teachers, weights = expand_students([f"student={folder}"], [])
    resume(path, more_teachers=teachers, weights=weights, progress=QUIET)
    complete(resume(path, progress=QUIET))
    cache = open_cache(path)
    assert_students_own(cache, encoder)
    kept = [name for name in before if name.startswith(("frames/", "test_vit.", "shards/"))]
    assert kept
    after = tree(path)
    assert [name for name in kept if after[name] != before[name]] == []
    prepared = resume(path, progress=QUIET)
    checks = check_rows(prepared, 3, seed=0)
    assert [check.wrong for check in checks] == [()] * 3
    assert all(check.agreement["student.patch"] > 0.99999 for check in checks)


def test_the_record_names_the_frame_encoders_weights_and_no_path(
    clips: Path, student: tuple[Path, FrameEncoder], tmp_path: Path
) -> None:
    folder, encoder = student
    complete(plan(clips, tmp_path / "c", [f"student={folder / 'encoder'}"], limit=1))
    record = open_cache(tmp_path / "c").meta.teachers["student"]
    assert record["weights"]["sha256"] == weights_digest(encoder.vit.state_dict())
    assert record["weights"]["file"] == "model.safetensors"
    assert (record["library"], record["model"], record["tag"]) == ("frame", "64-2-16", "48x48")
    assert record["requested"] == "student=frame:64-2-16@48x48"
    assert record["interpolation"].endswith("rounded to 8 bits")
    assert record["input_size"] == SIZE
    files = tree(tmp_path / "c")
    assert files
    for text in (SECRET, str(folder.parent), str(tmp_path)):
        assert [name for name, data in files.items() if text.encode() in data or text in name] == []


def test_the_student_sees_whole_grey_levels_and_other_teachers_do_not(student: tuple[Path, FrameEncoder]) -> None:
    folder, _ = student
    (name,), (file,) = expand_students([f"student={folder}"], [])
    source = WeightSource(origin="file", file=Path(file.partition("=")[2]))
    spec = resolve(name, size=SIZE, fit="squash")
    fitted = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 255
    rounded = load_teacher(spec, weights=source, device="cpu")
    plain = load_teacher(replace(spec, eight_bit=False), weights=source, device="cpu")
    assert torch.equal(rounded.forward(fitted)["patch"], rounded.forward(fitted.round())["patch"])
    assert torch.equal(rounded.forward(fitted)["patch"], plain.forward(fitted.round())["patch"])
    assert not torch.equal(plain.forward(fitted)["patch"], plain.forward(fitted.round())["patch"])
    assert spec.fit == "squash"
    assert not resolve("timm:test_vit", size=64, fit="crop").eight_bit


def test_positions_are_interpolated_as_the_encoder_does_it(clips: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, size=(32, 80), memory=None)
    encoder = trained(tmp_path / "run", config)
    complete(plan(clips, tmp_path / "c", [f"student={tmp_path / 'run'}"]))
    cache = open_cache(tmp_path / "c")
    assert_students_own(cache, encoder)
    assert cache.meta.teachers["student"]["weights"]["sha256"] == weights_digest(encoder.vit.state_dict())


def test_another_student_under_the_same_name_is_refused_even_with_nothing_left_to_make(
    clips: Path, student: tuple[Path, FrameEncoder], tmp_path: Path
) -> None:
    folder, _ = student
    path = tmp_path / "c"
    complete(plan(clips, path, [f"student={folder}"], limit=1))
    trained(tmp_path / "longer", seed=1)
    teachers, weights = expand_students([f"student={tmp_path / 'longer'}"], [])
    remembered = facts_path(path).read_bytes()
    with pytest.raises(InputError, match="not the one this cache was built with"):
        resume(path, more_teachers=teachers, weights=weights, progress=QUIET)
    with pytest.raises(InputError, match="not the one this cache was built with"):
        plan(clips, path, [f"student={tmp_path / 'longer'}"], limit=1)
    assert facts_path(path).read_bytes() == remembered
    plan(clips, path, [f"student={folder}"], limit=1)


def test_only_run_folders_are_expanded(student: tuple[Path, FrameEncoder], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = student
    others = ("dino_vits16", "a=clip_vitb32", "timm:test_vit", "b=open_clip:ViT-B-32/openai", "s=frame:64-2-16", "what")
    assert expand_students(others, ["random"]) == (others, ("random",))
    name = "student=frame:64-2-16@48x48"
    file = f"student={folder / 'encoder' / 'model.safetensors'}"
    assert expand_students(["x", f"student={folder}"], ["x=random"]) == (("x", name), ("x=random", file))
    assert expand_students([f"student={folder / 'encoder'}"], []) == ((name,), (file,))
    monkeypatch.chdir(folder.parent)
    assert expand_students([f"student={SECRET}"], [])[0] == (name,)
    (folder.parent / "dino_vits16").mkdir()
    assert expand_students(["a=dino_vits16", "dino_vits16"], [])[0] == ("a=dino_vits16", "dino_vits16")


@given(st.integers(1, 20), st.integers(1, 40), st.integers(1, 40), st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_a_name_holds_the_architecture(heads: int, depth: int, patch: int, grid: tuple[int, int]) -> None:
    config = ModelConfig(
        width=64 * heads, depth=depth, patch=patch, size=(patch * grid[0], patch * grid[1]), semantic_dim=1,
        spatial_dim=1,
    )  # fmt: skip
    spec = resolve(f"student={student_name(config)}", size=patch * grid[0], fit="crop")
    assert (spec.width, spec.patch, spec.grid) == (config.width, patch, (grid[0], grid[0]))
    assert (spec.mean, spec.std, spec.input_size) == (config.pixel_mean, config.pixel_std, patch * grid[0])
    assert f"frame:{spec.model}@{spec.tag}" == student_name(config)


def test_a_name_without_a_size_means_the_frames_own() -> None:
    spec = resolve("s=frame:64-2-8", size=56, fit="crop")
    assert (spec.name, spec.tag, spec.columns) == ("s", "56x56", {"patch": (49, 64), "cls": (64,)})
    teacher = load_teacher(spec, weights=RANDOM, device="cpu")
    assert teacher([torch.zeros(2, 60, 70, 3, dtype=torch.uint8)])["patch"].shape == (2, 49, 64)
    assert fit_clips([], 56, "crop").shape[0] == 0


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("student=frame:64-2-16", 100, "--size 96 or 112"),
        ("student=frame:64-2-16", 12, "--size 16"),
        ("student=frame:64-2", 64, "student=RUN"),
        ("student=frame:64-2-16@48", 64, "student=RUN"),
        ("student=frame:64-2-16@48x50", 64, "multiples of the patch"),
        ("student=frame:100-2-16", 64, "multiple of 64"),
        ("frame:64-2-16", 64, "--teachers student=RUN"),
        ("frames=frame:64-2-16", 64, "cannot be called 'frames'"),
        ("student=runn", 64, "student=RUN"),
    ],
)
def test_names_that_cannot_be_are_refused_with_what_would_do(name: str, size: int, says: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(name, size=size, fit="crop")
    assert says in caught.value.screen()


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder / "model.safetensors", -5),
        lambda folder: flip(folder / "model.safetensors", 20),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("{}"),
    ],
)
def test_a_damaged_encoder_is_refused(
    student: tuple[Path, FrameEncoder], tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    shutil.copytree(student[0], tmp_path / "run")
    damage(tmp_path / "run" / "encoder")
    with pytest.raises(InputError) as caught:
        expand_students([f"student={tmp_path / 'run'}"], [])
    assert str(tmp_path / "run" / "encoder") in caught.value.screen()


def test_folders_that_are_no_run_and_runs_without_a_name_are_refused(
    student: tuple[Path, FrameEncoder], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for run_folder, why in ((tmp_path / "empty", "it has no config.json"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(InputError, match="There is no encoder here") as caught:
            expand_students([f"student={run_folder}"], [])
        assert why in caught.value.why
        assert str(run_folder) in caught.value.where
        assert "run" in caught.value.fix
    with pytest.raises(InputError, match="needs a name") as caught:
        expand_students([str(student[0])], [])
    assert caught.value.fix.endswith(f"--teachers student={student[0]}")


def test_a_student_with_its_own_normalisation_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "run", replace(CONFIG, pixel_mean=(0.5, 0.5, 0.5)))
    with pytest.raises(InputError, match="normalises pixels in a way of its own"):
        expand_students([f"student={tmp_path / 'run'}"], [])


def test_weights_of_another_architecture_are_refused(student: tuple[Path, FrameEncoder]) -> None:
    file = WeightSource(origin="file", file=student[0] / "encoder" / "model.safetensors")
    for model in ("64-3-16", "128-2-16", "64-2-16@96x96"):
        with pytest.raises(InputError, match="do not fit the model"):
            load_teacher(resolve(f"s=frame:{model}", size=SIZE, fit="crop"), weights=file, device="cpu")


@pytest.mark.parametrize("target", [["--out", "new", "--dataset", "folder", "--source", "."], ["old"]])
def test_the_command_expands_students_for_new_caches_and_for_old_ones(
    student: tuple[Path, FrameEncoder], monkeypatch: pytest.MonkeyPatch, target: list[str]
) -> None:
    from typer.testing import CliRunner

    import frame.pipeline.commands as commands

    asked: dict[str, Any] = {}
    monkeypatch.setattr(commands, "build_command", lambda **values: asked.update(values) or 0)
    arguments = ["build", *target, "--teachers", f"timm:test_vit,student={student[0]}", "--weights", "test_vit=random"]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    fresh = asked["fresh"]
    teachers, weights = (fresh.teachers, fresh.weights) if fresh else (asked["more_teachers"], asked["weights"])
    assert teachers == ("timm:test_vit", "student=frame:64-2-16@48x48")
    assert weights == ("test_vit=random", f"student={student[0] / 'encoder' / 'model.safetensors'}")
