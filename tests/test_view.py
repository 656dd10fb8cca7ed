"""The page about a cache: complete, self-contained, escaped, operable without a mouse."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from store_caches import Made, commit, quick_disk, random_arrays

from frame.manifests.errors import InputError
from frame.pipeline.store import CacheError, open_cache
from frame.pipeline.store.columns import Column, Encoding
from frame.pipeline.store.files import sha256_bytes, writer_folder
from frame.pipeline.store.index import SCHEMA, index_bytes
from frame.pipeline.store.layout import CacheMeta, StoreKind
from frame.pipeline.store.writer import with_metadata, write_metadata
from frame.pipeline.view import render_view
from frame.pipeline.view.choose import MOST_FRAMES, choose_clips
from frame.pipeline.view.curves import axis_floor, chart, mean_cosine, similarity, similarity_picture, unit
from frame.pipeline.view.facts import column_facts, failure_groups, label_counts, time_spent
from frame.pipeline.view.text import duration, lost, size

SIDE, WIDTH, GRID, UNIT = 16, 8, (2, 3), 32
PATCH, CLS = "vit.patch", "vit.cls"
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


class Page(HTMLParser):
    """A parsed page: every element with its attributes, and the text outside of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._silent = False
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, _tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def images(self, alt: str = "") -> list[np.ndarray]:
        """The decoded pictures whose alternative text begins so."""
        return [decoded(image["src"]) for image in self.all("img") if image["alt"].startswith(alt)]


def decoded(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2], validate=True))) as image:
        return np.asarray(image.convert("RGB"))


def turning(rows: int, tokens: int) -> np.ndarray:
    """Features that turn by 0.1 radians a row, each token in a plane of its own: float16 ``[rows, tokens, WIDTH]``."""
    values = np.zeros((rows, tokens, WIDTH))
    for token in range(tokens):
        values[:, token, token % WIDTH] += np.cos(0.1 * np.arange(rows))
        values[:, token, (token + 1) % WIDTH] += np.sin(0.1 * np.arange(rows))
    return values.astype(np.float16)


def record(origin: str) -> dict[str, Any]:
    return {
        "model": "vit_tiny", "tag": "", "library": "timm", "library_version": "1.0", "grid": list(GRID), "patch": 16,
        "weights": {"origin": origin, "file": None, "repository": None, "sha256": "ab" * 32},
        "input_size": SIDE, "precision": "float32", "licence": EVIL,
    }  # fmt: skip


