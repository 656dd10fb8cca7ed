"""VIP: its layout, what is missing in it, and a score that is known exactly because the features are perfect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from small_eval import IdentityEncoder
from typer.testing import CliRunner

from frame.eval import cli
from frame.eval.data.vip import CLASSES, load_vip
from frame.eval.request import Request
from frame.eval.tasks import vip as task
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress

# One token a pixel and the single best key: labels go with identities exactly.
EXACT = ["rule=native", "sides=", "topk=1", "resized_as=uint8"]
HEIGHT, WIDTH = 12, 16


def ids_of(*blocks: tuple[int, int, int]) -> np.ndarray:
    """A map with a 4 x 5 block of each (id, top, left)."""
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for value, top, left in blocks:
        ids[top : top + 4, left : left + 5] = value
    return ids


def write_frame(root: Path, video: str, number: int, ids: np.ndarray, *, seen: np.ndarray | None = None) -> None:
    """A map, and a picture whose red tells the encoder what it sees (the map itself if nothing else is said)."""
    picture, labels = root / "Images" / video, root / "Annotations" / "Category_ids" / video
    picture.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    red = (ids if seen is None else seen)[..., None]
    cv2.imwrite(str(picture / f"{number:012d}.png"), np.concatenate([red * 0, red * 0, red], axis=2))
    Image.fromarray(ids).save(labels / f"{number:012d}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two videos: parts that move; and one in which something new comes that looks like the background."""
    folder = tmp_path / "VIP_Fine"
    for number, left in enumerate((0, 3, 7)):
        write_frame(folder, "videos7", 1 + 25 * number, ids_of((4, 1, left), (13, 6, left + 2)))
    write_frame(folder, "videos12", 1, ids_of((2, 2, 2)))
    later = ids_of((2, 3, 2), (9, 7, 9))
    later[0, :3] = 255
    write_frame(folder, "videos12", 26, later, seen=ids_of((2, 3, 2)))
    (folder / "lists").mkdir()
    (folder / "lists" / "val_videos.txt").write_text("videos7\nvideos12\n\n")
    return folder


@pytest.fixture(autouse=True)
def perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "open_encoder", lambda *_, **__: IdentityEncoder(patch=1))


def evaluate(root: Path, out: Path, preset: str = "siammae", changes: list[str] = EXACT, only: tuple[str, ...] = ()):
    request = Request(data=root, encoder="perfect", out=out, preset=preset, sequences=only)
    return task.evaluate(request, changes, Progress(quiet=True))


