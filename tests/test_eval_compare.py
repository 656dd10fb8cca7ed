"""Results in one table only where they measured the same thing; nothing in a name steers a terminal or Markdown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from frame.eval.cli import app
from frame.eval.present.compare import as_markdown, as_text, markdown, printable
from frame.eval.result import Result
from frame.manifests.errors import InputError
from frame.pipeline.view.compare import compare, group, load

BASE = Result(
    task="davis",
    preset="dino",
    encoder={"name": "dino_vits16", "model": "vit_small", "weights": "file"},
    scores={"J&F_mean": 0.5, "J_mean": 0.25},
    items=[],
    data={"root": "/a/DAVIS", "digest": "x" * 64, "sequences": 3},
    options={"topk": 5, "input": {"rule": "short64"}},
)


def named(name: str, weights: str = "file", **scores: float) -> Result:
    return replace(BASE, encoder={**BASE.encoder, "name": name, "weights": weights}, scores={**BASE.scores, **scores})


def written(folder: Path, *results: Result) -> list[Path]:
    for number, result in enumerate(results):
        result.write(folder / str(number))
    return [folder / str(number) for number in range(len(results))]


def test_one_table_with_the_best_headline_marked_and_random_weights_named(tmp_path: Path) -> None:
    results = [named("a"), named("b", **{"J&F_mean": 0.75, "extra": 1.0}), named("c", "random", **{"J&F_mean": 0.9})]
    made = compare(load(written(tmp_path, *results)))
    text = as_text(made)
    lines = text.splitlines()
    assert lines[0] == "davis, preset dino"
    assert [line.split()[0] for line in lines[3:]] == ["a", "b", "c"]
    assert "c (RANDOM WEIGHTS)" in text
    assert lines[3].rstrip().endswith("–")  # a has no extra
    assert as_markdown(made).splitlines() == [
        "| encoder | J&F_mean | J_mean | extra |",
        "| --- | ---: | ---: | ---: |",
        "| a | 0.5000 | 0.2500 | – |",
        "| b | **0.7500** | 0.2500 | 1.0000 |",  # an untrained encoder is not ranked
        "| c (RANDOM WEIGHTS) | 0.9000 | 0.2500 | – |",
    ]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (replace(BASE, task="vip"), r"task: davis / vip"),
        (replace(BASE, preset="siammae"), r"preset: dino / siammae"),
        (replace(BASE, options={"topk": 7, "input": {"rule": "short64"}}), r"option topk: 5 / 7$"),
        (replace(BASE, options={"topk": 5, "input": {"rule": "fixed"}}), r"option input.rule: short64 / fixed$"),
        (replace(BASE, options={"input": {"rule": "short64"}}), r"option topk: 5 / not given$"),
        (replace(BASE, data={**BASE.data, "digest": "y" * 64}), r"data digest: x{16} / y{16}$"),
    ],
)
def test_what_differs_is_named_and_refused(tmp_path: Path, other: Result, why: str) -> None:
    entries = load(written(tmp_path, BASE, BASE, other))
    with pytest.raises(InputError, match="do not belong") as caught:
        compare(entries)
    assert caught.match(f"(?m)why: .*{why}")
    assert [len(made.entries) for made in group(entries)] in ([2, 1], [1, 2])


def test_where_the_data_lie_does_not_matter(tmp_path: Path) -> None:
    moved = replace(BASE, data={**BASE.data, "root": "/b"})
    assert len(compare(load(written(tmp_path, BASE, moved))).entries) == 2


def test_encoders_of_one_name_are_told_apart_by_folders(tmp_path: Path) -> None:
    paths = written(tmp_path, named("runs/a"), named("/x/stage2"), named("/y/stage2"), named("/y/other"), BASE, BASE)
    names = [entry.name for entry in compare(load(paths)).entries]
    same = [f"dino_vits16 ({path})" for path in paths[4:]]
    assert names == ["runs/a", "/x/stage2", "/y/stage2", "other", *same]


def test_a_result_with_a_later_option_stands_apart_from_older_ones(tmp_path: Path) -> None:
    newer = replace(BASE, options={**BASE.options, "warmup": False})
    with pytest.raises(InputError, match="option warmup: not given / false"):
        compare(load(written(tmp_path, BASE, newer)))


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        compare([])


def test_names_mean_themselves(tmp_path: Path) -> None:
    evil = "[red]x[/red]|<b>\x1b[31m\n*y* `z` _u_ a_b &amp; A&B"
    made = compare(load(written(tmp_path, named(evil))))
    assert "[red]x[/red]|<b>?[31m?" in as_text(made)
    (line,) = as_markdown(made).splitlines()[2:]
    assert line.count(" | ") == 2
    assert "<b>" not in line
    assert "\\|&#60;b&#62;" in line
    assert markdown("J&F_mean") == "J&F_mean"
    assert markdown("_a_ &lt; *b*") == r"\_a\_ &#38;lt; \*b\*"
    assert printable("a\u202eb\x07") == "a?b?"


def test_the_command_prints_and_keeps_the_table(tmp_path: Path) -> None:
    paths = [str(path) for path in written(tmp_path, named("a"), named("b"))]
    done = CliRunner().invoke(app, ["compare", *paths, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert done.output == (tmp_path / "out" / "compare.txt").read_text()
    assert (tmp_path / "out" / "compare.md").read_text().startswith("| encoder |")
    broken = tmp_path / "1" / "result.json"
    broken.write_text(json.dumps({"format": 1}))
    assert isinstance(CliRunner().invoke(app, ["compare", *paths]).exception, InputError)
