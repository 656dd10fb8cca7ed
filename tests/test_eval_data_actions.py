"""The layouts of UCF-101 and HMDB-51: every clip in its class and part, and what is wrong named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frame.eval.data.actions import label_text, load_hmdb51, load_ucf101
from frame.manifests.errors import InputError

UCF = ("ApplyEyeMakeup", "YoYo")
FILES = [f"{name}/v_{name}_g{group:02d}_c01.avi" for name in UCF for group in (1, 2, 3)]


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\r\n2 YoYo\r\n")
    for split in (1, 2, 3):
        test = [file for file in FILES if f"_g{split:02d}_" in file]
        train = [f"{file} {1 + UCF.index(file.partition('/')[0])}" for file in FILES if file not in test]
        (lists / f"trainlist0{split}.txt").write_text("\n".join(train))
        (lists / f"testlist0{split}.txt").write_text("\n".join(test))
    for file in FILES:
        (tmp_path / "UCF-101" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "UCF-101" / file).write_text("")
    return tmp_path


@pytest.fixture
def hmdb(tmp_path: Path) -> Path:
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    for name in ("brush_hair", "wave"):
        files = [f"{source}_{name}_u_{n}.avi" for source in ("#1 & (x)", "two") for n in range(2)]
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("")
        for split in (1, 2, 3):
            rows = zip(files, (1, 1, 2, 0), strict=True)
            (lists / f"{name}_test_split{split}.txt").write_text("".join(f"{file} {part} \n" for file, part in rows))
    return tmp_path


def test_ucf_splits_classes_and_groups(ucf: Path) -> None:
    data = load_ucf101(ucf, (1, 2, 3))
    assert data.classes == UCF
    assert [split.number for split in data.splits] == [1, 2, 3]
    second = data.splits[1]
    assert [clip.name for clip in second.test] == [FILES[1], FILES[4]]
    assert [clip.label for clip in second.train] == [0, 0, 1, 1]
    assert [clip.group for clip in second.test] == ["ApplyEyeMakeup/g02", "YoYo/g02"]
    assert len(data.lists) == 7


def test_hmdb_parts_and_groups(hmdb: Path) -> None:
    (split,) = load_hmdb51(hmdb, (2,)).splits
    assert [clip.name for clip in split.test] == ["brush_hair/two_brush_hair_u_0.avi", "wave/two_wave_u_0.avi"]
    assert [clip.label for clip in split.train] == [0, 0, 1, 1]
    assert {clip.group for clip in split.train} == {"brush_hair/#1 & (x)", "wave/#1 & (x)"}


def test_some_classes_only_are_numbered_anew(ucf: Path) -> None:
    data = load_ucf101(ucf, (1,), ["YoYo"])
    assert data.classes == ("YoYo",)
    assert {clip.label for clip in data.splits[0].train} == {0}
    with pytest.raises(InputError, match=r"no such classes[\s\S]*Juggling"):
        load_ucf101(ucf, (1,), ["Juggling"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ApplyEyeMakeup", "apply eye makeup"),
        ("YoYo", "yo yo"),
        ("brush_hair", "brush hair"),
        ("HandstandPushups", "handstand pushups"),
        ("TVShow2Go", "tv show2 go"),
        ("  wave  ", "wave"),
    ],
)
def test_classes_as_words(name: str, text: str) -> None:
    assert label_text(name) == text


@given(st.text(st.characters(codec="ascii"), max_size=30))
def test_words_stay_words(name: str) -> None:
    assert label_text(label_text(name)) == label_text(name)


def write(root: Path, name: str, text: str) -> None:
    (root / "ucfTrainTestlist" / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "ucfTrainTestlist").rename(root / "lists"), "3 of 3 lists of UCF-101 are missing"),
        (lambda root: (root / "ucfTrainTestlist/testlist01.txt").unlink(), "testlist01.txt"),
        (lambda root: (root / "UCF-101" / FILES[2]).unlink(), f"1 of 6 listed videos[\\s\\S]*{FILES[2]}"),
        (lambda root: write(root, "classInd.txt", "0 ApplyEyeMakeup\n1 YoYo\n"), "expected '1 CLASS'"),
        (lambda root: write(root, "classInd.txt", "1 YoYo\n2 YoYo\n"), "each class once"),
        (lambda root: write(root, "trainlist01.txt", f"{FILES[1]} 2\n"), "has the number 1"),
        (lambda root: write(root, "trainlist01.txt", "Juggling/a.avi 1\n"), "with a class of classInd.txt"),
        (lambda root: write(root, "trainlist01.txt", "../YoYo/a.avi 1\n"), "out of its folder"),
        (lambda root: write(root, "trainlist01.txt", f"{FILES[0]} 1\n"), "listed twice in split 1"),
        (lambda root: write(root, "testlist01.txt", "\n"), "no test clips"),
    ],
)
def test_ucf_refusals(ucf: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(ucf)
    with pytest.raises(InputError, match=said):
        load_ucf101(ucf, (1,))


def split_file(root: Path, name: str, text: str) -> None:
    (root / "testTrainMulti_7030_splits" / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "testTrainMulti_7030_splits").rename(root / "l"), "lists of HMDB-51 are missing"),
        (lambda root: (root / "testTrainMulti_7030_splits/wave_test_split3.txt").unlink(), "wave_test_split3.txt"),
        (lambda root: (root / "wave").rename(root / "waves"), "listed videos are missing[\\s\\S]*wave/#1"),
        (lambda root: split_file(root, "wave_test_split1.txt", "a.avi 3\n"), "expected 'FILE 0'"),
        (lambda root: split_file(root, "wave_test_split1.txt", "a.avi\n"), "expected 'FILE 0'"),
        (lambda root: split_file(root, "wave_test_split1.txt", "/a.avi 1\n"), "out of its folder"),
    ],
)
def test_hmdb_refusals(hmdb: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(hmdb)
    with pytest.raises(InputError, match=said):
        load_hmdb51(hmdb, (1, 3))