def plain_miou(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    hits, unions = [0] * 20, [0] * 20
    for pred, true in pairs:
        for p, t in zip(pred.reshape(-1).tolist(), true.reshape(-1).tolist(), strict=True):
            if t == 255:
                continue
            hits[t] += p == t
            unions[t] += 1
            unions[p] += p != t
    return float(np.mean([hit / union for hit, union in zip(hits, unions, strict=True) if union]))


@pytest.mark.parametrize("preset", ["siammae", "crw", "uvc"])
def test_perfect_features_give_the_score_that_a_loop_over_pixels_gives(root: Path, tmp_path: Path, preset: str) -> None:
    changes = [*EXACT, *(["minmax=none", "colour=rgb", "temperature=0.001"] if preset == "uvc" else [])]
    result = evaluate(root, tmp_path / "out", preset, changes)
    pairs = []
    for video in load_vip(root).videos:
        for mask in video.masks:
            true = np.asarray(Image.open(mask))
            # What the first frame does not show is never predicted; the new part looks like the background.
            pred = np.where(np.isin(true, (9, 255)), 0, true)
            pairs.append((pred, true))
    assert result.scores["mIoU"] == pytest.approx(plain_miou(pairs), abs=1e-12)
    assert result.scores["mIoU"] < 1
    by_name = {item["name"]: item for item in result.items}
    assert by_name["hair"]["mIoU"] == by_name["face"]["mIoU"] == 1.0
    assert by_name["gloves"]["mIoU"] == 0.0
    assert "mIoU" not in by_name["skirt"]
    assert [item["name"] for item in result.items] == list(CLASSES)
    assert result.data["videos"] == 2
    assert result.data["frames"] == 5
    assert "+" in result.preset  # the knobs that were changed


def test_the_first_frame_counts_as_each_reference_writes_it(tmp_path: Path) -> None:
    """With cells of 8 pixels CRW's map of the first frame comes back coarser than it went; UVC keeps the given one."""
    root = tmp_path / "vip"
    ids = np.zeros((32, 48), dtype=np.uint8)
    ids[:7, :13] = 4  # no whole number of cells
    write_frame(root, "v", 1, ids)
    coarse = [*EXACT[:2], "topk=1"]

    def opened(*_: object, **__: object) -> IdentityEncoder:
        return IdentityEncoder(patch=8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "open_encoder", opened)
        exact = evaluate(root, tmp_path / "a", "uvc", [*coarse, "colour=rgb"], only=("v",))
        crw = evaluate(root, tmp_path / "b", "crw", coarse, only=("v",))
    assert exact.scores["mIoU"] == 1.0
    small = cv2.resize(np.stack([ids == 0, ids == 4], axis=-1).astype(np.float32), (6, 4))
    back = np.where(cv2.resize(small, (48, 32)).argmax(-1) == 1, 4, 0)
    assert crw.scores["mIoU"] == pytest.approx(plain_miou([(back, ids)]), abs=1e-12)
    assert crw.scores["mIoU"] < 1


def test_predictions_come_to_the_size_of_each_map(root: Path, tmp_path: Path) -> None:
    path = root / "Annotations" / "Category_ids" / "videos7" / f"{26:012d}.png"
    Image.open(path).resize((WIDTH * 2, HEIGHT * 2), Image.Resampling.NEAREST).save(path)
    result = evaluate(root, tmp_path / "out", only=("videos7",))
    assert result.scores["mIoU"] == 1.0


def test_pictures_without_a_map_are_left_aside_and_said(root: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(root / "Images" / "videos7" / f"{2:012d}.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    result = evaluate(root, tmp_path / "out", only=("videos7",))
    assert result.scores["mIoU"] == 1.0
    assert any("1 pictures without a map" in note for note in result.notes)


def test_other_layouts_and_lists_are_read(root: Path) -> None:
    (root / "Annotations" / "Category_ids").rename(root / "Category_ids")
    listed = root / "lists" / "val_videos.txt"
    listed.write_text("datasets/VIP/Images/videos12 datasets/VIP/Annotations/Category_ids/videos12\n")
    (video,) = load_vip(root).videos
    assert video.name == "videos12"
    assert [path.stem for path in video.masks] == [f"{1:012d}", f"{26:012d}"]


def test_frames_are_in_the_order_of_their_numbers(root: Path) -> None:
    for folder in ("Images", "Annotations/Category_ids"):
        for number in (1, 26, 51):
            path = root / folder / "videos7" / f"{number:012d}.png"
            path.rename(path.with_name(f"{number}.png"))
    (video,) = load_vip(root, ["videos7"]).videos
    assert [path.name for path in video.pictures] == ["1.png", "26.png", "51.png"]


def spoil_list(root: Path, text: str) -> None:
    (root / "lists" / "val_videos.txt").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "Images").rename(root / "images2"), "no folder of VIP[\\s\\S]*no Images"),
        (lambda root: (root / "Annotations").rename(root / "a2"), "no Annotations/Category_ids or Category_ids"),
        (lambda root: spoil_list(root, "videos7\nvideos7\n"), "listed twice"),
        (lambda root: spoil_list(root, "\n"), "list of videos is empty"),
        (lambda root: spoil_list(root, "videos99\n"), "folder of a video is missing[\\s\\S]*videos99"),
        (lambda root: spoil_list(root, "..\n"), "out of its folder"),
        (lambda root: (root / "lists" / "val_videos.txt").unlink(), "list cannot be read"),
        (lambda root: (root / "Images" / "videos7" / f"{26:012d}.png").unlink(), "annotated frames are missing"),
        (
            lambda root: [path.unlink() for path in (root / "Annotations/Category_ids/videos7").iterdir()],
            "no maps of body parts",
        ),
        (lambda root: write_frame(root, "videos7", 1, ids_of((20, 0, 0))), "ids that are no body parts[\\s\\S]*20"),
        (
            lambda root: (root / "Annotations/Category_ids/videos7" / f"{26:012d}.png").write_bytes(b"no picture"),
            "mask cannot be read",
        ),
        (
            lambda root: (root / "Images/videos12" / f"{26:012d}.png").write_bytes(b"no picture"),
            "picture cannot be read",
        ),
    ],
)
def test_refusals_name_what_is_wrong(root: Path, tmp_path: Path, spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    spoil(root)
    with pytest.raises(InputError, match=said):
        evaluate(root, tmp_path / "out")


def test_a_preset_that_does_not_define_vip_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not defined for vip"):
        evaluate(root, tmp_path / "out", "vfs", [])


def test_nothing_labelled_is_refused(tmp_path: Path) -> None:
    write_frame(tmp_path / "vip", "v", 1, np.full((HEIGHT, WIDTH), 255, np.uint8), seen=ids_of())
    with pytest.raises(InputError, match="Not one labelled pixel"):
        evaluate(tmp_path / "vip", tmp_path / "out", only=("v",))


def test_the_command_writes_a_result_and_pictures(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["vip", "--data", str(root), "--encoder", "perfect", "--out", str(out)]
    ran = CliRunner().invoke(cli.app, [*arguments, *(part for change in EXACT for part in ("--set", change))])
    assert ran.exit_code == 0, ran.output
    stored = json.loads((out / "result.json").read_text())
    assert stored["task"] == "vip"
    assert stored["options"]["topk"] == 1
    assert [(out / name).is_file() for name in stored["pictures"]] == [True, True]


def test_the_stub_is_an_encoder() -> None:
    tokens: Iterator[object] = IdentityEncoder(patch=4).stream([np.zeros((8, 12, 3), np.uint8)])
    (one,) = tokens
    assert one.patches.shape == (2, 3, 256)  # type: ignore[attr-defined]
    assert torch.equal(one.patches.sum(-1), torch.ones(2, 3))  # type: ignore[attr-defined]
