"""JHMDB: its layout, hostile files, and a score that is known exactly because the features are perfect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat
from small_eval import IdentityEncoder
from typer.testing import CliRunner

from frame.eval import cli
from frame.eval.data.jhmdb import JOINTS, load_jhmdb, read_positions
from frame.eval.request import Request
from frame.eval.tasks import jhmdb as task
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress

EXACT = ["rule=native", "sides=", "topk=1", "shape=none"]
PATCH, ROWS, COLUMNS = 8, 12, 16


def positions(frames: int, seed: int = 0) -> np.ndarray:
    """Joints on the middles of cells, [2, 15, T], from 0; all move by one cell to the right a frame."""
    cells = np.random.default_rng(seed).permutation(40)[:15]
    first = np.stack([2 + cells % 5, 2 + cells // 5])
    return PATCH * (first[:, :, None] + np.array([1, 0])[:, None, None] * np.arange(frames)).astype(float)


def write_clip(root: Path, name: str, frames: int, points: np.ndarray) -> None:
    """Every cell has an identity of its own, and all move by one cell a frame, around the border."""
    folder = root / "Rename_Images" / name
    folder.mkdir(parents=True, exist_ok=True)
    cells = np.arange(ROWS * COLUMNS, dtype=np.uint8).reshape(ROWS, COLUMNS)
    for number in range(frames):
        red = np.kron(np.roll(cells, number, axis=1), np.ones((PATCH, PATCH), np.uint8))[..., None]
        cv2.imwrite(str(folder / f"{number + 1:05d}.png"), np.concatenate([red * 0, red * 0, red], axis=2))
    write_mat(root, name, {"pos_img": points + 1, "scale": np.ones((1, frames))})


def write_mat(root: Path, name: str, values: dict[str, object]) -> Path:
    path = root / "joint_positions" / name / "joint_positions.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, values)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "JHMDB"
    write_clip(folder, "golf/a_golf_0", 5, positions(5))
    write_clip(folder, "wave/b_wave_0", 4, positions(4, seed=1))
    write_clip(folder, "wave/c_wave_1", 3, positions(3, seed=2))
    (folder / "splits").mkdir()
    (folder / "splits" / "golf_test_split1.txt").write_text("a_golf_0.avi 2 \n")
    (folder / "splits" / "wave_test_split1.txt").write_text("b_wave_0.avi 2\nc_wave_1.avi 1\n")
    return folder


@pytest.fixture(autouse=True)
def perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "open_encoder", lambda *_, **__: IdentityEncoder(patch=PATCH))


def evaluate(root: Path, out: Path, preset: str = "siammae", changes: list[str] = EXACT, only: tuple[str, ...] = ()):
    request = Request(data=root, encoder="perfect", out=out, preset=preset, sequences=only)
    return task.evaluate(request, changes, Progress(quiet=True))


def plain_pck(clips: list[tuple[np.ndarray, np.ndarray]], threshold: float) -> list[float]:
    """Per joint, by the definition, one joint of one frame after another. Missing predictions are None."""
    right, seen = [0] * 15, [0] * 15
    for pred, true in clips:
        for frame in range(1, true.shape[2]):
            here = [joint for joint in range(15) if pred[0, joint, frame] >= 0]
            corners = true[:, here, frame]
            box = 0.6 * float(np.hypot(*(corners.max(axis=1) - corners.min(axis=1))))
            for joint in here:
                seen[joint] += 1
                right[joint] += float(np.hypot(*(pred[:, joint, frame] - true[:, joint, frame]))) / box <= threshold
    return [r / s if s else float("nan") for r, s in zip(right, seen, strict=True)]


@pytest.mark.parametrize("preset", ["siammae", "crw"])
def test_perfect_features_follow_every_joint(root: Path, tmp_path: Path, preset: str) -> None:
    result = evaluate(root, tmp_path / "out", preset, [*EXACT, "best=5"])
    assert result.scores == {"PCK@0.1": 1.0, "PCK@0.2": 1.0}
    assert [item["name"] for item in result.items] == list(JOINTS)
    assert result.data["clips"] == 2
    assert result.data["frames"] == 9
    assert any(note.startswith("0 of 105 joints were not found") for note in result.notes)


def test_the_score_is_that_of_the_definition_where_truth_and_prediction_part(root: Path, tmp_path: Path) -> None:
    drift = np.arange(15)[None, :, None] * np.arange(5)[None, None, :] * np.array([0.45, -0.3])[:, None, None]
    truth = {"golf/a_golf_0": (positions(5), drift), "wave/b_wave_0": (positions(4, seed=1), 1.4 * drift[:, :, :4])}
    clips = []
    for name, (pred, moved) in truth.items():
        write_mat(root, name, {"pos_img": pred + moved + 1})
        clips.append((pred, pred + moved))
    result = evaluate(root, tmp_path / "out")
    for threshold in (0.1, 0.2):
        wanted = plain_pck(clips, threshold)
        assert [item[f"PCK@{threshold}"] for item in result.items] == pytest.approx(wanted, abs=1e-12)
        assert result.scores[f"PCK@{threshold}"] == pytest.approx(np.mean(wanted), abs=1e-12)
    assert 0.2 < result.scores["PCK@0.1"] < result.scores["PCK@0.2"] < 1


def test_a_joint_outside_the_first_frame_is_left_out_and_said(root: Path, tmp_path: Path) -> None:
    points = positions(5)
    points[:, 3, 0] = -500
    write_mat(root, "golf/a_golf_0", {"pos_img": points + 1})
    result = evaluate(root, tmp_path / "out", only=("golf",))
    assert "PCK@0.1" not in result.items[3]
    assert result.scores["PCK@0.1"] == 1.0
    assert any("4 of 60 joints were not found" in note for note in result.notes)
    assert any("Never found" in note and JOINTS[3] in note for note in result.notes)


@pytest.mark.parametrize("frames", [3, 7])
def test_more_frames_than_joints_or_fewer_are_cut_to_the_shorter(root: Path, tmp_path: Path, frames: int) -> None:
    write_mat(root, "golf/a_golf_0", {"pos_img": positions(frames) + 1})
    result = evaluate(root, tmp_path / "out", only=("a_golf_0",))
    assert result.data["frames"] == min(frames, 5)
    assert result.scores["PCK@0.1"] == 1.0
    assert any("cut to the shorter" in note for note in result.notes)


def test_clips_of_one_frame_score_nothing(root: Path, tmp_path: Path) -> None:
    write_clip(root, "wave/b_wave_0", 1, positions(1))
    for path in sorted((root / "Rename_Images/wave/b_wave_0").iterdir())[1:]:
        path.unlink()
    whole = evaluate(root, tmp_path / "out")
    assert whole.scores == evaluate(root, tmp_path / "out", only=("golf",)).scores
    assert any("1 clips of one frame" in note for note in whole.notes)
    with pytest.raises(InputError, match="nothing to score"):
        evaluate(root, tmp_path / "out", only=("b_wave_0",))


@pytest.mark.parametrize("turned", [False, True])
def test_lists_of_paths_come_before_the_official_ones(root: Path, turned: bool) -> None:
    parts = ["/there/JHMDB/joint_positions/wave/c_wave_1/joint_positions.mat", "/x/Rename_Images/wave/c_wave_1"]
    (root / "testlist_split1.txt").write_text(" ".join(reversed(parts) if turned else parts) + "\n")
    data = load_jhmdb(root)
    assert [clip.name for clip in data.clips] == ["wave/c_wave_1"]
    assert [path.name for path in data.clips[0].pictures] == ["00001.png", "00002.png", "00003.png"]
    assert data.lists == (root / "testlist_split1.txt",)


def test_frames_come_in_the_order_of_their_numbers_and_the_other_folder_name_is_known(root: Path) -> None:
    (root / "Rename_Images").rename(root / "Frames")
    folder = root / "Frames" / "golf" / "a_golf_0"
    for path in folder.iterdir():
        path.rename(folder / f"{10 * int(path.stem) - 2}.png")
    (folder / "thumbs.png").write_bytes(b"")
    (clip,) = load_jhmdb(root, ["golf"]).clips
    assert [path.name for path in clip.pictures] == ["8.png", "18.png", "28.png", "38.png", "48.png"]


def test_positions_count_from_zero(root: Path) -> None:
    assert np.array_equal(read_positions(root / "joint_positions/golf/a_golf_0/joint_positions.mat"), positions(5))


def listed(root: Path, text: str) -> None:
    (root / "splits" / "golf_test_split1.txt").write_text(text)


def mat(root: Path, data: bytes) -> None:
    (root / "joint_positions/golf/a_golf_0/joint_positions.mat").write_bytes(data)


def cut(root: Path) -> None:
    path = root / "joint_positions/golf/a_golf_0/joint_positions.mat"
    path.write_bytes(path.read_bytes()[:-300])


def points(root: Path, values: object) -> None:
    write_mat(root, "golf/a_golf_0", {"pos_img": values})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "Rename_Images").rename(root / "r"), "no folder of JHMDB[\\s\\S]*Rename_Images"),
        (lambda root: (root / "joint_positions").rename(root / "j"), "no joint_positions"),
        (lambda root: [path.unlink() for path in (root / "splits").iterdir()], "no list of JHMDB"),
        (lambda root: listed(root, "a_golf_0.avi 3\n"), "expected 'CLIP.avi 1'"),
        (lambda root: listed(root, "a_golf_0.avi 2\na_golf_0.avi 2\n"), "listed twice"),
        (lambda root: listed(root, "../../etc.avi 2\n"), "out of its folder"),
        (lambda root: listed(root, "nothing.avi 2\n"), "files of joints are missing[\\s\\S]*golf/nothing"),
        (lambda root: (root / "testlist_split1.txt").write_text("word\n"), "ends in ACTION/CLIP"),
        (lambda root: (root / "Rename_Images/golf/a_golf_0").rename(root / "away"), "no frames[\\s\\S]*no such folder"),
        (lambda root: mat(root, b""), "cannot be read"),
        (lambda root: mat(root, b"MATLAB 7.3 MAT-file" + b" " * 105 + b"\x00\x02IM" + bytes(200)), "cannot be read"),
        (lambda root: mat(root, bytes(range(256)) * 40), "cannot be read"),
        (cut, "cannot be read"),
        (lambda root: write_mat(root, "golf/a_golf_0", {"pos": 1}), "it has no pos_img"),
        (lambda root: points(root, positions(5)[:, :14]), "not as JHMDB has them"),
        (lambda root: points(root, positions(5)[:, :, 0]), "not as JHMDB has them"),
        (lambda root: points(root, {"deep": 1}), "not as JHMDB has them"),
        (lambda root: points(root, np.full((2, 15, 5), "x")), "not as JHMDB has them"),
        (lambda root: points(root, np.full((2, 15, 5), np.nan)), "not all finite"),
        (lambda root: (root / "Rename_Images/golf/a_golf_0/00002.png").write_bytes(b"x"), "picture cannot be read"),
    ],
)
def test_refusals_name_what_is_wrong(root: Path, tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(root)
    with pytest.raises(InputError, match=said):
        evaluate(root, tmp_path / "out")


def test_an_unknown_clip_and_a_preset_without_joints_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such clips or actions[\s\S]*jogging"):
        evaluate(root, tmp_path / "out", only=("jogging",))
    with pytest.raises(InputError, match="not defined for jhmdb"):
        evaluate(root, tmp_path / "out", "dino", [])


def test_the_command_writes_a_result_and_pictures(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["jhmdb", "--data", str(root), "--encoder", "perfect", "--out", str(out)]
    ran = CliRunner().invoke(cli.app, [*arguments, *(part for change in EXACT for part in ("--set", change))])
    assert ran.exit_code == 0, ran.output
    stored = json.loads((out / "result.json").read_text())
    assert stored["scores"]["PCK@0.1"] == 1.0
    assert [(out / name).is_file() for name in stored["pictures"]] == [True, True]
