"""Strips and films of what encoders see: from videos and folders, with masks, several encoders side by side."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from small_models import small_encoder
from small_videos import picture, write_video
from typer.testing import CliRunner

from frame.eval.cli import app
from frame.eval.present.show import FILM, SHEET, match_masks, read_clip, resized, show, weights_by_name
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress

QUIET = Progress(quiet=True)


def folder_of_frames(folder: Path, count: int = 5, first: int = 8) -> Path:
    """Frames whose numbers gain a digit, so that the order of their names as text is not theirs."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(picture(number, height=48, width=64, seed=3)).save(folder / f"{first + number}.png")
    return folder


def masks_for(folder: Path, stems: list[str], value: int = 255) -> Path:
    folder.mkdir(parents=True)
    for stem in stems:
        ids = np.zeros((24, 32), dtype=np.uint8)  # half the size of the frames
        ids[6:18, 8:24] = value
        Image.fromarray(ids).save(folder / f"{stem}.png")
    return folder


def frames_of(film: Path) -> list[np.ndarray]:
    with av.open(str(film)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_run_and_an_image_model_side_by_side_with_masks(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small_encoder().save_pretrained(run)
    frames = folder_of_frames(tmp_path / "frames")
    masks = masks_for(tmp_path / "masks", ["8", "10"])
    names = [str(run), "timm:vit_tiny_patch16_224"]
    paths = show(
        frames, encoders=names, weights=["timm:vit_tiny_patch16_224=random"], masks=masks, size=48, most=4,
        device="cpu", out=tmp_path / "out", progress=QUIET,
    )  # fmt: skip
    assert [path.name for path in paths] == [SHEET, FILM]
    sheet = np.asarray(Image.open(paths[0]))
    wide, high = (1200 - 72) // 4 - 4, 208  # four columns of four frames of 4:3, and a note below
    assert sheet.shape[1] == 72 + 4 * (wide + 4)
    assert sheet.shape[0] > 40 + 4 * (high + 4)
    film = frames_of(paths[1])
    assert len(film) == 4
    assert film[0].shape[:2] == (2 * (240 + 40) + 4, 2 * 320 + 4)
    overlays = [frame[284 + 40 :, 324:].astype(int) for frame in film]
    photos = [frame[40:280, :320].astype(int) for frame in film]
    changed = [
        np.abs(seen[:240] - photo)[80:160, 120:200].mean() > 15 for seen, photo in zip(overlays, photos, strict=True)
    ]
    assert changed == [True, False, True, False]  # frames 8 and 10 have masks, 9 and 11 have none


def test_a_video_is_read_from_its_first_frame_at_its_rate(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", frames=9, rate=12)
    clip = read_clip(video, 36, 6)
    assert (len(clip.frames), clip.total, clip.rate, clip.names) == (6, 9, 12.0, ())
    for number, frame in enumerate(clip.frames):
        expected = resized(picture(number, height=72, width=96, seed=0), 36)
        assert np.abs(frame.astype(int) - expected).mean() < 6
    masks = masks_for(tmp_path / "masks", [f"{number:03d}" for number in range(9)])
    assert [path.stem for path in match_masks(masks, clip).values()] == [f"{number:03d}" for number in range(6)]
    (masks / "008.png").unlink()
    with pytest.raises(InputError, match=r"one mask a frame(.|\n)*8 masks, 9 frames"):
        match_masks(masks, clip)


def test_masks_go_by_the_names_of_frames(tmp_path: Path) -> None:
    clip = read_clip(folder_of_frames(tmp_path / "frames"), 48, 9)
    assert clip.names == ("8.png", "9.png", "10.png", "11.png", "12.png")
    found = match_masks(masks_for(tmp_path / "masks", ["12", "9", "77"]), clip)
    assert {number: path.stem for number, path in found.items()} == {1: "9", 4: "12"}
    with pytest.raises(InputError, match="No mask belongs to a frame"):
        match_masks(masks_for(tmp_path / "other", ["a"]), clip)
    with pytest.raises(InputError, match="no masks"):
        match_masks(tmp_path / "nowhere", clip)


def test_weights_belong_to_one_encoder() -> None:
    assert weights_by_name(["a"], ["FILE=1"]) == {"a": "FILE=1"}
    assert weights_by_name(["a", "b=c"], ["b=c=x", "a=y"]) == {"a": "y", "b=c": "x"}
    assert weights_by_name(["a", "b"], []) == {"a": "", "b": ""}
    with pytest.raises(InputError, match="not clear whose"):
        weights_by_name(["a", "b"], ["FILE"])
    with pytest.raises(InputError, match="given twice"):
        weights_by_name(["a", "a"], [])


def test_a_picture_keeps_its_proportions_and_is_not_turned_over() -> None:
    image = np.zeros((30, 60, 3), dtype=np.uint8)
    image[:, 30:, 0] = 255
    for size, shape in ((15, (15, 30, 3)), (60, (60, 120, 3))):
        found = resized(image, size)
        assert found.shape == shape
        assert found[:, -1, 0].min() == 255
        assert found[:, 0].max() == 0


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    frames = folder_of_frames(tmp_path / "frames")

    def shown(source: Path = frames, encoders: tuple[str, ...] = (), size: int = 48, most: int = 4) -> None:
        show(
            source, encoders=encoders, weights=["random"] if encoders else [], size=size, most=most, device="cpu",
            out=tmp_path / "out", progress=QUIET,
        )  # fmt: skip

    with pytest.raises(InputError, match="nothing to show"):
        shown()
    with pytest.raises(InputError, match="smaller than one patch"):
        shown(encoders=("timm:vit_tiny_patch16_224",), size=12)
    with pytest.raises(InputError, match="nothing to show"):
        shown(encoders=("timm:vit_tiny_patch16_224",), most=0)
    with pytest.raises(InputError, match=r"cannot be read(.|\n)*missing"):
        shown(source=tmp_path / "nowhere.mp4", encoders=("timm:vit_tiny_patch16_224",))
    assert not (tmp_path / "out").exists()


def test_the_command_wants_one_source(tmp_path: Path) -> None:
    frames = folder_of_frames(tmp_path / "frames")
    masks = masks_for(tmp_path / "masks", ["8"], value=3)
    out = tmp_path / "out"
    none = CliRunner().invoke(app, ["show", "--masks", str(masks), "--out", str(out)])
    assert "--video FILE or --frames DIR" in str(none.exception)
    done = CliRunner().invoke(app, ["show", "--frames", str(frames), "--masks", str(masks), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.output.split() == [str(out / SHEET), str(out / FILM)]
    assert len(frames_of(out / FILM)) == 5
