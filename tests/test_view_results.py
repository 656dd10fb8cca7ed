"""The section about evaluations: the tables of `frame-eval report`, protocols apart, nothing in a file trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pages import Page
from view_caches import EVIL, make

from frame.eval.present.report import write_report
from frame.eval.result import Result
from frame.manifests.errors import InputError
from frame.pipeline.commands import view_command
from frame.pipeline.store import Cache
from frame.pipeline.view import render_view
from frame.pipeline.view.compare import figure
from frame.pipeline.view.evaluation import view_evaluation
from frame.pipeline.view.result import read_stored

BASE = Result(
    task="davis",
    preset="dino",
    encoder={"name": "dino_vits16", "model": "vit_small", "weights": "random"},
    scores={"J&F_mean": 0.75, "J_mean": 0.25},
    items=[{"name": "libby/1", "J&F_mean": 0.4321}, {"name": "libby/2", "J&F_mean": 0.5}],
    data={"root": "DAVIS", "digest": "x" * 64, "sequences": 3},
    options={"topk": 5},
    notes=["A note for everybody."],
)


CELL = r"<t[hd][^>]*>(.*?)</t[hd]>"


def by(name: str, score: float, **changes: Any) -> Result:
    encoder = {"name": name, "model": "vit", "weights": "run"}
    return replace(BASE, encoder=encoder, scores={"J&F_mean": score, "J_mean": 0.5}, **changes)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make(tmp_path_factory.mktemp("view") / "cache", lengths=(2,)).open()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A teacher without training and two runs under one protocol, and one of them under another."""
    folder = tmp_path / "results"
    BASE.write(folder / "teacher")
    by("stage1", 0.5).write(folder / "stage1")
    by("stage2", 0.625).write(folder / "deep" / "stage2")
    by("stage2", 0.875, preset="siammae").write(folder / "other")
    return folder


def shown(cache: Cache, out: Path, *results: Path) -> Page:
    render_view(cache, out, clips=0, results=results)
    return Page(out)


def tables(page: Page) -> list[list[list[str]]]:
    """Every table of scores and of items, as text."""
    found = re.findall(r'aria-label="[^"]*(?:Scores|by item)[^"]*">\s*<table>(.*?)</table>', page.source, re.DOTALL)
    return [
        [
            [" ".join(re.sub(r"<[^>]*>", "", cell).split()) for cell in re.findall(CELL, row, re.S)]
            for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)
        ]
        for table in found
    ]


def test_the_tables_are_those_of_the_evaluations_own_page(cache: Cache, results: Path, tmp_path: Path) -> None:
    page = shown(cache, tmp_path / "page.html", results)
    made = tables(page)
    assert made == tables(Page(write_report(results, tmp_path / "report")[0]))
    assert made[0] == [
        ["encoder", "J&amp;F_mean", "J_mean"],
        ["stage2 vit", "0.6250 highest", "0.5000"],
        ["stage1 vit", "0.5000", "0.5000"],
        ["dino_vits16 random weights vit_small", "0.7500", "0.2500"],  # marked, and not ranked
    ]
    assert made[1][1] == ["libby/1", "0.4321", "0.4321", "0.4321"]
    assert made[2] == [["encoder", "J&amp;F_mean", "J_mean"], ["stage2 vit", "0.8750", "0.5000"]]


def test_protocols_stand_apart_and_random_weights_are_named(cache: Cache, results: Path, tmp_path: Path) -> None:
    page = shown(cache, tmp_path / "page.html", results)
    section = page.source[page.source.index('<section id="evaluation"') : page.source.index('<section id="clips"')]
    assert re.findall(r"<h3>(.*?)</h3>", section) == ["davis, preset dino", "davis, preset siammae"]
    assert "<strong>Random weights:</strong> dino_vits16." in section
    assert section.count("A note for everybody.") == 2
    assert section.count("topk 5") == 2
    assert "Not shown" not in section
    assert {"href": "#evaluation"} in page.all("a")


def test_without_results_there_is_no_section(cache: Cache, tmp_path: Path) -> None:
    assert 'id="evaluation"' not in shown(cache, tmp_path / "page.html").source


def test_a_result_is_shown_once_however_often_its_folder_is_given(cache: Cache, results: Path, tmp_path: Path) -> None:
    once = shown(cache, tmp_path / "a", results).source
    assert shown(cache, tmp_path / "b", results).source == once
    twice = shown(cache, tmp_path / "c", results, results / "deep", tmp_path / "results" / "deep" / "..")
    assert tables(twice) == tables(Page(once))


