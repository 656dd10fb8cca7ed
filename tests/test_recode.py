"""A cache in another encoding, without its teachers: what comes out, and what is left when it is killed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_caches import CLS, PATCH, Made, add_column, make_cache, quick_disk, tree
from test_stages import make, run

from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.pipeline.recode import plan_recoding, recode
from frame.pipeline.store import Cache, CacheError, disk, open_cache
from frame.pipeline.store.verify import verify

QUIET = Progress(quiet=True)


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with quick_disk():
        yield


def recoded(source: Path, path: Path, encoding: str, **options: Any) -> Cache:
    cache = open_cache(source)
    planned = plan_recoding(cache, path, encoding, to=options.get("to"), progress=QUIET)
    return recode(cache, path, planned, tick=lambda: None)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.asarray((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))


def clips_of(made: Made) -> list[tuple[str, int, int]]:
    rows = made.table.to_pylist()
    return [(row["clip"], row["first_row"], row["first_row"] + row["n_frames"]) for row in rows if row["n_frames"]]


@pytest.mark.parametrize("to", ["zarr", "webdataset"])
@pytest.mark.parametrize("encoding", ["residual", "residual:0.3", "int8", "float16", "auto:0.999"])
def test_features_stay_what_they_are_but_for_the_loss(tmp_path: Path, to: Any, encoding: str) -> None:
    made = make_cache(tmp_path / "a")
    copy = recoded(made.path, tmp_path / "b", encoding, to=to)
    assert verify(copy).problems == ()
    assert copy.meta.store == to
    assert copy.meta.build["recoded_from"] == "float16"
    worst = 1.0
    for clip, start, stop in clips_of(made):
        if clip in made.failed[PATCH]:
            with pytest.raises(CacheError, match="failed"):
                copy.read(PATCH, start, stop)
            continue
        assert np.array_equal(copy.read("frames", start, stop), made.values("frames")[start:stop])
        worst = min(worst, cosines(copy.read(PATCH, start, stop), made.values(PATCH)[start:stop]).min())
    receipts = [receipt.columns[PATCH].loss for receipt in copy.receipts().values()]
    losses = [loss for loss in receipts if loss]
    # By the receipts of the source, its own worst token has a cosine of 0.5 with the teacher's.
    bound = math.cos(math.acos(0.5) + math.acos(min(worst, 1.0)))
    assert abs(min(loss["worst_cosine"] for loss in losses) - bound) < 1e-3
    assert all(loss["bits"] > 0 for loss in losses)


def test_a_recoded_cache_reads_its_moments_from_what_is_stored(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a")
    copy = recoded(made.path, tmp_path / "b", "residual:0.3")
    there = np.concatenate([copy.read(PATCH, a, b) for clip, a, b in clips_of(made) if clip not in made.failed[PATCH]])
    mean, deviation = copy.stats(PATCH)
    tokens = there.reshape(-1, there.shape[-1]).astype(np.float64)
    assert np.allclose(mean, tokens.mean(axis=0), atol=2e-3)
    assert np.allclose(deviation, tokens.std(axis=0), rtol=2e-3)


def test_losses_add_up_against_the_teacher(tmp_path: Path) -> None:
    """The source's worst token has a cosine of 0.5 by its receipts: no copy of it can promise more."""
    made = make_cache(tmp_path / "a")
    copy = recoded(made.path, tmp_path / "b", "residual")
    losses = [receipt.columns[PATCH].loss for receipt in copy.receipts().values()]
    assert all(loss["worst_cosine"] < 0.5 for loss in losses if loss)


def test_columns_added_later_and_parts_of_caches_are_recoded_too(tmp_path: Path) -> None:
    made = add_column(make_cache(tmp_path / "a", store="webdataset"))
    copy = recoded(made.path, tmp_path / "b", "residual")
    assert {column.part for column in copy.columns.values()} == {""}
    assert {column.encoding for column in copy.columns.values()} == {"raw", "residual"}
    assert verify(copy).problems == ()


def test_from_residual_back_to_float16_loses_nothing_more(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a", encoding="residual")
    copy = recoded(made.path, tmp_path / "b", "float16")
    for clip, start, stop in clips_of(made):
        if clip not in made.failed[CLS]:
            assert np.array_equal(copy.read(CLS, start, stop), made.values(CLS)[start:stop])


@settings(max_examples=10, deadline=None)
@given(kill=st.integers(1, 120))
def test_a_recoding_that_was_killed_goes_on_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, kill: int
) -> None:
    root = tmp_path_factory.mktemp("killed")
    made = make_cache(root / "a")
    recoded(made.path, root / "calm", "residual")
    calls, rename = iter(range(1 << 30)), disk.rename

    def killed(*given: Any) -> Any:
        if next(calls) == kill:
            raise KeyboardInterrupt
        return rename(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "rename", killed)
        try:
            recoded(made.path, root / "b", "residual")
        except KeyboardInterrupt:
            assert tree(root / "b") != tree(root / "calm")
    recoded(made.path, root / "b", "residual")
    assert tree(root / "b") == tree(root / "calm")


def test_a_destination_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a")
    for path in (made.path, tmp_path / "other"):
        if path != made.path:
            make_cache(path, seed=3, lengths=(4,), failed=())
        before = tree(path)
        with pytest.raises(CacheError, match="another cache"):
            recoded(made.path, path, "int8")
        assert tree(path) == before
    with pytest.raises(InputError, match="makes no sense"):
        recoded(made.path, tmp_path / "new", "int4")
    assert not (tmp_path / "new").exists()


def test_damage_in_the_source_ends_it_and_is_not_copied(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a")
    (shard,) = (file for file in (made.path / "dino.patch/c/1").rglob("0") if file.is_file())
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CacheError, match="damaged"):
        recoded(made.path, tmp_path / "b", "int8")
    assert 1 not in open_cache(tmp_path / "b").receipts()


def test_a_recoded_cache_is_one_like_any_other(clips: Path, tmp_path: Path) -> None:
    """Of a build with a real teacher: what the sample of the cache settles is what that of the build does."""
    run(make(clips, tmp_path / "a"))
    copy = recoded(tmp_path / "a", tmp_path / "b", "auto:0.999")
    run(made := make(clips, tmp_path / "c", encoding="auto:0.999"))
    built = open_cache(made.cache.path)
    for name in ("test_vit.patch", "test_vit.cls"):
        ours, theirs = (json.loads(cache.meta.to_bytes())["columns"][name] for cache in (copy, built))
        assert ours["encoding"] == theirs["encoding"] == "residual"
        assert np.allclose(ours["step"], theirs["step"], rtol=0.05)
