"""The section about training runs: every figure that was logged, readable without script, mouse or colour."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import Page
from view_caches import EVIL, make

from frame.manifests.errors import InputError
from frame.pipeline.commands import view_command
from frame.pipeline.view import render_view
from frame.pipeline.view.plots import HEIGHT, WIDTH, nice_step, plot, thinned, value_axis
from frame.pipeline.view.runs import read_run, run_names
from frame.pipeline.view.training import view_training

Figures = Mapping[str, float]


def write_run(
    folder: Path,
    *,
    val: Sequence[Figures] = (),
    train: Sequence[Figures] = (),
    every: int = 100,
    tail: str = "",
    **settings: Any,
) -> Path:
    """A run folder: validations at steps 0, ``every``, …; training lines at steps 1, 2, …; ``tail`` ends the file."""
    folder.mkdir(parents=True)
    stage = settings.get("stage", "stage2")
    (folder / "config.json").write_text(json.dumps({"kind": "frame-run", "stage": stage, "settings": settings}))
    lines = [{"kind": "train", "step": step + 1, "epoch": step / 100, **line} for step, line in enumerate(train)]
    lines += [{"kind": "val", "step": step * every, "epoch": float(step), **line} for step, line in enumerate(val)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return folder


def future(*values: float) -> list[Figures]:
    return [{"future_patch": value, "future_patch_cosine": 1 - value} for value in values]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A first stage, and two second ones: with memory and without."""
    base = tmp_path_factory.mktemp("runs")
    train = [{"patch": 2.0 - i / 500, "cls": 0.5, "lr": 1e-3, "loss": 3.0, "grad_norm": 1.0} for i in range(500)]
    first = [{"patch": 1.5, "cls": 0.9}, {"patch": 0.7, "cls": 0.4}, {"patch": 0.75, "cls": 0.3}]
    return [
        write_run(base / "first", stage="stage1", val=first, train=train, tail='{"kind": "val", "st'),
        write_run(base / "memory", val=future(2.0, 0.5, 0.40, 0.41), memory_frames=5),
        write_run(base / "none", val=future(2.1, 0.6, 0.50, 0.50), memory_frames=0),
    ]


@pytest.fixture(scope="module")
def page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Page:
    made = make(tmp_path_factory.mktemp("view") / "cache", lengths=(4, 3))
    out = made.path.with_suffix(".html")
    view_command(made.path, out=out, clips=1, seed=0, runs=runs)
    return Page(out)


def charts(page: Page) -> list[str]:
    """The words of every chart of the section."""
    return [svg["aria-label"] for svg in page.all("svg") if svg.get("role") == "img" and "by step" in svg["aria-label"]]


def test_every_validation_metric_has_a_chart_and_the_future_comes_first(page: Page) -> None:
    assert [words.partition(" (")[0] for words in charts(page)] == [
        "Loss, patches of a future frame",
        "Loss, patches of the current frame",
        "Loss, CLS token of the current frame",
        "Cosine, patches of a future frame",
        "Loss, patches of the current frame",  # of training
        "Loss, CLS token of the current frame",
    ]
    assert charts(page)[0].endswith(
        "(lower is better), by step. "
        "memory: from 2 at step 0 to 0.41 at step 300; best 0.4 at step 200. "
        "none: from 2.1 at step 0 to 0.5 at step 300; best 0.5 at step 200."
    )
    assert "(higher is better)" in charts(page)[3]


