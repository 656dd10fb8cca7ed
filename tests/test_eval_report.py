"""One page that needs nothing but itself: everything escaped, no picture from elsewhere, papers' figures apart."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import Page
from typer.testing import CliRunner

from frame.eval.cli import app
from frame.eval.present.pictures import write_png
from frame.eval.present.published import published, published_for
from frame.eval.present.report import PICTURES_A_RESULT, write_report
from frame.eval.result import Result
from frame.manifests.errors import InputError

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}'
BASE = Result(
    task="davis",
    preset="dino",
    encoder={"name": "dino_vits16", "model": "vit_small", "weights": "file"},
    scores={"J&F_mean": 0.5, "J_mean": 0.25},
    items=[{"name": "libby/1", "J&F_mean": 0.4321}, {"name": "libby/2", "J&F_mean": 0.5}],
    data={"root": "/a/DAVIS", "digest": "x" * 64, "sequences": 3},
    options={"topk": 5},
    notes=["A note for everybody."],
)


def evil(result: Result) -> Result:
    return replace(
        result,
        encoder={**result.encoder, "name": EVIL, "model": EVIL},
        scores={**result.scores, EVIL: 0.5},
        items=[{"name": EVIL, "J&F_mean": 0.1}, *result.items],
        data={**result.data, "root": EVIL},
        notes=[EVIL],
    )


def test_the_page_needs_nothing_but_itself_and_nothing_in_it_runs(tmp_path: Path) -> None:
    BASE.write(tmp_path / "results" / "a")
    evil(BASE).write(tmp_path / "results" / EVIL.replace("/", ""))
    html, table, lost = write_report(tmp_path / "results", tmp_path / "out")
    assert not lost
    page = Page(html)
    names = {tag for tag, _ in page.elements}
    assert not names & {"script", "iframe", "object", "embed", "form"}
    assert not page.all("img")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    links = [attributes["href"] for attributes in (*page.all("a"), *page.all("link"))]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert {link[1:] for link in links if link.startswith("#")} <= {a.get("id") for _, a in page.elements}
    assert "url(" not in html.read_text()
    assert "default-src 'none'" in page.all("meta")[-1]["content"]
    assert EVIL in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search(r"<(script|img|b)\b", table.read_text())


def test_the_same_results_stand_in_one_table_others_apart(tmp_path: Path) -> None:
    BASE.write(tmp_path / "a")
    better = replace(BASE, encoder={**BASE.encoder, "name": "demo/stage2"}, scores={"J&F_mean": 0.75, "J_mean": 0.5})
    better.write(tmp_path / "deep" / "er" / "b")
    replace(BASE, preset="siammae").write(tmp_path / "c")
    html, table, _ = write_report(tmp_path, tmp_path / "out")
    page = Page(html)
    assert [a["id"] for _, a in page.elements if a.get("id", "").startswith("s")] == ["s1", "s2"]
    assert "davis, preset dino" in page.text
    assert page.text.count("A note for everybody.") == 2  # once a comparison
    assert page.text.count("0.4321") == 3
    text = table.read_text()
    assert text.index("## davis, preset dino") < text.index("| demo/stage2 | **0.7500** |")
    assert text.index("| demo/stage2") < text.index("## davis, preset siammae")


def test_published_figures_stand_apart_and_say_so(tmp_path: Path) -> None:
    BASE.write(tmp_path / "a")
    html, table, _ = write_report(tmp_path, tmp_path / "out")
    results, _, beside = table.read_text().partition("### davis, published")
    assert "0.618" in beside
    assert "0.618" not in results
    assert "not ranked" in beside
    text = html.read_text()
    assert text.index("0.5000") < text.index('<aside class="published"') < text.index("0.618")


def test_random_weights_are_marked(tmp_path: Path) -> None:
    replace(BASE, encoder={**BASE.encoder, "weights": "random"}).write(tmp_path / "a")
    html, table, _ = write_report(tmp_path, tmp_path / "out")
    assert "RANDOM WEIGHTS" in table.read_text()
    assert {"notice warn", "badge"} <= {attributes.get("class") for _, attributes in Page(html).elements}


def test_pictures_are_inside_and_only_those_of_the_result(tmp_path: Path) -> None:
    secret = write_png(tmp_path / "secret.png", np.zeros((4, 4, 3), dtype=np.uint8))
    folder = tmp_path / "results" / "a"
    many = [f"pictures/{number}.png" for number in range(PICTURES_A_RESULT + 2)]
    for name in many:
        write_png(folder / name, np.full((8, 2000, 3), 90, dtype=np.uint8))
    (folder / "pictures" / "link.png").symlink_to(secret)
    (folder / "text.png").write_text("no picture")
    bad = ["../../secret.png", str(secret), "pictures/link.png", "text.png", "nothing.png", "bad\0name"]
    replace(BASE, pictures=bad).write(folder)
    _, _, lost = write_report(tmp_path / "results", tmp_path / "out")
    assert len(lost) == len(bad)
    replace(BASE, pictures=many).write(folder)
    html, _, lost = write_report(tmp_path / "results", tmp_path / "out")
    assert lost == ["a: 2 more pictures are in its folder."]
    images = Page(html).all("img")
    assert len(images) == PICTURES_A_RESULT
    assert all(image["src"].startswith("data:image/webp;base64,") and image["alt"] for image in images)
    assert "2 more pictures" in Page(html).text


def test_what_cannot_be_read_is_said_and_a_folder_without_results_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "result.json").write_text("{")
    with pytest.raises(InputError, match=r"no result to report(.|\n)*b/result.json"):
        write_report(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="no result to report"):
        write_report(tmp_path / "nowhere", tmp_path / "out")
    BASE.write(tmp_path / "a")
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "Not shown: b/result.json" in done.output
    assert "b/result.json" in Page(tmp_path / "out" / "report.html").text


def test_the_same_results_give_the_same_page(tmp_path: Path) -> None:
    BASE.write(tmp_path / "a")
    first = write_report(tmp_path, tmp_path / "out")[0].read_bytes()
    assert write_report(tmp_path, tmp_path / "out")[0].read_bytes() == first


def test_what_is_on_record_of_papers_is_complete_and_plausible() -> None:
    for row in published():
        assert row.protocol, row
        assert row.source, row
        assert row.scores, row
        assert all(0.2 < score < 1 for score in row.scores.values()), row
        if {"J&F_mean", "J_mean", "F_mean"} <= set(row.scores):
            mean = (row.scores["J_mean"] + row.scores["F_mean"]) / 2
            assert mean == pytest.approx(row.scores["J&F_mean"], abs=0.00101), row
    tasks = {"davis", "vip", "jhmdb", "camvid", "vspw", "ucf101", "hmdb51", "regions"}
    assert {row.task for row in published()} == tasks
    assert all(any("FRAME" in row.model for row in published_for(task)) for task in tasks)


def test_published_scores_are_named_as_the_tasks_name_theirs() -> None:
    names = {
        "davis": {"J&F_mean", "J_mean", "F_mean"}, "vip": {"mIoU"}, "jhmdb": {"PCK@0.1", "PCK@0.2"},
        "camvid": {"mIoU", "mIoU@future"}, "vspw": {"mIoU", "mIoU@future"},
    }  # fmt: skip
    for task, known in names.items():
        assert {name for row in published_for(task) for name in row.scores} <= known
