from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from test_stages import QUIET, make, run, tree

from frame.manifests.errors import InputError
from frame.pipeline.options import RunOptions
from frame.pipeline.prepare import resume
from frame.pipeline.repair import repair_metadata
from frame.pipeline.store import CacheError, open_cache, reopen
from frame.pipeline.store.columns import FRAMES
from frame.pipeline.store.export import export
from frame.pipeline.store.layout import INDEX, META, META_COPY
from frame.pipeline.store.local import facts_path, read_facts


@pytest.fixture(scope="module")
def planned(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of which the metadata exist and no unit yet."""
    path = tmp_path_factory.mktemp("planned") / "c"
    make(clips, path)
    return path


@pytest.fixture
def cache(planned: Path, tmp_path: Path) -> Path:
    shutil.copytree(planned, tmp_path / "c")
    shutil.copy(facts_path(planned), facts_path(tmp_path / "c"))
    return tmp_path / "c"


def test_the_same_command_twice_is_a_resume(clips: Path, cache: Path) -> None:
    before = tree(cache)
    make(clips, cache)
    assert tree(cache) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"size": 80}, "size: cache 64, asked 80"),
        ({"fps": 6.0}, "fps"),
        ({"encoding": "int8"}, "encoding"),
        ({"store": "webdataset"}, "store"),
        ({"unit_rows": 16}, "unit rows"),
        ({"limit": 3}, "limit"),
        ({"decoder": "pyav"}, "decoder"),
    ],
)
def test_other_options_are_refused_by_name(clips: Path, cache: Path, changes: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match="other options") as caught:
        make(clips, cache, **changes)
    assert named in caught.value.why


def test_another_teacher_is_added_not_mixed_in(clips: Path, cache: Path) -> None:
    with pytest.raises(InputError, match="planned without vit_tiny") as caught:
        make(clips, cache, teachers=("vit_tiny=timm:test_vit2",))
    assert "--teachers vit_tiny" in caught.value.fix


def test_new_and_missing_clips_are_refused_by_name(clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "videos")
    make(tmp_path / "videos", tmp_path / "c")
    (tmp_path / "videos" / "clip_00.mp4").rename(tmp_path / "videos" / "renamed.mp4")
    with pytest.raises(InputError, match="no longer holds the clips") as caught:
        make(tmp_path / "videos", tmp_path / "c")
    assert "renamed" in caught.value.why
    assert "clip_00" in caught.value.why


def test_somebody_elses_folder_is_not_written_into(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a cache"):
        make(clips, tmp_path / "c")
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["thesis.tex"]


def test_resume_knows_the_source_and_says_so_when_it_does_not(clips: Path, cache: Path) -> None:
    assert resume(cache, progress=QUIET).source == clips
    facts_path(cache).unlink()
    with pytest.raises(InputError, match="Where are the source videos"):
        resume(cache, progress=QUIET)
    assert resume(cache, source=clips, progress=QUIET).source == clips
    assert read_facts(cache).source == clips


@pytest.mark.parametrize("name", [META, META_COPY, INDEX, "zarr.json", "frames/zarr.json", "test_vit.patch/zarr.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_damaged_metadata_are_found_and_written_again(cache: Path, name: str, damage: str) -> None:
    before = tree(cache)
    data = bytearray((cache / name).read_bytes())
    data[len(data) // 3] ^= 4
    if damage == "delete":
        (cache / name).unlink()
    else:
        (cache / name).write_bytes(data if damage == "flip" else data[: len(data) // 2])
    resume(cache, progress=QUIET)
    assert tree(cache) == before


def test_both_copies_gone_is_an_error_not_a_guess(cache: Path) -> None:
    (cache / META).write_bytes(b"{}")
    (cache / META_COPY).unlink()
    with pytest.raises(CacheError):
        reopen(cache)


def test_an_index_that_cannot_be_made_again_is_refused(clips: Path, cache: Path, tmp_path: Path) -> None:
    (cache / INDEX).unlink()
    shutil.copytree(clips, tmp_path / "fewer")
    (tmp_path / "fewer" / "clip_01.mp4").unlink()
    with pytest.raises(CacheError, match="source videos have changed"):
        repair_metadata(reopen(cache), tmp_path / "fewer", QUIET)


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_a_teacher_added_later_leaves_everything_else_untouched(clips: Path, tmp_path: Path, store: str) -> None:
    path = tmp_path / "c"
    run(make(clips, path, store=store))
    before = tree(path)
    prepared = resume(path, more_teachers=("more=timm:test_vit2",), weights=("more=random",), progress=QUIET)
    from frame.pipeline.build import missing_work

    todo, damage = missing_work(prepared.cache, RunOptions(), QUIET)
    assert not damage
    assert set(todo.values()) == {("more.patch",)}
    after = tree(path)
    kept = [name for name in before if name.startswith((FRAMES, "test_vit", "shards", "index"))]
    assert all(after[name] == before[name] for name in kept)
    assert open_cache(path).columns["more.patch"].part == "more"


def test_a_list_of_clips_is_resumed_from_its_own_folder(clips: Path, tmp_path: Path) -> None:
    from frame.pipeline.options import BuildOptions
    from frame.pipeline.prepare import create

    folder = tmp_path / "somewhere"
    shutil.copytree(clips, folder)
    (folder / "my list.csv").write_text("path,label,split\nclip_00.mp4,a,train\nclip_04.mp4,b,val\n")
    options = BuildOptions(
        dataset="csv",
        source=folder / "my list.csv",
        teachers=("timm:test_vit",),
        weights=("random",),
        size=64,
        unit_rows=24,
        batch_rows=8,
    )
    first = create(options, tmp_path / "c", QUIET)
    assert first.source == folder
    before = tree(tmp_path / "c")
    for again in (create(options, tmp_path / "c", QUIET), resume(tmp_path / "c", progress=QUIET)):
        assert again.source == folder
    (tmp_path / "c" / INDEX).unlink()
    resume(tmp_path / "c", progress=QUIET)
    assert tree(tmp_path / "c") == before


def test_a_request_that_cannot_be_met_leaves_no_folder(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dino_vits17"):
        make(clips, tmp_path / "c", teachers=("dino_vits17",))
    assert not (tmp_path / "c").exists()


def test_another_teacher_under_the_same_name_is_refused(clips: Path, cache: Path) -> None:
    other = "test_vit=timm:test_vit3"
    with pytest.raises(InputError, match="another teacher under the name") as caught:
        make(clips, cache, teachers=(other,))
    assert "model: cache test_vit, asked test_vit3" in caught.value.why
    with pytest.raises(InputError, match="another teacher under the name"):
        resume(cache, more_teachers=(other,), progress=QUIET)


def test_other_weights_than_planned_are_not_passed_over(clips: Path, cache: Path) -> None:
    from frame.pipeline.options import BuildOptions
    from frame.pipeline.prepare import create

    options = BuildOptions(
        dataset="folder", source=clips, teachers=("timm:test_vit",), size=64, unit_rows=24, batch_rows=8
    )
    with pytest.raises(InputError, match="other weights of 'test_vit'") as caught:
        create(options, cache, QUIET)
    assert caught.value.why == "cache: random, asked: hub"


def test_other_weights_than_a_column_has_are_refused_even_with_nothing_left_to_make(cache: Path) -> None:
    torch.manual_seed(7)
    weights = cache.parent / "other.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), weights)
    remembered = facts_path(cache).read_bytes()
    with pytest.raises(InputError, match="not the one this cache was built with"):
        resume(cache, weights=[f"test_vit={weights}"], progress=QUIET)
    assert facts_path(cache).read_bytes() == remembered
    resume(cache, weights=["test_vit=random"], progress=QUIET)


def test_a_decoder_that_is_not_installed_is_refused_before_anything_is_planned(clips: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("torchcodec"):
        pytest.skip("torchcodec is installed")
    with pytest.raises(InputError, match="torchcodec cannot be used here"):
        make(clips, tmp_path / "c", decoder="torchcodec")
    assert not (tmp_path / "c").exists()


def test_a_part_that_was_exported_can_be_repaired(clips: Path, tmp_path: Path) -> None:
    run(make(clips, tmp_path / "c"))
    part = tmp_path / "part"
    export(open_cache(tmp_path / "c"), part, to="zarr", units=[0, 2])
    before = tree(part)
    (part / INDEX).unlink()
    resume(part, source=clips, progress=QUIET)
    assert tree(part) == before
