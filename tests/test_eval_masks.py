"""Scoring a folder of masks through the command: the same figures as the plain loop over frames and objects."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from official_davis import plain_folder
from PIL import Image

from frame.eval import cli
from frame.eval.result import read_result

RNG = np.random.default_rng(3)


def write(folder: Path, count: int, size: tuple[int, int]) -> None:
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(count):
        ids = np.zeros(size, dtype=np.uint8)
        for one in (1, 2):
            y, x = 20 * one + number + RNG.integers(3), 25 * one + 2 * number
            ids[(rows - y) ** 2 + (columns - x) ** 2 < 120] = one
        image = Image.fromarray(ids)
        image.putpalette(list(range(256)) * 3)
        image.save(folder / f"{number:05d}.png")


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    root = tmp_path / "DAVIS"
    for name, count in (("a", 6), ("b", 4)):
        write(root / "Annotations" / "480p" / name, count, (90, 120))
        write(tmp_path / "found" / name, count, (90, 120))
        pictures = root / "JPEGImages" / "480p" / name
        pictures.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.zeros((90, 120, 3), np.uint8)).save(pictures / f"{number:05d}.jpg")
    return root


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["frame-eval", "masks", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            raise


def test_masks_are_scored_as_the_plain_loop_does(
    davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--data", davis, "--masks", tmp_path / "found", "--out", tmp_path / "out")
    plain = plain_folder(tmp_path / "found", davis / "Annotations" / "480p", binary=False)
    wanted = np.concatenate([scores.mean(axis=2) for scores in plain.values()])
    result = read_result(tmp_path / "out")
    assert result.scores["J_mean"] == pytest.approx(wanted[:, 0].mean(), abs=1e-9)
    assert result.scores["F_mean"] == pytest.approx(wanted[:, 1].mean(), abs=1e-9)
    assert [item["name"] for item in result.items] == ["a/1", "a/2", "b/1", "b/2"]
    assert 0.2 < result.scores["J&F_mean"] < 0.99
    assert "a/1" in capsys.readouterr().out


def test_a_missing_mask_is_named(
    davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "found" / "b" / "00002.png").unlink()
    with pytest.raises(SystemExit):
        run(monkeypatch, "--data", davis, "--masks", tmp_path / "found", "--out", tmp_path / "out")
    assert "b/00002.png" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_annotations_of_several_objects_are_not_scored_as_one(
    davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--data", davis, "--masks", tmp_path / "found", "--out", tmp_path / "out", "--year", "2016")
    assert "not DAVIS-2016's" in capsys.readouterr().err
