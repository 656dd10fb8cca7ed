"""DAVIS from files to a result, with an encoder that knows everything, so that scores are known."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from small_eval import IdentityEncoder
from typer.testing import CliRunner

from frame.eval import cli
from frame.eval.metrics.davis import sequence_scores
from frame.eval.propagate.images import read_mask, write_mask
from frame.eval.propagate.preset import load_preset
from frame.eval.request import Request
from frame.eval.result import Result
from frame.eval.tasks import davis as task
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress

HEIGHT, WIDTH = 24, 32
# One token a pixel and the single best key: labels go with identities exactly.
EXACT = ["rule=native", "sides=", "topk=1", "ties=cut"]


def block(value: int, left: int, *, top: int = 8) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[top : top + 9, left : left + 10] = value
    return mask


def write_frame(root: Path, name: str, number: int, mask: np.ndarray | None, *, seen: np.ndarray) -> None:
    """A picture whose red tells the encoder what it sees (PNG, so that it is exact), and a mask."""
    pictures, annotations = root / "JPEGImages" / "480p" / name, root / "Annotations" / "480p" / name
    pictures.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    red = seen[..., None]
    cv2.imwrite(str(pictures / f"{number:05d}.png"), np.concatenate([red * 0, red * 0, red], axis=2))
    if mask is not None:
        write_mask(annotations / f"{number:05d}.png", mask)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two objects that move; one frame has no mask; the masks of another frame are not what is seen there."""
    root = tmp_path / "DAVIS"
    for number in range(6):
        seen = np.maximum(block(1, number), block(2, 20 - number, top=12))
        true = {2: None, 3: np.roll(seen, 2, axis=1)}.get(number, seen)
        write_frame(root, "moves", number, true, seen=seen)
    return root


def evaluated(monkeypatch: pytest.MonkeyPatch, root: Path, out: Path, *changes: str, patch: int = 1) -> Result:
    monkeypatch.setattr(task, "open_encoder", lambda *_, **__: IdentityEncoder(patch=patch))
    request = Request(data=root, encoder="perfect", out=out)
    return task.evaluate(request, [*EXACT, *changes], Progress(quiet=True))


