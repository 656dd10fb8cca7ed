"""VSPW's layout: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frame.eval.data.vspw import open_vspw
from frame.manifests.errors import InputError

SIZE = (6, 8)


def write(root: Path, video: str, number: int, ids: np.ndarray | int | None = 1) -> None:
    folder = root / "data" / video
    (folder / "origin").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), number, np.uint8)).save(folder / "origin" / f"{number:08d}.jpg")
    if ids is not None:
        (folder / "mask").mkdir(exist_ok=True)
        Image.fromarray(np.broadcast_to(np.uint8(ids), SIZE).copy()).save(folder / "mask" / f"{number:08d}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A training video of 20 frames, two of validation, one of test without masks."""
    for number in range(20):
        write(tmp_path, "0_train", number)
    for number in range(3, 9):
        write(tmp_path, "1_val-a", number, ids=None if number == 5 else number)
        write(tmp_path, "2_val.b", number)
        write(tmp_path, "3_test", number, ids=None)
    for part, names in (("train", ["0_train"]), ("val", ["1_val-a", "2_val.b"]), ("test", ["3_test"])):
        (tmp_path / f"{part}.txt").write_text("\n".join(names) + "\n")
    return tmp_path


def test_training_is_on_some_frames_and_testing_on_all(root: Path) -> None:
    data = open_vspw(root)
    assert [list(clip.labelled) for clip in data.train] == [[0, 7, 14]]
    assert [clip.name for clip in data.test] == ["1_val-a", "2_val.b"]
    first = data.test[0]
    assert list(first.numbers) == [3, 4, 5, 6, 7, 8]
    assert list(first.labelled) == [3, 4, 6, 7, 8]  # a frame without a mask is only a past
    assert first.pairs(2) == [(4, 6), (5, 7), (6, 8)]
    assert first.window(6, 2) == [4, 5, 6]
    assert [int(one[0, 0, 0]) for one in first.pictures([3, 8])] == [3, 8]
    assert [list(clip.labelled) for clip in open_vspw(root, train_every=9).train] == [[0, 9, 18]]
    assert len(data.classes) == 124


def test_only_what_is_read_is_digested(root: Path) -> None:
    names = {path.relative_to(root).as_posix() for path in open_vspw(root).files}
    masks = sorted(name for name in names if "0_train/mask" in name)
    assert masks == [f"data/0_train/mask/{number:08d}.png" for number in (0, 7, 14)]
    assert len([name for name in names if "0_train/origin" in name]) == 20
    assert not any("3_test" in name for name in names)


def test_ids_are_shifted(root: Path) -> None:
    ids = np.ones(SIZE)
    ids[0, :5] = 0, 1, 2, 124, 255
    write(root, "2_val.b", 3, ids=ids)
    label = open_vspw(root).test[1].label(3)
    assert label[0, :6].tolist() == [255, 0, 1, 123, 255, 0]
    assert label.dtype == np.uint8
    write(root, "2_val.b", 3, ids=125)
    with pytest.raises(InputError, match="id 125"):
        open_vspw(root).test[1].label(3)


def test_the_folder_above_will_do(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    above = tmp_path_factory.mktemp("above")
    root.rename(above / "VSPW_480p")
    assert len(open_vspw(above).test) == 2


def test_some_videos(root: Path) -> None:
    data = open_vspw(root, sequences=["2_val.b"])
    assert [clip.name for clip in data.test] == ["2_val.b"]
    assert len(data.train) == 1
    with pytest.raises(InputError, match="--sequences 0_train"):
        open_vspw(root, sequences=["0_train"])


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(InputError, match="not labelled"):
        open_vspw(root, split="test")
    (root / "data" / "1_val-a" / "origin" / "00000004.jpg").unlink()
    with pytest.raises(InputError, match="A mask has no frame"):
        open_vspw(root)
    (root / "data" / "1_val-a" / "origin").rename(root / "data" / "gone")
    with pytest.raises(InputError, match="no origin"):
        open_vspw(root)
    (root / "val.txt").unlink()
    with pytest.raises(InputError, match=r"val\.txt"):
        open_vspw(root)


@pytest.mark.parametrize("name", ["../outside", ".hidden", "a/b"])
def test_a_list_cannot_lead_elsewhere(root: Path, name: str) -> None:
    (root / "val.txt").write_text(f"{name}\n")
    with pytest.raises(InputError, match="names no video"):
        open_vspw(root)


@pytest.mark.parametrize("name", ["one.png", "00000004.PNG.png", "4.png"])
def test_other_names_are_refused(root: Path, name: str) -> None:
    (root / "data" / "1_val-a" / "mask" / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"none of VSPW|one frame number"):
        open_vspw(root)


def test_refused_options(root: Path) -> None:
    with pytest.raises(InputError, match="--train-every 0"):
        open_vspw(root, train_every=0)
    with pytest.raises(InputError, match="--split train"):
        open_vspw(root, split="train")
    (root / "val.txt").write_text("\n")
    with pytest.raises(InputError, match="no videos"):
        open_vspw(root)


def test_a_mask_of_another_size_is_refused(root: Path) -> None:
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(root / "data" / "2_val.b" / "mask" / "00000003.png")
    with pytest.raises(InputError, match="3 x 4 pixels"):
        open_vspw(root).test[1].label(3)
