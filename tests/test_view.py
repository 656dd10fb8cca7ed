"""The page about a cache: complete, self-contained, escaped, operable without a mouse."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from pages import Page, decoded
from view_caches import CLS, EVIL, GRID, PATCH, SIDE, WIDTH, make, render

from frame.manifests.errors import InputError
from frame.pipeline.store import CacheError, open_cache
from frame.pipeline.store.columns import Encoding
from frame.pipeline.store.layout import StoreKind
from frame.pipeline.view import render_view
from frame.pipeline.view.choose import MOST_FRAMES, choose_clips
from frame.pipeline.view.facts import column_facts


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A page with everything in it: failed clips, a clip of one frame, a long one, names that are no text."""
    made = make(
        tmp_path_factory.mktemp("view") / "cache",
        failed={"clip'\"<b>2": (EVIL, EVIL)},
        clip="clip'\"<b>",
        label=EVIL,
        origin="random",
    )
    timings = [{"units": 4, "rows": 85, "wall": 8.0, "seconds": {"decode": 2.0, "teacher": 6.0, EVIL: 1.0}}]
    return render(made, timings=timings, title=EVIL)


def test_nothing_is_fetched_from_anywhere(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href", "formaction", "background"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert not {tag for tag, _ in page.elements} & {"iframe", "object", "embed", "base", "form", "audio", "video"}


def test_the_browser_is_told_to_load_nothing_else(page: Page) -> None:
    script = re.search(r"<script>(.*?)</script>", page.source, flags=re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = next(meta["content"] for meta in page.all("meta") if "content-security-policy" in str(meta).lower())
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy


def test_whatever_names_hold_is_shown_as_text(page: Page) -> None:
    assert len(page.all("script")) == 1
    assert page.source.count("alert(1)</script>") == 0
    assert not [attributes for _, attributes in page.elements if any(name.startswith("on") for name in attributes)]
    assert not page.all("b")
    assert page.text.count("<script>alert(1)</script>") >= 5  # title, licences, label, reason, detail, stage
    assert EVIL in page.text
    assert "clip'\"<b>4" in page.text


def test_every_picture_decodes_and_says_what_it_is(page: Page) -> None:
    for image in page.all("img"):
        assert image["alt"]
        assert decoded(image["src"]).ndim == 3
    name = "clip'\"<b>4"
    assert {frame.shape for frame in page.images(f"Frame of {name}")} == {(SIDE, SIDE, 3)}
    assert len(page.images(f"Frame of {name}")) == MOST_FRAMES
    assert {picture.shape for picture in page.images(f"{PATCH} in colours of {name}")} == {(*GRID, 3)}
    assert [matrix.shape for matrix in page.images(f"{CLS} of {name}")] == [(MOST_FRAMES, MOST_FRAMES, 3)]


def test_scrubbers_are_labelled_ranges_and_marks_are_unique(page: Page) -> None:
    ranges = [attributes for attributes in page.all("input") if attributes["type"] == "range"]
    assert sorted(int(item["max"]) for item in ranges) == [4, MOST_FRAMES - 1]
    labels = {label["for"] for label in page.all("label")}
    assert all(item["id"] in labels and item["min"] == "0" and item["aria-valuetext"] for item in ranges)
    assert all(button["type"] == "button" for button in page.all("button"))
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert {attributes["href"][1:] for attributes in page.all("a")} <= set(identities)
    assert all(attributes["aria-label"] for attributes in page.all("svg"))


def test_a_page_says_what_is_in_the_cache(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "2 clips of 5 failed" in text
    assert "random weights" in text
    assert "frame 1 of 1, 0.000 s" in text
    assert "70 frames, 64 shown" in text
    assert "85 frames in 8.0 s, 10.6 frames a second. Most of the work: the teachers." in text
    assert "2 × 3" not in text  # the grid is drawn, not told
    assert "abababababababab" in text


def test_the_same_cache_gives_the_same_page(tmp_path: Path) -> None:
    made = make(tmp_path / "cache", lengths=(4, 3))
    first = render(made).source
    assert render(made).source == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "cache.html"]


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
@pytest.mark.parametrize("encoding", ["float16", "int8"])
def test_both_stores_and_encodings(tmp_path: Path, store: StoreKind, encoding: Encoding) -> None:
    made = make(tmp_path / "cache", lengths=(4, 6), store=store, encoding=encoding)
    found = render(made)
    assert len(found.all("input")) == 2
    patch = next(item for item in column_facts(made.open(), made.open().receipts()) if item.name == PATCH)
    each = {"float16": 2 * 6 * WIDTH, "int8": 6 * WIDTH + 2 * 6}[encoding]
    assert patch.rows == 10
    assert patch.stored >= 10 * each
    assert patch.bits == pytest.approx(8 * patch.stored / (10 * 6 * WIDTH))
    assert patch.mean_cosine == pytest.approx(1)
    assert patch.worst_cosine == 0.5


def test_a_cache_of_cls_tokens_only(tmp_path: Path) -> None:
    found = render(make(tmp_path / "cache", lengths=(4, 6), columns=(CLS,)))
    assert [image["alt"].split(":")[0] for image in found.all("img")] == [f"{CLS} of clip0", f"{CLS} of clip1"]
    assert len(found.all("svg")) == 2
    assert "principal" not in found.text


def test_a_column_without_a_known_grid_keeps_its_curves(tmp_path: Path) -> None:
    found = render(make(tmp_path / "cache", lengths=(4,), columns=(PATCH,), grid=(5, 5)))
    assert "no known grid" in found.text
    assert (len(found.all("img")), len(found.all("svg"))) == (0, 1)


def test_nothing_can_be_read(tmp_path: Path) -> None:
    why = {f"clip{i}": ("corrupt", "bad") for i in range(2)}
    found = render(make(tmp_path / "failed", lengths=(3, 4, 0), failed=why))
    assert "No clip can be read: all of them failed." in found.text
    found = render(make(tmp_path / "fresh", lengths=(3, 4), units=[]))
    assert "No clip can be read yet" in found.text
    assert found.all("progress") == [{"id": "progress", "max": "1", "value": "0"}]


def test_a_build_in_progress_shows_what_is_there(tmp_path: Path) -> None:
    made = make(tmp_path / "cache", lengths=(20, 20, 20, 30), units=[0, 2])
    found = render(made)
    assert found.all("progress") == [{"id": "progress", "max": "3", "value": "2"}]
    assert [clip.row["clip"] for clip in choose_clips(made.open(), count=9, seed=0)] == ["clip0"]
    assert len(found.all("article")) == 2  # a clip and a teacher
    assert "1 unit still to make" in " ".join(found.text.split())


def test_curves_compare_neighbours_even_if_they_are_not_shown(tmp_path: Path) -> None:
    found = render(make(tmp_path / "cache", lengths=[150], columns=(PATCH, CLS)))
    words = [svg["aria-label"] for svg in found.all("svg")]
    assert len(words) == 2
    for line in words:
        assert f"previous frame: {np.cos(0.1):.3f} on average, {np.cos(0.1):.3f} at its lowest" in line
        assert "-1.00 at its lowest" in line  # after half a turn


def test_a_page_goes_where_it_can_and_nowhere_else(tmp_path: Path) -> None:
    made = make(tmp_path / "cache", lengths=[2])
    cache = made.open()
    places = {
        tmp_path / "no" / "page.html": "does not exist",
        tmp_path: "it is a folder",
        made.path / "page.html": "inside the cache",
        made.path / "receipts" / "page.html": "inside the cache",
    }
    before = sorted(tmp_path.rglob("*"))
    for out, why in places.items():
        with pytest.raises(InputError, match=why):
            render_view(cache, out)
    with pytest.raises(InputError, match="-1 clips"):
        render_view(cache, tmp_path / "page.html", clips=-1)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_relative_name_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path / "cache", lengths=[2])
    monkeypatch.chdir(tmp_path)
    render_view(open_cache("cache"), Path("-page ü.html"), clips=0)
    assert "None were asked for" in Page(tmp_path / "-page ü.html").text
    assert made.path.is_dir()


def test_a_damaged_cache_leaves_the_page_as_it_was(tmp_path: Path) -> None:
    made = make(tmp_path / "cache", lengths=[4])
    out = tmp_path / "page.html"
    out.write_text("before")
    shard = next(path for path in (made.path / PATCH).rglob("*") if path.is_file() and path.name != "zarr.json")
    data = bytearray(shard.read_bytes())
    data[10] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CacheError, match="damaged"):
        render_view(made.open(), out)
    assert out.read_text() == "before"


def test_a_name_that_the_file_system_refuses(tmp_path: Path) -> None:
    cache = make(tmp_path / "cache", lengths=[2]).open()
    with pytest.raises(InputError, match="could not be written"):
        render_view(cache, tmp_path / ("x" * 300))
    render_view(cache, tmp_path / ("x" * 255))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "x" * 255]
