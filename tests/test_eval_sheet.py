"""Panels beside each other: labelled, in proportion, and small enough for a page of documentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from frame.eval.present.sheet import MOST_BYTES, WIDEST, Panel, film, sheet, tile, write_sheet

WHITE = 255


def panel(name: str, *, count: int = 9, size: tuple[int, int] = (30, 40), seed: int = 0, remark: str = "") -> Panel:
    rng = np.random.default_rng(seed)
    return Panel(
        caption=name, remark=remark,
        pictures=[np.asarray(rng.integers(0, 200, (*size, 3)), dtype=np.uint8) for _ in range(count)],
    )  # fmt: skip


def labels(count: int = 9) -> list[str]:
    return [f"{number / 10:.2f} s" for number in range(count)]


def test_a_row_is_a_moment_and_a_column_a_panel() -> None:
    panels = [panel("clip"), panel("teacher", size=(3, 4), seed=1), panel("student", size=(6, 8), seed=2)]
    found = sheet(panels, labels(), "", width=1200)
    assert found.shape == (40 + 4 * 240 + 4 * 4, 72 + 3 * (320 + 4), 3)
    for row, moment in enumerate((0, 3, 5, 8)):
        top = 44 + row * 244
        for column, one in enumerate(panels):
            left = 76 + column * 324
            shown = found[top : top + 240, left : left + 320]
            assert (shown == tile(one.pictures[moment], (240, 320))).all()


def test_everything_is_labelled() -> None:
    plain = [panel("", seed=1), panel("", seed=2)]
    named = [panel("clip", seed=1), panel("runs/stage2", seed=2, remark="RANDOM WEIGHTS")]
    bare = sheet(plain, [""] * 9, "", width=1200)
    told = sheet(named, labels(), "Colours: a sentence about them.", width=1200)
    changed = (told[: len(bare)] != bare).any(axis=2)
    assert changed[:20, 76:396].any()
    assert changed[:20, 400:].any()
    assert changed[20:40, 400:].any()  # the remark
    assert not changed[20:40, 76:396].any()
    assert all(changed[44 + row * 244 : 84 + row * 244, :72].any() for row in range(4))
    assert not changed[44:, 76:].any()
    assert (told[len(bare) :] < WHITE).any()


def test_a_long_name_loses_its_beginning() -> None:
    def head(name: str) -> np.ndarray:
        return sheet([panel(name)], labels(), "", width=1200)[:40]

    assert (head("x" * 300 + "/stage2") == head("x" * 200 + "/stage2")).all()
    assert (head("x" * 300 + "/stage2") != head("x" * 300 + "/stage1")).any()


def test_many_panels_become_narrow_and_never_wider_than_a_page() -> None:
    for count in (1, 2, 4, 7, 12):
        found = sheet([panel(str(number)) for number in range(count)], labels(), "A note. " * 40, width=1200)
        assert found.shape[1] <= 1200
        assert (found[:, -3:] < WHITE).any()  # nothing left over at the side


def test_the_file_is_small_whatever_it_shows(tmp_path: Path) -> None:
    noisy = [panel(name, size=(240, 320), seed=seed) for seed, name in enumerate("abcd")]
    path = write_sheet(tmp_path / "noise.png", noisy, labels(), "note")
    assert path.stat().st_size <= MOST_BYTES
    with Image.open(path) as picture:
        assert picture.width < WIDEST / 2
    calm = [Panel(caption="grey", pictures=[np.full((30, 40, 3), 99, dtype=np.uint8)] * 3)] * 4
    with Image.open(write_sheet(tmp_path / "calm.png", calm, labels(3), "")) as picture:
        assert WIDEST - 8 <= picture.width <= WIDEST


def test_patches_stay_squares_and_photographs_are_averaged() -> None:
    big = tile(np.array([[[0, 0, 0], [200, 0, 0]]], dtype=np.uint8), (4, 8))
    assert (big[:, :4] == 0).all()
    assert (big[:, 4:, 0] == 200).all()
    small = tile(np.array([[[0] * 3, [200] * 3]] * 2, dtype=np.uint8), (1, 1))
    assert small.tolist() == [[[100] * 3]]


def test_a_film_has_every_frame_at_one_size() -> None:
    shown = list(film([panel("a"), panel("b", size=(3, 4)), panel("c"), panel("d")]))
    assert len(shown) == 9
    assert {picture.shape for picture in shown} == {(2 * (240 + 40) + 4, 2 * 320 + 4, 3)}
