"""bench/real: the commands of `make real`, how they are run, and what RESULTS.md makes of their outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer.main
from real_results import Comparison, Found, compared, put_into, results_text
from real_run import StepError, run_all, seconds
from real_steps import SIZES, Inputs, Size, Step, all_steps

from frame.eval.cli import app as eval_app
from frame.pipeline.cli import app as cache_app
from frame.train.cli import app as train_app
from frame.train.recipe import load_recipe

INPUTS = Inputs(
    videos=(Path("a"), Path("b")), davis=Path("d"), camvid=Path("c"), ahead=30, spec="timm:test_vit", weights=Path("w")
)
SMALL = Size(name="cpu", pixels=32, recipe="real-cpu", seeds=(0, 1), second=(0,), schedule="10")


@pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
def test_every_command_exists_with_every_option_and_needs_only_earlier_ones(size: Size, tmp_path: Path) -> None:
    apps = {"frame-cache": cache_app, "frame-train": train_app, "frame-eval": eval_app}
    before: set[str] = set()
    for step in all_steps(INPUTS, size, tmp_path):
        assert step.name not in before
        assert before.issuperset(step.after)
        before.add(step.name)
        group: Any = typer.main.get_command(apps[step.words[0]])
        known = {option for parameter in group.commands[step.words[1]].params for option in parameter.opts}
        assert {word for word in step.words if word.startswith("--")} <= known
        if "--recipe" in step.words:
            assert load_recipe(step.words[step.words.index("--recipe") + 1])


def python(name: str, code: str, **more: Any) -> Step:
    return Step(name=name, words=("python", "-c", code), **more)


def note(folder: Path, word: str) -> str:
    return f"open({str(folder / 'notes')!r}, 'a').write({word!r})"


def test_commands_run_once_and_after_what_they_need(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps = [
        python("c", note(tmp_path, "c"), after=("b",)),
        python("b", note(tmp_path, "b"), after=("a",), alone=True),
        python("a", "print('hello'); " + note(tmp_path, "a")),
    ]
    for _ in range(2):
        run_all(steps, tmp_path, jobs=2)
        assert (tmp_path / "notes").read_text() == "abc"
    assert (tmp_path / "logs" / "a.log").read_text() == "hello\n"
    assert seconds(steps[0], tmp_path) > 0
    assert "[3/3] c done" in capfd.readouterr().out


def test_a_command_that_changed_runs_again(tmp_path: Path) -> None:
    for word in "xxy":
        run_all([python("a", note(tmp_path, word))], tmp_path, jobs=1)
    assert (tmp_path / "notes").read_text() == "xy"


def test_a_failure_shows_its_end_and_what_else_ran_is_kept(tmp_path: Path) -> None:
    bad = python("bad", "import sys; print('the reason'); sys.exit(3)")
    good = python("good", "import time; time.sleep(0.5); " + note(tmp_path, "g"))
    with pytest.raises(StepError, match=r"ended with 3(.|\n)*the reason(.|\n)*goes on"):
        run_all([bad, good, python("later", note(tmp_path, "l"), after=("good",))], tmp_path, jobs=2)
    assert (tmp_path / "notes").read_text() == "g"
    run_all([good], tmp_path, jobs=2)
    assert (tmp_path / "notes").read_text() == "g"


def found(scores: dict[str, float]) -> Found:
    """Scores by encoder; every task the same."""
    results = {}
    for key, score in scores.items():
        davis = {"J&F_mean": score, "J_mean": score - 0.1, "F_mean": score + 0.1}
        camvid = {"mIoU": score, "mIoU@30": score, "copy_last@30": 0.25}
        for task, values in {"davis-dino": davis, "davis-siammae": davis, "camvid": camvid}.items():
            results[key, task] = {"scores": values, "items": [{"name": "libby/1", "J&F_mean": score}]}
    losses = {"patch_cosine": 0.5, "cls_cosine": 0.6}
    published = [{"model": "P", "task": "davis", "scores": {"J&F_mean": 0.663}, "protocol": "not stated"}]
    return Found(
        results=results, validations=dict.fromkeys(scores, losses), facts={"Machine": ["small"]}, published=published
    )


SCORES = {
    "teacher": 0.7,
    **{"scratch-0-stage1": 0.50, "scratch-1-stage1": 0.51, "scratch-0-stage2": 0.54, "scratch-1-stage2": 0.53},
    **{"init-0-stage1": 0.70, "init-1-stage1": 0.69, "init-0-stage2": 0.69, "init-1-stage2": 0.70},
}


def test_the_text_has_every_number_and_judges_by_the_spread_of_the_seeds() -> None:
    text = results_text(found(SCORES), SMALL)
    assert "| from scratch, stage 2 | **0.5350** | 0.0100 | 0.5400, 0.5300 | 0.4350 | 0.6350 |" in text
    by_title = {one.title: one for one in compared(found(SCORES), SMALL)}
    gain = by_title["from scratch: stage 2 above stage 1"]
    assert gain.changes == pytest.approx((0.04, 0.02))
    assert gain.spread == pytest.approx(0.01)
    assert gain.verdict.startswith("**shown**")
    assert by_title["begun as the teacher: stage 2 above stage 1"].verdict == "not shown: the seeds disagree"
    assert by_title["from scratch: stage 1 above the teacher"].verdict.startswith("**the reverse is shown**")
    assert "J&F_mean 0.663" in text


@pytest.mark.parametrize(
    ("changes", "spread", "verdict"),
    [
        ((0.02, 0.03), 0.01, "**shown**"),
        ((0.02, 0.03), 0.05, "not shown: better with every seed"),
        ((-0.02, -0.03), 0.05, "not shown: worse with every seed"),
        ((-0.02, -0.03), 0.01, "**the reverse is shown**"),
        ((0.5, -0.01), 0.01, "not shown: the seeds disagree"),
        ((0.5, 0.5), 0.0, "no verdict"),
    ],
)
def test_only_what_every_seed_says_and_exceeds_their_spread_is_shown(
    changes: tuple[float, ...], spread: float, verdict: str
) -> None:
    assert Comparison(title="", changes=changes, spread=spread).verdict.startswith(verdict)


def test_what_a_person_wrote_around_the_numbers_stays(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    put_into(path, "one")
    path.write_text("above\n" + path.read_text() + "below\n")
    put_into(path, "two")
    text = path.read_text()
    assert text.startswith("above\n# Results")
    assert text.endswith("below\n")
    assert "two" in text
    assert "one" not in text
    path.write_text("no marks")
    with pytest.raises(ValueError, match="lost the marks"):
        put_into(path, "three")
    assert path.read_text() == "no marks"
