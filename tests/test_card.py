"""The card of a cache: what stands in it, that it follows from the cache alone, and who writes and mends it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from store_caches import CLS, LATER, PATCH, add_column, commit, make_cache, quick_disk, tree

from frame.pipeline.store import Cache, CacheMeta, open_cache
from frame.pipeline.store import card as cards
from frame.pipeline.store.card import card_bytes, is_unedited, write_card
from frame.pipeline.store.card_parts import cell, licence_id, size_category, table
from frame.pipeline.store.export import export
from frame.pipeline.store.files import writer_folder
from frame.pipeline.store.finish import finish
from frame.pipeline.store.verify import verify

STORES = ["zarr", "webdataset"]
TEACHER = {
    "library": "timm",
    "model": "vit_tiny",
    "tag": "",
    "weights": {"origin": "file", "sha256": "5" * 64},
    "precision": "float32",
    "licence": "Apache-2.0",
}


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with quick_disk():
        yield


def text_of(path: Path) -> str:
    return (path / "README.md").read_text("utf-8")


def front(text: str) -> dict[str, Any]:
    """The front matter, as a hub reads it."""
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def as_if(cache: Cache, **changes: Any) -> str:
    """The card of a cache with other metadata; no receipt fits it then."""
    return card_bytes(Cache(cache.path, replace(cache.meta, **changes))).decode()


@pytest.mark.parametrize("store", STORES)
def test_what_stands_in_it(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path, store=store, encoding="int8")
    text = text_of(tmp_path)
    assert text.encode() == card_bytes(made.open())
    for line in (
        "| clips | 7, of which 2 failed (corrupt 1, empty 1) |",
        "| frames | 33 |",
        "| splits | train 6, val 1 |",
        "| labels | 3 |",
        "| units | 5, of up to 8 frames |",
        f'values = cache.read("{CLS}", 0, 1)  # float16 [1, 5]',
    ):
        assert line in text
    shards = sum(entry.bytes for receipt in made.open().receipts().values() for entry in receipt.files.values())
    assert f"| bytes | {shards:,} in the units' files |" in text
    assert f"| `{PATCH}` | 3 × 5 | float16 | int8 | 11.20 | 1.000000 | 0.500000 | 28 |" in text
    assert "**Unfinished:**" not in text
    assert "**Random weights:**" not in text


def test_the_digests_are_those_that_other_tools_print(tmp_path: Path) -> None:
    made = make_cache(tmp_path)
    text = text_of(tmp_path)
    assert f"| plan | `{made.meta.plan_id}` |" in text
    for name in ("cache.json", "index.parquet"):
        assert f"| `{name}` | `{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}` |" in text
    receipts = b"".join(path.read_bytes() for path in sorted((tmp_path / "receipts").iterdir()))
    assert f"| all receipts | `{hashlib.sha256(receipts).hexdigest()}` |" in text


# webdataset leaves its last file to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("store", STORES)
def test_the_lines_of_code_in_it_run(tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the folder that the cache lies in, under the name that stands there."""
    made = make_cache(tmp_path / "CACHE", store=store)
    monkeypatch.chdir(tmp_path)
    ours, plain = (block.split("```")[0] for block in text_of(made.path).split("```python\n")[1:])
    for code in (ours, plain):
        found: dict[str, Any] = {}
        exec(code, found)  # noqa: S102 - it is what the test is about
        values = found.get("values", found.get("stored"))
        values = values["c0"][:1] if isinstance(values, dict) else values
        assert (values == made.values(CLS)[:1]).all()


def test_teachers_and_licences(tmp_path: Path) -> None:
    cache = make_cache(tmp_path).open()
    teachers = {"dino": TEACHER, "clip": {**TEACHER, "licence": "MIT", "weights": {"origin": "random", "sha256": "6"}}}
    text = as_if(cache, dataset={"name": "davis", "licence": "CC BY-NC 4.0"}, teachers=teachers)
    assert f"| `dino` | timm vit_tiny | file | `{'5' * 64}` | float32 | Apache-2.0 |" in text
    assert "**Random weights:** clip." in text
    assert "The data set's licence: **CC BY-NC 4.0**" in text
    assert "the features as well: Apache-2.0, MIT." in text
    assert "holds the videos' pictures" in text
    assert front(text)["license"] == "cc-by-nc-4.0"
    assert front(text)["pretty_name"] == "davis: features of dino, clip"
    assert {"video", "dino", "clip"} <= set(front(text)["tags"])
    own = as_if(cache, dataset={"name": "ego4d", "licence": "Ego4D licence agreement"}, teachers=teachers)
    assert front(own)["license"] == "other"
    assert "The data set's licence: **Ego4D licence agreement**" in own
    without = export(cache, tmp_path / "copy", to="zarr", columns=[PATCH])
    assert "holds the videos' pictures" not in text_of(without.path)