def test_the_runs_are_compared_in_words_and_told_one_by_one(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "Lowest: memory, 0.4 at step 200; then none 0.5 (25.0% more)." in text
    assert "Highest: memory, 0.6 at step 200; then none 0.5 (16.7% less)." in text
    assert "memory (stage 2, memory of 5 frames): 300 steps (3 epochs). Validation loss, patches of a future" in text
    assert "none (stage 2, no memory): 300 steps" in text
    assert "first (stage 1): 500 steps (4.99 epochs). Validation loss, patches of the current frame: from 1.5" in text
    assert "best 0.7 at step 100" in text


def test_the_table_has_first_last_and_best_of_every_run_and_metric(page: Page) -> None:
    section = page.source[page.source.index('<section id="training"') : page.source.index('<section id="clips"')]
    plain = [
        [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", section)
    ]
    assert plain[1:] == [
        ["future_patch", "memory", "2", "0.41", "0.4", "200"],
        ["future_patch", "none", "2.1", "0.5", "0.5", "200"],
        ["patch", "first", "1.5", "0.75", "0.7", "100"],
        ["cls", "first", "0.9", "0.3", "0.3", "200"],
        ["future_patch_cosine", "memory", "-1", "0.59", "0.6", "200"],
        ["future_patch_cosine", "none", "-1.1", "0.5", "0.5", "200"],
    ]


def test_lines_differ_by_more_than_colour_and_need_no_script(page: Page) -> None:
    keys = {attributes["class"] for tag, attributes in page.elements if tag == "g"}
    assert keys == {"line-0 dash-0", "line-1 dash-1", "line-2 dash-2"}
    swatches = {svg["class"] for svg in page.all("svg") if "swatch" in svg.get("class", "")}
    assert swatches == {f"swatch {key}" for key in keys}
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    light, dark = style.index(":root {"), style.index("@media (prefers-color-scheme: dark)")
    for name in ("--third", "--fourth", "--fifth"):
        assert light < style.index(f"{name}: #") < dark < style.rindex(f"{name}: #")
    script = page.source[page.source.index("<script>") :]
    assert "training" not in script
    assert {"href": "#training"} in page.all("a")
    assert not [attributes for _, attributes in page.elements if any(name.startswith("on") for name in attributes)]


def test_the_same_runs_give_the_same_page_and_no_runs_none_of_it(runs: list[Path], tmp_path: Path) -> None:
    cache = make(tmp_path / "cache", lengths=(2,)).open()
    written = []
    for name in ("a", "b"):
        render_view(cache, tmp_path / name, clips=0, runs=runs)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    assert str(runs[0].parent).encode() not in written[0]
    render_view(cache, tmp_path / "c", clips=0)
    assert 'id="training"' not in (tmp_path / "c").read_text()


def test_whatever_names_and_metrics_hold_is_shown_as_text(tmp_path: Path) -> None:
    name = EVIL.replace("/", "")
    run = write_run(tmp_path / name, val=[{EVIL: 1.0}, {EVIL: 2.0}], stage=EVIL)
    render_view(make(tmp_path / "cache", lengths=(2,)).open(), tmp_path / "page", clips=0, runs=[run])
    page = Page(tmp_path / "page")
    assert len(page.all("script")) == 1
    assert not [attributes for _, attributes in page.elements if any(key.startswith("on") for key in attributes)]
    assert page.text.count(EVIL) >= 3


@pytest.mark.parametrize("tail", ["", '{"kind": "val", "step": 400, "fut', "\xff\x00", "[1]\n", '{"kind": "val"}\n'])
def test_a_torn_last_line_is_skipped(tmp_path: Path, tail: str) -> None:
    run = read_run(write_run(tmp_path / "run", val=future(2.0, 1.0), tail=tail), "run")
    assert run.val["future_patch"] == ((0, 2.0), (100, 1.0))
    assert run.unread == 0


def test_lines_that_cannot_be_read_in_between_are_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", val=future(2.0, 1.0))
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text().replace("\n", "\ngarbage\n", 1))
    assert "1 line of its metrics cannot be read" in view_training([folder]).runs[0][2]


def test_what_is_no_finite_number_is_left_out_and_later_lines_count(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", val=[{"patch": math.nan}, {"patch": 1.0}, {"patch": math.inf}, {"patch": 2}])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            '{"kind": "val", "step": 100, "epoch": "x", "patch": 3.0, "cls": null, "note": "text", "ok": true}\n'
        )
        file.write('{"kind": "val", "step": -1, "patch": 3.0}\n{"kind": "other", "step": 1, "patch": 3.0}\n')
        file.write('{"kind": "val", "step": 300, "epoch": 9, "patch": 1e999}\n')
    run = read_run(folder, "run")
    assert run.val == {"patch": ((100, 3.0), (300, 2.0))}
    assert (run.steps, run.epochs, run.unread) == (300, 9, 2)


@pytest.mark.parametrize(
    ("break_it", "what"),
    [
        (lambda run: (run / "metrics.jsonl").unlink(), "has no metrics"),
        (lambda run: (run / "metrics.jsonl").write_text(""), "has no metrics"),
        (lambda run: (run / "metrics.jsonl").write_text("nonsense\n"), "has no metrics"),
        (lambda run: (run / "metrics.jsonl").write_text('{"kind": "val", "step": 0, "epoch": 0}\n'), "has no metrics"),
        (lambda run: (run / "config.json").unlink(), "not a training run"),
        (lambda run: (run / "config.json").write_text("{"), "not a training run"),
        (lambda run: (run / "config.json").write_text("[]"), "not a training run"),
        (lambda run: run.rename(run.with_name("elsewhere")), "not a training run"),
    ],
)
def test_a_folder_without_metrics_is_refused_and_no_page_written(tmp_path: Path, break_it: Any, what: str) -> None:
    good = write_run(tmp_path / "good", val=future(1.0))
    bad = write_run(tmp_path / "bad", val=future(1.0))
    break_it(bad)
    cache = make(tmp_path / "cache", lengths=(2,)).open()
    with pytest.raises(InputError, match=what) as caught:
        render_view(cache, tmp_path / "page", runs=[good, bad])
    assert str(bad) in caught.value.where
    assert not (tmp_path / "page").exists()


def test_runs_of_one_name_are_told_apart_and_one_given_twice_is_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "b" / "other"]
    assert run_names(paths[:1]) == ["run"]
    assert run_names(paths) == ["a/run", "b/run", "b/other"]
    with pytest.raises(InputError, match="given twice"):
        run_names([paths[0], tmp_path / "b" / ".." / "a" / "run"])


