"""DAVIS's layout: which sequences, which frames count, and what is said of what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frame.eval.data.davis import load_davis
from frame.eval.propagate.images import write_mask
from frame.manifests.errors import InputError

HEIGHT, WIDTH = 12, 20


def write_sequence(root: Path, name: str, masks: list[np.ndarray | None], *, grey: bool = False) -> None:
    """Black pictures with these masks; None is a frame without one."""
    pictures, annotations = root / "JPEGImages" / "480p" / name, root / "Annotations" / "480p" / name
    for folder in (pictures, annotations):
        folder.mkdir(parents=True, exist_ok=True)
    for number, mask in enumerate(masks):
        Image.new("RGB", (WIDTH, HEIGHT)).save(pictures / f"{number:05d}.jpg")
        if mask is None:
            continue
        if grey:
            Image.fromarray(mask).save(annotations / f"{number:05d}.png")
        else:
            write_mask(annotations / f"{number:05d}.png", mask)


def ids(*values: int) -> np.ndarray:
    """A map with a block of each id, beside each other."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for place, value in enumerate(values):
        mask[2:8, 4 * place : 4 * place + 3] = value
    return mask


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two sequences of 2017 in another order than that of the alphabet, and a third that is in no list."""
    write_sequence(tmp_path, "walk", [ids(1, 2), ids(1, 2), None, ids(2, 1), ids(1, 255)])
    write_sequence(tmp_path, "cars", [ids(1), ids(1), ids(1)])
    write_sequence(tmp_path, "train-only", [ids(3)])
    lists = tmp_path / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("walk\ncars\n\n")
    return tmp_path


def test_the_list_says_which_sequences(davis: Path) -> None:
    data = load_davis(davis)
    assert (data.year, data.source) == ("2017", "ImageSets/2017/val.txt")
    assert [one.name for one in data.sequences] == ["walk", "cars"]
    walk = data.sequences[0]
    assert [path.name for path in walk.pictures] == [f"{number:05d}.jpg" for number in range(5)]
    assert walk.scored == (1, 3)
    assert walk.truth(2) is None
    last = walk.truth(4)
    assert last is not None
    assert np.unique(last).tolist() == [0, 1, 255]
    assert data.sequences[1].scored == (1,)


def test_only_some_or_all_without_a_list(davis: Path) -> None:
    assert [one.name for one in load_davis(davis, ["train-only", "cars"]).sequences] == ["train-only", "cars"]
    (davis / "ImageSets" / "2017" / "val.txt").unlink()
    data = load_davis(davis)
    assert [one.name for one in data.sequences] == ["cars", "train-only", "walk"]
    assert "no list" in data.source


def test_masks_of_0_and_255_are_2016(tmp_path: Path) -> None:
    write_sequence(tmp_path, "libby", [ids(255), ids(255), ids(255)], grey=True)
    write_sequence(tmp_path, "empty", [ids(), ids(255)], grey=True)
    data = load_davis(tmp_path)
    assert data.year == "2016"
    assert np.array_equal(data.sequences[1].first(), ids(1))
    with pytest.raises(InputError, match="masks of DAVIS-2016"):
        load_davis(tmp_path, year="2017")
    # The list of pairs, as 2016 had it; that of 2017 beside it is another one's.
    for folder, text in (("480p", "/JPEGImages/480p/libby/00000.jpg /Annotations/480p/libby/00000.png\n" * 2),
                         ("2017", "empty\nlibby\n")):  # fmt: skip
        (tmp_path / "ImageSets" / folder).mkdir(parents=True)
        (tmp_path / "ImageSets" / folder / "val.txt").write_text(text)
    assert [one.name for one in load_davis(tmp_path).sequences] == ["libby"]


def test_2017_as_2016_has_one_object(davis: Path) -> None:
    data = load_davis(davis, ["walk"], year="2016")
    assert np.array_equal(data.sequences[0].first(), ids(1, 1))
    last = data.sequences[0].truth(4)
    assert last is not None
    assert np.array_equal(last, ids(1, 255))


def test_the_digest_is_that_of_what_is_used(davis: Path) -> None:
    before = load_davis(davis).to_json()
    assert (before["sequences"], before["frames"]) == (2, 8)
    write_sequence(davis, "train-only", [ids(2)])
    assert load_davis(davis).to_json() == before
    write_sequence(davis, "cars", [ids(1), ids(), ids(1)])
    assert load_davis(davis).to_json()["digest"] != before["digest"]


def remove_masks(root: Path) -> None:
    for path in (root / "Annotations").rglob("*.png"):
        path.unlink()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "Annotations").rename(root / "Masks"), "no Annotations/480p"),
        (lambda root: (root / "ImageSets/2017/val.txt").write_text("cars\nmissing\n"), "missing"),
        (lambda root: (root / "ImageSets/2017/val.txt").write_text("\n"), "list of sequences is empty"),
        (lambda root: (root / "ImageSets/2017/val.txt").write_text("../../etc\n"), "no sequence|leads out|missing"),
        (lambda root: (root / "ImageSets/2017/val.txt").write_text("..\n"), "leads out"),
        (lambda root: (root / "Annotations/480p/walk/00000.png").unlink(), "first frame of a sequence has no mask"),
        (lambda root: (root / "JPEGImages/480p/walk/00003.jpg").unlink(), "Pictures of annotated frames are missing"),
        (lambda root: (root / "Annotations/480p/cars/00000.png").write_bytes(b"PNG"), "mask cannot be read"),
        (remove_masks, "no masks"),
    ],
)  # fmt: skip
def test_says_what_is_missing(davis: Path, break_it: object, message: str) -> None:
    assert callable(break_it)
    break_it(davis)
    with pytest.raises(InputError, match=message):
        load_davis(davis)


@pytest.mark.parametrize("name", ["..", "/etc", "a/b", "a/../../b", "no-such-sequence"])
def test_names_stay_in_the_folder(davis: Path, name: str) -> None:
    with pytest.raises(InputError):
        load_davis(davis, [name])