def test_what_hubs_call_things() -> None:
    named = {"CC BY 4.0": "cc-by-4.0", "CC0 1.0": "cc0-1.0", "CC BY-NC 4.0": "cc-by-nc-4.0", "MIT": "mit"}
    assert {text: licence_id(text) for text in named} == named
    assert [licence_id(text) for text in ("that of its videos", "", None, 4, "CC BY 4.0; MIT")] == [""] * 5
    sizes = {0: "n<1K", 999: "n<1K", 1000: "1K<n<10K", 99_999: "10K<n<100K", 100_000: "100K<n<1M", 10**9: "1B<n<10B"}
    assert {rows: size_category(rows) for rows in sizes} == sizes
    assert size_category(10**13) == "n>1T"


@given(st.text(max_size=80))
def test_no_text_breaks_out_of_its_cell(text: str) -> None:
    lines = table(("a",), [(cell(text),)]).splitlines()
    assert len(lines) == 3
    inside = lines[2].removeprefix("| ").removesuffix(" |").replace("\\\\", "").replace("\\|", "").replace("\\`", "")
    assert not set("|`<") & set(inside)
    cell(text).encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    )
)
def test_metadata_of_any_kind_make_a_card(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """A cache may come from anybody: what nobody has checked must not keep ``verify`` from checking the rest."""
    cache = make_cache(tmp_path_factory.mktemp("strange"), lengths=(3,), failed=(), units=()).open()
    record = dict.fromkeys(("library", "model", "weights", "licence", "precision"), value)
    everything = dict.fromkeys(("name", "licence", "fps", "frames_per_clip", "size", "fit", "merged_from"), value)
    text = as_if(
        cache,
        dataset=everything,
        sampling=everything,
        geometry=everything,
        build=everything,
        teachers={"dino": record, "clip": {}},
    )
    assert front(text)["size_categories"] == ["n<1K"]
    assert text.count("\n---\n") == 1


def test_receipts_of_any_kind_make_a_card(tmp_path: Path) -> None:
    """What a receipt says of loss, software and reasons is looked at by nobody before."""
    made = make_cache(tmp_path)
    receipt = made.open().receipt(0)
    assert receipt is not None
    strange: list[Any] = ["a|b", 3, [], {}, {"mean_cosine": "x"}, {"mean_cosine": 1.0, "worst_cosine": 0.5, "bits": []}]
    for value in strange:
        entry = replace(receipt.columns[PATCH], loss=value, software=value)
        failure = replace(receipt.failed["c1"], reason=value)
        hostile = replace(receipt, columns={**receipt.columns, PATCH: entry}, failed={"c1": failure})
        (tmp_path / "receipts/000000.json").write_bytes(hostile.to_bytes())
        assert [problem.file for problem in verify(made.open()).problems] == ["README.md"]
        assert b"| `dino.patch` |" in card_bytes(made.open())


@pytest.mark.parametrize("store", STORES)
def test_the_same_cache_has_the_same_card_wherever_it_lies(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path / "a", store=store)
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")
    assert card_bytes(open_cache(tmp_path / "elsewhere")).decode() == text_of(tmp_path / "a")
    assert verify(open_cache(tmp_path / "elsewhere")).problems == ()
    assert "elsewhere" not in text_of(tmp_path / "a")
    assert str(made.path) not in text_of(tmp_path / "a")


@pytest.mark.parametrize("change", [None, b"", b"somebody's text", "flip", "stale"])
def test_a_card_that_is_not_right_is_named_and_mended(tmp_path: Path, change: Any) -> None:
    made = make_cache(tmp_path)
    path, right = tmp_path / "README.md", (tmp_path / "README.md").read_bytes()
    expected = tree(tmp_path)
    if change is None:
        path.unlink()
    elif change == "flip":
        path.write_bytes(right[:300] + bytes([right[300] ^ 1]) + right[301:])
    elif change == "stale":
        path.write_bytes(right.replace(b"| frames | 33 |", b"| frames | 32 |"))
    else:
        path.write_bytes(change)
    made.open().read(PATCH, 0, 3)
    (problem,) = verify(made.open()).problems
    assert (problem.kind, problem.file) == ("missing" if change is None else "damaged", "README.md")
    with writer_folder(tmp_path) as tmp:
        assert finish(tmp_path, tmp=tmp) == 0
    assert verify(made.open()).problems == ()
    assert tree(tmp_path) == expected


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a")
    (tmp_path / "a/README.md").rename(tmp_path / "text")
    (tmp_path / "a/README.md").symlink_to(tmp_path / "text")
    (problem,) = verify(made.open()).problems
    assert problem.file == "README.md"


def test_an_unfinished_cache_has_one_that_says_so(tmp_path: Path) -> None:
    made = make_cache(tmp_path, units=[0, 2], failed=())
    assert not (tmp_path / "README.md").exists()
    with writer_folder(tmp_path) as tmp:
        assert finish(tmp_path, tmp=tmp) == 3
    assert "**Unfinished:** 2 of 5 units are committed." in text_of(tmp_path)
    commit(made, 1)
    assert verify(made.open()).damage == ()  # it says how far the cache had come, which is no damage
    for unit in made.units:
        commit(made, unit)
    assert [problem.file for problem in verify(made.open()).damage if not problem.file.startswith("stats")] == [
        "README.md"
    ]
    with writer_folder(tmp_path) as tmp:
        assert finish(tmp_path, tmp=tmp) == 0
    assert tree(tmp_path) == tree(make_cache(tmp_path.parent / "whole", failed=()).path)


def test_a_damaged_receipt_does_not_keep_others_from_ending(tmp_path: Path) -> None:
    """The share of a batch array ends well though another's receipt is damaged, and says what is there."""
    make_cache(tmp_path)
    (tmp_path / "receipts/000003.json").write_bytes(b"{}")
    with writer_folder(tmp_path) as tmp:
        assert finish(tmp_path, tmp=tmp) == 1
    assert "**Unfinished:** 4 of 5 units" in text_of(tmp_path)


def test_whoever_writes_last_has_seen_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another build commits the last unit while this one writes: the card must not stay behind."""
    made = make_cache(tmp_path, units=[0, 1, 2, 3])
    write, calls = cards.ensure_durable, iter(range(9))

    def late(*given: Any, **named: Any) -> None:
        if next(calls) == 0:
            commit(made, 4)
        write(*given, **named)

    monkeypatch.setattr(cards, "ensure_durable", late)
    with writer_folder(tmp_path) as tmp:
        write_card(made.open(), tmp=tmp)
    assert text_of(tmp_path).encode() == card_bytes(made.open())
    assert "**Unfinished:**" not in text_of(tmp_path)


def test_parts_of_a_cache_and_columns_added_later(tmp_path: Path) -> None:
    made = add_column(make_cache(tmp_path / "a", lengths=(8, 8, 8), failed=()))
    assert f"| `{LATER}` |" in text_of(tmp_path / "a")
    copy = export(made.open(), tmp_path / "b", to="webdataset", units=[1])
    text = text_of(copy.path)
    assert "**A part:** 1 of 3 units." in text
    assert 'webdataset.WebDataset("CACHE/shards/000001.tar"' in text
    assert verify(copy).problems == ()


def test_it_names_what_a_copy_was_made_of(tmp_path: Path) -> None:
    cache = make_cache(tmp_path).open()
    text = as_if(
        cache, build={"recoded_from": "float16", "merged_from": [{"plan": "abc"}, {"plan": "def"}], "units": [0]}
    )
    assert "| recoded from | float16 |" in text
    assert "| merged of the plans | `abc`, `def` |" in text


def test_metadata_are_not_read_twice_over(tmp_path: Path) -> None:
    """The digest is that of the file, though it is computed from what was parsed."""
    made = make_cache(tmp_path)
    meta = CacheMeta.to_bytes(made.open().meta)
    assert meta == (tmp_path / "cache.json").read_bytes()
    assert json.loads(meta)["plan"] == made.meta.plan_id


def test_a_card_somebody_wrote_on_is_told_from_ours(tmp_path: Path) -> None:
    card = card_bytes(make_cache(tmp_path).open())
    assert is_unedited(card)
    assert not is_unedited(card.replace(b"# ", b"# My ", 1))
    assert not is_unedited(card + b"Ask me.\n")
    assert not is_unedited(b"")