def make(
    path: Path,
    *,
    lengths: Sequence[int] = (5, 0, 9, 1, 70),
    columns: Sequence[str] = ("frames", PATCH, CLS),
    failed: Mapping[str, tuple[str, str]] | None = None,
    store: StoreKind = "zarr",
    encoding: Encoding = "float16",
    units: Sequence[int] | None = None,
    clip: str = "clip",
    label: str = "a",
    origin: str = "file",
    grid: tuple[int, int] = GRID,
) -> Made:
    """A cache of clips one after the other; length 0: failed when probed. ``units`` are committed, all by default."""
    first = np.cumsum([0, *lengths])
    rows = max(-(-int(first[-1]) // UNIT), 1) * UNIT
    table = pa.Table.from_pylist(
        [
            {
                "clip": f"{clip}{i}", "source": f"{clip}{i}.mp4", "split": "val" if i == 2 else "train",
                "label": label if i % 2 else "", "first_row": int(begin), "n_frames": length,
                "unit": min(int(begin) // UNIT, rows // UNIT - 1), "fps": 25.0, "width": 64, "height": 48,
                "timestamps": [frame / 25 for frame in range(length)], "bytes": 1, "sha256": "00",
                "error": "" if length else f"demux: {EVIL}",
            }
            for i, (begin, length) in enumerate(zip(first, lengths, strict=False))
        ],
        schema=SCHEMA,
    )  # fmt: skip
    index = index_bytes(table)
    every = {
        "frames": Column(name="frames", shape=(SIDE, SIDE, 3), encoding="raw"),
        PATCH: Column(name=PATCH, shape=(GRID[0] * GRID[1], WIDTH), encoding=encoding, teacher="vit"),
        CLS: Column(name=CLS, shape=(WIDTH,), encoding=encoding, teacher="vit"),
    }
    meta, files = with_metadata(
        CacheMeta(
            dataset={"name": "folder", "licence": EVIL, "clips": len(lengths)},
            sampling={"fps": None, "frames_per_clip": None},
            geometry={"size": SIDE, "fit": "crop", "resize": "bicubic"},
            build={"encoding": encoding, "decoder": "pyav", "precision": "float32", "batch_rows": 4},
            store=store,
            rows_per_unit=UNIT,
            rows=rows,
            index_sha256=sha256_bytes(index),
            columns={name: every[name] for name in columns},
            teachers={"vit": {**record(origin), "grid": list(grid)}},
            metadata={},
        )
    )
    full = random_arrays(meta, columns, 0)
    if encoding == "float16":
        values = {PATCH: turning(rows, GRID[0] * GRID[1]), CLS: turning(rows, 1)[:, 0]}
        full |= {name: value for name, value in values.items() if name in columns}
    made = Made(path=path, meta=meta, table=table, full=full, failed={name: dict(failed or {}) for name in columns})
    path.mkdir(parents=True)
    with quick_disk(), writer_folder(path) as tmp:
        write_metadata(path, meta, files, index, tmp=tmp)
    for number in made.units if units is None else units:
        commit(made, number, columns)
    return made


def render(made: Made, **options: Any) -> Page:
    out = made.path.with_suffix(".html")
    render_view(made.open(), out, **options)
    return Page(out)


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


def test_clips_are_chosen_by_lot_and_of_every_label_first(tmp_path: Path) -> None:
    cache = make(tmp_path / "cache", lengths=[2] * 12).open()
    draws = {tuple(clip.position for clip in choose_clips(cache, count=3, seed=seed)) for seed in range(8)}
    assert len(draws) > 1
    for draw in draws:
        assert list(draw) == sorted(set(draw))
        assert len({position % 2 for position in draw}) == 2
        assert 2 in draw  # the only one of its split
    assert len(choose_clips(cache, count=99, seed=0)) == 12


def test_long_clips_are_shown_evenly_from_the_first_frame_to_the_last(tmp_path: Path) -> None:
    (clip,) = choose_clips(make(tmp_path / "cache", lengths=[150]).open(), count=1, seed=0)
    assert (clip.frames[0], clip.frames[-1], len(clip.frames)) == (0, 149, MOST_FRAMES)
    assert set(np.diff(clip.frames)) == {2, 3}


def test_curves_compare_neighbours_even_if_they_are_not_shown(tmp_path: Path) -> None:
    found = render(make(tmp_path / "cache", lengths=[150], columns=(PATCH, CLS)))
    words = [svg["aria-label"] for svg in found.all("svg")]
    assert len(words) == 2
    for line in words:
        assert f"previous frame: {np.cos(0.1):.3f} on average, {np.cos(0.1):.3f} at its lowest" in line
        assert "-1.00 at its lowest" in line  # after half a turn


def test_cosines_and_their_axis() -> None:
    a = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(unit(a), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    assert mean_cosine(unit(a[:1]), unit(a[:1] * 7)) == pytest.approx(1)
    np.testing.assert_allclose(similarity(np.eye(3)), np.eye(3))
    shown = similarity_picture(np.array([[1.0, 0.5], [0.0, 1.0]]), low=0.5)
    assert shown[0, 0].tolist() == [253, 231, 37]
    assert shown[0, 1].tolist() == shown[1, 0].tolist() == [68, 1, 84]
    assert [axis_floor(values) for values in ([1.0], [0.987, 1], [0.63], [-1.0], [])] == [0.99, 0.98, 0.6, -1, 0.99]
    drawn = chart([1.0, 0.75, 0.5], [0.75, 0.75], low=0.5)
    assert drawn.to_first == "M0.00 0.00L50.00 50.00L100.00 100.00"
    assert drawn.to_previous == "M50.00 50.00L100.00 50.00"


def test_failures_are_grouped_and_labels_counted(tmp_path: Path) -> None:
    why = {f"clip{i}": ("corrupt", f"bad {i}") for i in range(45)}
    cache = make(tmp_path / "cache", lengths=[1] * 46 + [0], failed=why).open()
    groups = failure_groups(cache)
    assert [(group.reason, group.count, len(group.clips), group.more) for group in groups] == [
        ("corrupt", 45, 40, 5),
        ("demux", 1, 1, 0),
    ]
    counts = label_counts(cache)
    assert counts.splits == ("train", "val")
    assert counts.rows == (("", (23, 1), 24, 23), ("a", (23, 0), 23, 23))
    assert counts.total == ((46, 1), 47, 46)


def test_the_limit_is_the_stage_whose_workers_were_busiest() -> None:
    line = {"units": 1, "rows": 10, "wall": 10.0, "seconds": {"decode": 16.0, "resize": 1.0, "teacher": 8.0}}
    assert time_spent([]) is None
    assert time_spent([{**line, "seconds": {}}]) is None
    alone = time_spent([line, line])
    assert alone
    assert (alone.limit, alone.busy, alone.builds, alone.rows, alone.wall) == ("decoding", None, 2, 20, 20)
    assert alone.stages[0] == ("decode", 32.0, 0.64)
    known = time_spent([{**line, "workers": {"decode": 4, "teach": 1, "write": 1}}])
    assert known
    assert (known.limit, known.busy) == ("the teachers", 0.9)


def test_numbers_for_people() -> None:
    assert [size(n) for n in (0, 999, 1000, 1_500_000, 2e9, 3e12)] == [
        "0 B", "999 B", "1.0 kB", "1.5 MB", "2.0 GB", "3.00 TB",
    ]  # fmt: skip
    assert [duration(n) for n in (1.23, 59, 600, 9000)] == ["1.2 s", "59 s", "10 min", "2.5 h"]
    assert [lost(n) for n in (None, 1.0, 0.99998, 0.99)] == ["–", "< 1e-7", "2e-5", "0.0100"]


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