def test_scores_are_those_of_what_is_seen(davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    result = evaluated(monkeypatch, davis, out)
    result.write(out)
    folders = [davis / "JPEGImages/480p/moves", davis / "Annotations/480p/moves"]
    seen, true = ([cv2.imread(str(path))[..., 2] if place == 0 else read_mask(path)  # type: ignore[index]
                   for path in sorted(folder.iterdir()) if path.stem != "00002"]
                  for place, folder in enumerate(folders))  # fmt: skip
    expected = [score.to_json() for score in sequence_scores(np.stack(seen), np.stack(true))]
    assert [item["name"] for item in result.items] == ["moves/1", "moves/2"]
    for item, scores in zip(result.items, expected, strict=True):
        assert {name: item[name] for name in scores} == pytest.approx(scores)
        assert scores["J_mean"] < 1
    assert result.scores["J&F_mean"] == pytest.approx(np.mean([scores["J&F_mean"] for scores in expected]))
    assert next(iter(result.scores)) == "J&F_mean"
    assert (result.task, result.preset) == ("davis", "dino+rule=native+sides=+ties=cut+topk=1")
    assert "1 frames without a mask were propagated but not scored." in result.notes
    for number, path in enumerate(sorted((out / "masks" / "moves").iterdir())):
        assert path.name == f"{number:05d}.png"
        assert np.array_equal(read_mask(path), cv2.imread(str(folders[0] / path.name))[..., 2])  # type: ignore[index]
        with Image.open(path) as image:
            assert image.mode == "P"
    assert [Path(name).name for name in result.pictures] == ["davis-moves.png"]
    assert (out / result.pictures[0]).is_file()


def test_2016_and_void(davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """255 is the object in 2016, and background in 2017."""
    for number in range(3):
        write_frame(davis, "one", number, block(255, number), seen=block(255, number))
        void = np.maximum(block(1, number), block(255, 20, top=0))
        write_frame(davis, "void", number, void, seen=np.where(void == 255, 0, void).astype(np.uint8))
    monkeypatch.setattr(task, "open_encoder", lambda *_, **__: IdentityEncoder(patch=1))
    for name, kind in (("one", "davis2016"), ("void", "davis")):
        request = Request(data=davis, encoder="perfect", out=tmp_path / name, sequences=(name,))
        result = task.evaluate(request, EXACT, Progress(quiet=True))
        assert (result.task, result.scores["J&F_mean"]) == (kind, 1.0)
        assert np.unique(read_mask(tmp_path / name / "masks" / name / "00001.png")).tolist() == [0, 1]


def test_what_cannot_be_scored_is_said(davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame, no object, an object that is not there at first."""
    write_frame(davis, "short", 0, block(1, 3), seen=block(1, 3))
    for number in range(3):
        write_frame(davis, "nothing", number, block(0, 0), seen=block(0, 0))
        write_frame(davis, "gap", number, block(3, number), seen=block(3, number))
    result = evaluated(monkeypatch, davis, tmp_path / "out")
    notes = "\n".join(result.notes)
    assert "Without an object in the first frame, so without a score: nothing." in notes
    assert "fewer than three annotated frames: short." in notes
    assert "not in the first mask: gap/1, gap/2." in notes
    assert {"name": "short/1"} in list(result.items)
    assert (
        result.items[0]["J_mean"] == 1.0
    )  # gap/1: no one is there, and no one is seen, as the official evaluator has it
    json.dumps(result.items, allow_nan=False)
    assert (tmp_path / "out" / "masks" / "short" / "00000.png").is_file()
    request = Request(data=davis, encoder="perfect", out=tmp_path / "none", sequences=("short", "nothing"))
    with pytest.raises(InputError, match="Nothing can be scored"):
        task.evaluate(request, EXACT, Progress(quiet=True))


def test_masks_of_another_size_than_the_picture(davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result has the size of the masks; a mask of a third size is refused by its name."""
    for path in sorted((davis / "Annotations/480p/moves").iterdir()):
        write_mask(path, np.repeat(np.repeat(read_mask(path), 2, axis=0), 2, axis=1))
    result = evaluated(monkeypatch, davis, tmp_path / "out")
    assert read_mask(tmp_path / "out/masks/moves/00001.png").shape == (2 * HEIGHT, 2 * WIDTH)
    assert result.scores["J_mean"] > 0.8
    write_mask(davis / "Annotations/480p/moves/00003.png", block(1, 0))
    with pytest.raises(InputError, match=r"differ in size[\s\S]*00003.png"):
        evaluated(monkeypatch, davis, tmp_path / "out")


@pytest.mark.parametrize("preset", ["dino", "siammae", "catmae-s16", "rsp", "crw", "vfs", "uvc"])
def test_every_preset_runs(preset: str, davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "open_encoder", lambda *_, **__: IdentityEncoder(patch=14))
    request = Request(data=davis, encoder="perfect", out=tmp_path, preset=preset, sequences=("moves",))
    changes = {"fixed": ["sides=84x112"], "native": []}
    options = load_preset("davis", preset).options()
    small = [*changes.get(options["rule"], ["sides=84"]), *(["copy=48x64"] if options["copy"] else [])]
    result = task.evaluate(request, small, Progress(quiet=True))
    assert 0 <= result.scores["J&F_mean"] <= 1
    scored = (48, 64) if options["copy"] else (HEIGHT, WIDTH)
    assert read_mask(tmp_path / "masks/moves/00003.png").shape == scored
    assert any("Patches of 14" in note for note in result.notes) == (options["rule"] in ("native", "short64"))


def test_the_command(davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "open_encoder", lambda *_, **__: IdentityEncoder(patch=1))
    asked = ["davis", "--data", str(davis), "--encoder", "perfect", "--out", str(tmp_path), "--json", "--year", "2017"]
    done = CliRunner().invoke(cli.app, [*asked, *(f"--set={change}" for change in EXACT)])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["options"]["topk"] == 1
    assert json.loads((tmp_path / "result.json").read_text())["scores"] == shown["scores"]


@pytest.mark.skipif("FRAME_SHARED" not in os.environ, reason="FRAME_SHARED names no folder with real sequences")
@pytest.mark.parametrize(
    ("preset", "sequence", "j", "f"), [("dino", "blackswan", 0.8728, 0.8996), ("siammae", "libby", 0.6588, 0.8244)]
)
def test_scores_of_the_reference_scripts(preset: str, sequence: str, j: float, f: float, tmp_path: Path) -> None:
    """Real frames, a real ViT: within 0.0005, which no slip in the chain leaves (rounding before resizing moves F by
    0.0024)."""
    data = Path(os.environ["FRAME_SHARED"]) / "data"
    name = "deit_tiny_patch16_224"
    request = Request(
        data=data / "davis2016", encoder=f"timm:{name}", weights=str(data / "weights" / f"{name}.safetensors"),
        out=tmp_path, preset=preset, sequences=(sequence,), device="cpu",
    )  # fmt: skip
    scores = task.evaluate(request, (), Progress(quiet=True)).scores
    assert (scores["J_mean"], scores["F_mean"]) == pytest.approx((j, f), abs=5e-4)
