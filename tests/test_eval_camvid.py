"""CamVid's layout: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frame.eval.data.camvid import CLASSES, open_camvid
from frame.eval.segment.labelled_clip import LabelledClip, SegmentationData
from frame.manifests.errors import InputError

SIZE = (12, 16)


def write(root: Path, part: str, name: str, ids: np.ndarray | int = 0, grey: int = 0) -> None:
    for folder in (part, f"{part}annot"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), grey, np.uint8)).save(root / part / name)
    Image.fromarray(np.broadcast_to(np.uint8(ids), SIZE).copy()).save(root / f"{part}annot" / name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training stills of one video and one of another; a validation still between; test stills of two."""
    for name, grey in (("0001TP_006690.png", 10), ("0001TP_006720.png", 11), ("0016E5_00630.png", 12)):
        write(tmp_path, "train", name, ids=grey - 10, grey=grey)
    write(tmp_path, "val", "0001TP_006750.png", grey=13)
    for name, grey in (("0001TP_006780.png", 14), ("Seq05VD_f00030.png", 15)):
        write(tmp_path, "test", name, ids=3, grey=grey)
    return tmp_path


def clip(data: SegmentationData, name: str, part: str = "test") -> LabelledClip:
    (found,) = (one for one in getattr(data, part) if one.name == name)
    return found


def test_frames_are_those_of_every_part_and_labels_those_of_one(root: Path) -> None:
    data = open_camvid(root)
    assert [one.name for one in data.train] == ["0001TP", "0016E5"]
    assert [one.name for one in data.test] == ["0001TP", "Seq05VD"]
    for part, labelled in (("train", [6690, 6720]), ("test", [6780])):
        found = clip(data, "0001TP", part)
        assert list(found.numbers) == [6690, 6720, 6750, 6780]
        assert list(found.labelled) == labelled
    pictures = list(clip(data, "0001TP").pictures([6690, 6750, 6780]))
    assert [int(one[0, 0, 0]) for one in pictures] == [10, 13, 14]
    assert [int(clip(data, "0001TP", "train").label(number)[0, 0]) for number in (6690, 6720)] == [0, 1]
    assert clip(data, "0001TP").pairs(30) == [(6750, 6780)]
    assert "30 raw frames apart" in data.source
    assert data.facts == {"layout": "camvid-segnet", "split": "test", "frames": "stills"}
    assert len(data.classes) == 11
    names = sorted(path.relative_to(root).as_posix() for path in data.files)
    assert len(names) == len(set(names)) == 6 + 3 + 2  # stills, and masks of the two parts


def test_void_is_left_out_and_other_ids_are_refused(root: Path) -> None:
    ids = np.full(SIZE, 10)
    ids[0, :3] = 11, 255, 0
    write(root, "test", "0001TP_006780.png", ids=ids)
    label = clip(open_camvid(root), "0001TP").label(6780)
    assert label[0, :4].tolist() == [255, 255, 0, 10]
    assert label.dtype == np.uint8
    write(root, "test", "0001TP_006780.png", ids=12)
    with pytest.raises(InputError, match="id 12"):
        clip(open_camvid(root), "0001TP").label(6780)


def test_one_part_or_some_videos_of_it(root: Path) -> None:
    (root / "valannot").rename(root / "elsewhere")
    with pytest.raises(InputError, match="missing: valannot/"):
        open_camvid(root, split="val")
    (root / "elsewhere").rename(root / "valannot")
    data = open_camvid(root, split="val")
    assert [(one.name, list(one.labelled)) for one in data.test] == [("0001TP", [6750])]
    chosen = open_camvid(root, sequences=["Seq05VD"])
    assert [one.name for one in chosen.test] == ["Seq05VD"]
    assert [one.name for one in chosen.train] == ["0001TP", "0016E5"]
    with pytest.raises(InputError, match="it has 0001TP, Seq05VD"):
        open_camvid(root, sequences=["0006R0"])
    with pytest.raises(InputError, match="test or val"):
        open_camvid(root, split="train")


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(InputError, match="train/, trainannot/, test/, testannot/"):
        open_camvid(root / "nowhere")
    (root / "testannot" / "0001TP_006780.png").unlink()
    with pytest.raises(InputError, match=r"testannot/ lacks 1, such as 0001TP_006780\.png"):
        open_camvid(root)
    (root / "test" / "0001TP_006780.png").unlink()
    (root / "train" / "0016E5_00630.png").unlink()
    with pytest.raises(InputError, match=r"train/ lacks 1, such as 0016E5_00630\.png"):
        open_camvid(root)


def test_an_empty_part_is_refused(root: Path) -> None:
    for folder in ("test", "testannot"):
        for path in (root / folder).iterdir():
            path.unlink()
    with pytest.raises(InputError, match="there are none"):
        open_camvid(root)


@pytest.mark.parametrize("name", ["0001TP.png", "9999XX_000001.png", "0001TP_one.png"])
def test_other_names_are_refused(root: Path, name: str) -> None:
    write(root, "train", name)
    with pytest.raises(InputError, match="none of CamVid"):
        open_camvid(root)


def test_one_number_twice_is_refused(root: Path) -> None:
    write(root, "train", "0001TP_f06690.png")
    with pytest.raises(InputError, match="one frame number"):
        open_camvid(root)


def test_a_mask_of_another_size_is_refused(root: Path) -> None:
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(root / "testannot" / "0001TP_006780.png")
    with pytest.raises(InputError, match="6 x 8 pixels, the picture 12 x 16"):
        clip(open_camvid(root), "0001TP").label(6780)


def test_a_memory_does_not_reach_over_a_hole(root: Path) -> None:
    for number in (9000, 9030):
        write(root, "train", f"0001TP_{number:06d}.png")
    found = clip(open_camvid(root), "0001TP", "train")
    assert found.window(6780, 5) == [6690, 6720, 6750, 6780]
    assert found.window(6780, 2) == [6720, 6750, 6780]
    assert found.window(9030, 5) == [9000, 9030]


def test_the_classes_are_segnets() -> None:
    assert CLASSES[0] == "Sky"
    assert CLASSES[3] == "Road"
    assert CLASSES[10] == "Bicyclist"
