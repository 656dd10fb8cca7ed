from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from official_davis import plain_folder, plain_statistics
from PIL import Image

from frame.eval.metrics.mask_folders import score_folders
from frame.manifests.errors import InputError


def write(folder: Path, ids: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, each in enumerate(ids):
        image = Image.fromarray(each)
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759)
        image.save(folder / f"{number:05d}.png", bits=8)


def moving(frames: int, *, seed: int) -> np.ndarray:
    ids = np.zeros((frames, 70, 90), dtype=np.uint8)
    for t in range(frames):
        ids[t, 10 + t : 30 + t, 5 + seed : 40 + seed], ids[t, 40:60, 3 * t : 3 * t + 25] = 1, 2
    return ids


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Annotations, and predictions: the annotations of the frame before."""
    for seed, name in enumerate(["bear", "cat"]):
        ids = moving(7 + seed, seed=seed)
        write(tmp_path / "true" / name, ids)
        write(tmp_path / "pred" / name, ids[[0, *range(len(ids) - 1)]])
    return tmp_path / "pred", tmp_path / "true"


@pytest.mark.parametrize("binary", [False, True])
def test_a_folder_scores_as_in_the_plain_loop(folders: tuple[Path, Path], binary: bool) -> None:
    ours, plain = score_folders(*folders, binary=binary), plain_folder(*folders, binary=binary)
    assert list(ours) == ["bear", "cat"]
    for name, objects in ours.items():
        assert len(objects) == len(plain[name]) == (1 if binary else 2)
        for scores, (j, f) in zip(objects, plain[name], strict=True):
            assert (scores.j.mean, scores.j.recall, scores.j.decay) == pytest.approx(plain_statistics(j), abs=1e-12)
            assert (scores.f.mean, scores.f.recall, scores.f.decay) == pytest.approx(plain_statistics(f), abs=1e-12)


def test_chosen_sequences_in_their_order(folders: tuple[Path, Path]) -> None:
    assert list(score_folders(*folders, ["cat", "bear"])) == ["cat", "bear"]


def test_the_first_and_the_last_prediction_are_not_needed(folders: tuple[Path, Path]) -> None:
    pred, true = folders
    before = score_folders(pred, true)
    (pred / "bear" / "00000.png").unlink()
    (pred / "bear" / "00006.png").unlink()
    assert score_folders(pred, true) == before


def test_what_is_missing_or_wrong_is_named(folders: tuple[Path, Path]) -> None:
    pred, true = folders
    with pytest.raises(InputError, match=r"no annotations(.|\n)*dog(.|\n)*no such folder"):
        score_folders(pred, true, ["dog"])
    with pytest.raises(InputError, match="no sequences of masks"):
        score_folders(pred, true / "none")
    Image.fromarray(np.full((70, 90), 3, dtype=np.uint8)).save(pred / "cat" / "00003.png")
    with pytest.raises(InputError, match=r"00003\.png\n.*id 3, but the ids end at 2"):
        score_folders(pred, true)
    (pred / "cat" / "00003.png").unlink()
    with pytest.raises(InputError, match=r"00003\.png\n.*no such file"):
        score_folders(pred, true)
