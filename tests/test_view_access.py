"""Both pages for somebody without a mouse, with a screen reader, on a phone, in the dark, with scripts off."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page_faults import page_faults
from pages import Page
from test_view_runs import future, write_run
from view_caches import make

from frame.eval.present.pictures import write_png
from frame.eval.present.report import write_report
from frame.eval.result import Result
from frame.pipeline.view import render_view
from frame.pipeline.view.template import house_style

RESULT = Result(
    task="davis",
    preset="dino",
    encoder={"name": "dino_vits16", "model": "vit_small", "weights": "random"},
    scores={"J&F_mean": 0.5, "J_mean": 0.25},
    items=[{"name": "libby/1", "J&F_mean": 0.4321}, {"name": "libby/2", "J&F_mean": 0.5}],
    data={"root": "DAVIS", "digest": "x" * 64},
    options={"topk": 5},
    notes=["A note."],
    pictures=["pictures/a.png"],
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two comparisons, one of them of two encoders, and a file that is no result."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("a", "b", "c"):
        write_png(folder / name / "pictures" / "a.png", np.zeros((8, 8, 3), dtype=np.uint8))
    RESULT.write(folder / "a")
    replace(RESULT, encoder={**RESULT.encoder, "name": "run", "weights": "run"}).write(folder / "b")
    replace(RESULT, scores={f"score {n}": 2.0 for n in range(12)}, preset="siammae").write(folder / "c")
    (folder / "d").mkdir()
    (folder / "d" / "result.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def whole(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a cache with everything that it may show."""
    folder = tmp_path_factory.mktemp("view")
    made = make(
        folder / "cache", lengths=(5, 0, 9, 1, 40), failed={"clip2": ("corrupt", "bad")}, origin="random", units=[0]
    )
    run = write_run(folder / "run", val=future(2.0, 1.0), train=[{"patch": 1.0}, {"patch": 0.5}])
    timings = [{"units": 4, "rows": 85, "wall": 8.0, "seconds": {"decode": 2.0, "teacher": 6.0}}]
    render_view(made.open(), folder / "page.html", runs=[run], results=[results], timings=timings)
    return Page(folder / "page.html")


@pytest.fixture(scope="module")
def report(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of the evaluations."""
    return Page(write_report(results, tmp_path_factory.mktemp("report"))[0])


def test_the_page_of_a_cache_has_no_faults(whole: Page) -> None:
    assert page_faults(whole) == []
    sections = {attributes["id"] for attributes in whole.all("section")}
    assert sections == {"training", "evaluation", "clips", "contents", "columns", "teachers", "failed", "time"}
    assert {a["href"][1:] for a in whole.all("a")} == sections | {"main"}


def test_the_page_of_evaluations_has_no_faults(report: Page) -> None:
    assert page_faults(report) == []
    assert len(report.all("img")) == 3


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        ('<h1>', '<h1>x</h1><h1>', "h1"),
        ("<h2 id=", "<h4 id=", "jump"),
        ('alt="', 'alt="" title="', "picture"),
        ('<th scope="col"', "<th", "scope"),
        (' tabindex="0"', "", "mouse"),
        ('<label for="range-1"', '<label for="other"', "no label"),
        ('id="contents"', 'id="columns"', "2 times"),
        ('aria-live="off"', 'aria-lively="off"', "aria-lively"),
        ('src="data:', 'src="https:', "refers"),
        ('<html lang="en">', "<html>", "language"),
        (' role="img"', "", "drawing"),
        ('<a class="skip" href="#main">', "<a>", "past the header"),
    ],
)  # fmt: skip
def test_each_fault_would_be_seen(whole: Page, good: str, bad: str, why: str) -> None:
    assert good in whole.source
    assert any(why in fault for fault in page_faults(Page(whole.source.replace(good, bad, 1))))


def test_nothing_is_said_aloud_while_a_clip_plays_and_sliders_say_where_they_are(whole: Page) -> None:
    assert all(output["aria-live"] == "off" for output in whole.all("output"))
    sliders = [item for item in whole.all("input") if item["type"] == "range"]
    assert [item["aria-valuetext"] for item in sliders] == ["frame 1 of 5, 0.000 s"]


def test_without_scripts_every_frame_can_be_seen(whole: Page) -> None:
    without = re.search(r"<noscript><style>(.*?)</style></noscript>", whole.source)
    assert without
    assert ".stack img[hidden] { display: block !important; }" in without[1]
    house = "".join(whole.styles)
    assert house.index("[hidden] { display: none !important; }") < whole.source.index(without[0])
    assert all("hidden" in attributes for attributes in whole.all("div") if attributes.get("class") == "controls")
    assert "Scripts are off" in whole.text


def test_who_asks_for_little_motion_gets_little(whole: Page) -> None:
    script = whole.source[whole.source.rindex("<script>") :]
    assert "(prefers-reduced-motion: reduce)" in script
    assert not re.search(r"\b(animation|transition|scroll-behavior)\b", "".join(whole.styles))  # nothing else moves


def test_wide_tables_scroll_in_their_box(whole: Page, report: Page) -> None:
    for page in (whole, report):
        boxes = [attributes for _, attributes in page.elements if attributes.get("class") == "scroll"]
        assert len(boxes) == len(page.all("table")) + len([1 for image in page.all("img") if page is report])
        assert ".scroll {\n  overflow-x: auto;" in "".join(page.styles)


def colours(scheme: str) -> dict[str, str]:
    """The colours of the house by name: ``light``, or ``dark`` where that has its own."""
    blocks = re.findall(r":root \{(.*?)\}", house_style(), flags=re.DOTALL)
    assert len(blocks) == 2
    found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", blocks[0]))
    own = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", blocks[1]))
    assert own.keys() == found.keys()
    return own if scheme == "dark" else found


def contrast(a: str, b: str) -> float:
    """As WCAG 2 defines it: 1 to 21."""

    def luminance(colour: str) -> float:
        values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#123456", "#123456") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out(scheme: str) -> None:
    """AA: 4.5 for text, 3 for lines of charts, bars and the ring around what has the focus."""
    have = colours(scheme)
    text = [(ink, paper) for ink in ("ink", "soft", "first") for paper in ("paper", "tint")]
    text += [("warn-ink", "warn-paper"), ("warn-ink", "paper")]
    lines = [(line, "paper") for line in ("first", "previous", "third", "fourth", "fifth", "soft")]
    lines += [("first", "tint"), ("first", "warn-paper"), ("first", "line")]
    weak = [(a, b, contrast(have[a], have[b])) for a, b in text if contrast(have[a], have[b]) < 4.5]
    weak += [(a, b, contrast(have[a], have[b])) for a, b in lines if contrast(have[a], have[b]) < 3]
    assert weak == []


def test_every_colour_has_a_dark_one() -> None:
    """What is written out is the same in both: the scale of the matrices, and marks that invert what is below."""
    rules = re.sub(r":root \{.*?\}", "", house_style(), flags=re.DOTALL)
    assert set(re.findall(r"#[0-9a-f]{3,8}\b", rules)) == {"#fff", "#440154", "#fde725"}