def test_an_untrained_first_value_does_not_crowd_the_rest(tmp_path: Path) -> None:
    training = view_training(
        [write_run(tmp_path / name, val=future(9.0, 0.52, low)) for name, low in (("a", 0.40), ("b", 0.45))]
    )
    loss = training.validation[0]
    assert float(loss.plot.values[-1][1]) < 0.7
    assert loss.note == "The first values lie above the chart."
    ends = [line.end[1] for line in loss.plot.lines]
    assert ends[0] - ends[1] > 0.2 * (loss.plot.bottom - loss.plot.top)
    assert all(line.path.startswith("M") and f" {loss.plot.top:.1f}" in line.path for line in loss.plot.lines)


def test_long_runs_are_thinned_to_means_that_say_so(tmp_path: Path) -> None:
    points = [(step, float(step % 2)) for step in range(1000)]
    thin, size = thinned(points, 100)
    assert (len(thin), size) == (100, 10)
    assert thin[0] == (9, 0.5)
    assert thin[-1] == (999, 0.5)
    assert thinned(points, 1000) == (points, 1)
    run = write_run(tmp_path / "run", train=[{"patch": 1.0 + i} for i in range(400)])
    (chart,) = view_training([run]).training
    assert chart.note == "Each point is the mean of up to 3 neighbouring values."
    assert "from 1 at step 1 to 400 at step 400" in chart.words
    assert view_training([run]).validation == ()


finite = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))


@given(st.lists(st.lists(finite, min_size=1, max_size=9), min_size=1, max_size=4), st.integers(1, 10**6))
def test_every_line_stays_in_its_box_and_every_mark_is_round(columns: list[list[float]], every: int) -> None:
    series = [(run, [(i * every, value) for i, value in enumerate(values)]) for run, values in enumerate(columns)]
    drawn = plot(series)
    numbers = [float(text) for line in drawn.lines for text in re.findall(r"-?\d+\.\d+", line.path)]
    for x, y in [*zip(numbers[::2], numbers[1::2], strict=True), *(line.end for line in drawn.lines)]:
        assert drawn.left <= x <= WIDTH
        assert drawn.top <= y <= drawn.bottom + 0.05
    assert 1 <= len(drawn.values) <= 7
    assert 1 <= len(drawn.steps) <= 6
    texts = [text for _, text in drawn.values]
    assert len(set(texts)) == len(texts)
    assert HEIGHT - drawn.bottom > 30


@given(st.lists(finite, min_size=1, max_size=9))
def test_an_axis_holds_all_but_first_values(values: list[float]) -> None:
    low, high, step = value_axis([values])
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert low < high
    assert min(values) >= low - slack
    assert max(values[1:] or values) <= high + slack
    assert high - low <= 6 * step + slack


def test_a_cosine_axis_ends_at_one() -> None:
    assert value_axis([[0.5, 0.9, 0.999]], most=1.0)[1] == 1.0
    assert value_axis([[1.0, 1.0, 1.0]], most=1.0)[1] == 1.0
    low, high, _ = value_axis([[0.3]])
    assert low < 0.3 < high


@given(st.floats(1e-9, 1e12), st.integers(2, 9))
def test_steps_are_one_two_or_five(length: float, marks: int) -> None:
    step = nice_step(length, marks)
    assert length / step <= marks * (1 + 1e-9)
    digits = step / 10.0 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(digits - wanted) for wanted in (1, 2, 5, 10)) < 1e-6