def test_encoders_of_one_name_are_told_apart(cache: Cache, results: Path, tmp_path: Path) -> None:
    by("stage2", 0.1).write(tmp_path / "again")
    names = [row[0] for row in tables(shown(cache, tmp_path / "page.html", results, tmp_path / "again"))[0]]
    assert len(set(names)) == 5


def test_many_scores_of_one_encoder_stand_below_each_other(cache: Cache, tmp_path: Path) -> None:
    scores = {f"a.patch {number}": number / 16 for number in range(9)} | {"suggested delta": 4.0}
    replace(BASE, task="deltas", encoder={"name": "a, b", "kind": "cache", "weights": "random"}, scores=scores).write(
        tmp_path / "results"
    )
    page = shown(cache, tmp_path / "page.html", tmp_path / "results")
    (table,) = tables(page)
    assert table[0] == ["score", "a, b random weights"]
    assert table[2] == ["a.patch 1", "0.0625"]
    assert table[-1] == ["suggested delta", "4"]
    assert "columns of a cache (a, b)" in page.text


@pytest.mark.parametrize("make_it", [lambda _: None, Path.mkdir, lambda path: path.write_text("a file")])
def test_a_folder_without_results_is_refused_and_no_page_written(
    cache: Cache, results: Path, tmp_path: Path, make_it: Callable[[Path], object]
) -> None:
    wrong = tmp_path / "wrong"
    make_it(wrong)
    with pytest.raises(InputError, match="no result to report") as caught:
        render_view(cache, tmp_path / "page.html", clips=0, results=[results, wrong])
    assert caught.value.where == str(wrong)
    assert not (tmp_path / "page.html").exists()


BROKEN = [
    "{",
    "\xff",
    "[" * 100_000,
    BASE.to_json().replace('{"topk": 5}', '{"a": ' * 300 + "1" + "}" * 300),
    '{"format": 1}',
    '{"format": 2}',
    *(
        json.dumps({**json.loads(BASE.to_json()), **change})
        for change in (
            {"task": ["davis"]},
            {"scores": [1]},
            {"scores": {"a": "high"}},
            {"scores": {"a": True}},
            {"scores": {"a": float("nan")}},
            {"scores": {"a": 10**400}},
            {"items": [1]},
            {"encoder": None},
            {"data": "DAVIS"},
            {"options": [["topk", 5]]},
            {"notes": [{"x": 1}]},
            {"pictures": "a.png"},
        )
    ),
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_result_is_said_on_the_page_and_beside_it(
    cache: Cache, results: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = results / "bad" / "result.json"
    bad.parent.mkdir()
    bad.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"no result|another version"):
        read_stored(bad)
    out = tmp_path / "page.html"
    view_command(cache.path, out=out, clips=0, seed=0, results=[results])
    assert "Not shown: bad/result.json: This" in capsys.readouterr().err
    assert "bad/result.json" in Page(out).text
    assert len(tables(Page(out))) == 4


def test_whatever_results_hold_is_shown_as_text(cache: Cache, tmp_path: Path) -> None:
    evil = replace(
        BASE, task=EVIL, preset=EVIL, encoder={"name": EVIL, "model": EVIL, "weights": "random"},
        scores={EVIL: 0.5}, items=[{"name": EVIL, EVIL: 0.1}, {"name": "b", EVIL: EVIL}], data={EVIL: EVIL},
        options={EVIL: {EVIL: [EVIL]}}, notes=[EVIL],
    )  # fmt: skip
    evil.write(tmp_path / "results" / EVIL.replace("/", ""))
    page = shown(cache, tmp_path / "page.html", tmp_path / "results")
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert not [attributes for _, attributes in page.elements if any(name.startswith("on") for name in attributes)]
    assert page.text.count(EVIL) >= 9


def test_a_table_has_those_that_may_be_compared(results: Path) -> None:
    evaluation = view_evaluation([results])
    assert [len(table.comparison.entries) for table in evaluation.tables] == [3, 1]
    assert evaluation.random == ("dino_vits16",)


def test_figures_of_a_table() -> None:
    assert [figure(value) for value in (None, 0.5, 1.0, 3.0, 2.5, 7, "x")] == [
        "–", "0.5000", "1.0000", "3", "2.5000", "7", "x",
    ]  # fmt: skip
