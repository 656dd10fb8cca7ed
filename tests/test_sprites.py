"""Generated sprites: the truth is the truth of the decoded video, and a set is whole or not there."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from frame.manifests import sprites
from frame.manifests.errors import InputError
from frame.manifests.load import load_rows
from frame.manifests.sprite_draw import draw
from frame.manifests.sprite_scene import CLASSES, KEYPOINTS, OUTLINES, make_scene
from frame.manifests.sprites import generate_sprites

CLIPS, FRAMES, SIZE, RATE = 12, 26, 112, 12
Clip = tuple[NDArray[np.uint8], NDArray[np.uint8], dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "set"
    generate_sprites(out, clips=CLIPS, frames=FRAMES, size=SIZE, rate=RATE, seed=5)
    return out


@pytest.fixture(scope="module")
def clips(made: Path) -> list[Clip]:
    return [read(made, video) for video in sorted(made.glob("videos/*/*.mp4"), key=lambda video: video.stem)]


def read(out: Path, video: Path) -> Clip:
    with av.open(str(video)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    pictures = np.stack(decoded).astype(np.uint8)
    with np.load(out / "truth" / f"{video.stem}.npz") as arrays:
        masks = arrays["masks"]
    return pictures, masks, json.loads((out / "truth" / f"{video.stem}.json").read_text())


def tree(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def inner(mask: NDArray[np.bool_], steps: int = 3) -> NDArray[np.bool_]:
    """The mask without its border, where colours of two objects mix (H.264 halves the resolution of colour)."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def test_videos_are_h264_with_every_frame_at_its_time(made: Path) -> None:
    videos = sorted(made.glob("videos/*/*.mp4"))
    assert len(videos) == CLIPS
    for video in videos:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert (stream.width, stream.height) == (SIZE, SIZE)
            assert stream.average_rate is not None
            assert float(stream.average_rate) == RATE
            assert [frame.time for frame in container.decode(stream)] == pytest.approx(
                [k / RATE for k in range(FRAMES)]
            )


def test_the_decoded_pictures_are_what_was_drawn(clips: list[Clip]) -> None:
    for index in range(3):
        scene = make_scene(CLASSES[index], seed=5, index=index, frames=FRAMES, size=SIZE)
        for t, drawing in enumerate(draw(scene)):
            assert np.array_equal(drawing.mask, clips[index][1][t])
            error = np.abs(drawing.image.astype(int) - clips[index][0][t])
            assert error.mean() < 4


def test_under_each_mask_lies_the_colour_of_its_object(clips: list[Clip]) -> None:
    checked = 0
    for pictures, masks, truth in clips:
        colours = np.array([thing["colour"] for thing in truth["objects"]], dtype=float)
        for t in range(FRAMES):
            for k in range(len(colours)):
                inside = inner(masks[t] == k + 1)
                if inside.sum() < 60:
                    continue
                checked += 1
                mean = pictures[t][inside].mean(axis=0)
                # Pattern and light only darken or lighten: the hue is that of the object and of no other.
                cosines = colours @ mean / np.linalg.norm(colours, axis=1) / np.linalg.norm(mean)
                assert cosines.argmax() == k
                assert cosines[k] > 0.98
                assert 0.6 < np.linalg.norm(mean) / np.linalg.norm(colours[k]) < 1.1
    assert checked > CLIPS * FRAMES


def test_the_background_is_no_object(clips: list[Clip]) -> None:
    for pictures, masks, _ in clips:
        ground = pictures[0][inner(masks[0] == 0)].astype(float)
        saturation = (ground.max(axis=1) - ground.min(axis=1)) / ground.max(axis=1).clip(1)
        assert saturation.mean() < 0.45
        assert ground.mean(axis=1).std() > 6  # textured


def test_keypoints_that_are_seen_lie_in_their_mask(clips: list[Clip]) -> None:
    counts: Counter[bool] = Counter()
    for _, masks, truth in clips:
        for thing in truth["objects"]:
            points = np.array(thing["keypoints"])
            assert points.shape == (FRAMES, len(KEYPOINTS[thing["shape"]]), 3)
            for t in range(FRAMES):
                for x, y, seen in points[t]:
                    col, row = round(x), round(y)
                    within = 0 <= col < SIZE and 0 <= row < SIZE
                    assert bool(seen) == (within and masks[t, row, col] == thing["id"])
                    counts[bool(seen)] += 1
                if thing["hidden"][t] == 0 and thing["inside"][t] == 1:
                    assert points[t, :, 2].all()
    assert counts[False] > 100
    assert counts[True] > 5 * counts[False]


@pytest.mark.parametrize("shape", OUTLINES)
def test_every_keypoint_lies_well_inside_of_its_shape(shape: str) -> None:
    from frame.manifests.sprite_draw import _distance

    u, v = KEYPOINTS[shape].T
    assert _distance(OUTLINES[shape], u, v).max() < -0.05


def test_occlusion_is_what_the_masks_say(clips: list[Clip]) -> None:
    for _, masks, truth in clips:
        for thing in truth["objects"]:
            for t in range(FRAMES):
                seen = int((masks[t] == thing["id"]).sum())
                expected = thing["area"][t] * thing["inside"][t] * (1 - thing["hidden"][t])
                assert seen == pytest.approx(expected, abs=0.0002 * thing["area"][t] + 0.01)
    most = {truth["label"]: max(truth["objects"][0]["hidden"]) for _, _, truth in clips}
    assert most["hide"] == 1


def test_areas_are_those_of_the_shapes(clips: list[Clip]) -> None:
    for _, _, truth in clips:
        for thing in truth["objects"]:
            corners = OUTLINES[thing["shape"]]
            x, y = corners.T
            exact = np.pi if not len(corners) else abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
            radius = np.array(thing["radius"])
            assert np.array(thing["area"]) == pytest.approx(exact * radius**2, rel=0.08)
            assert radius.min() > 0.08 * SIZE  # at 224 and patch 16: more than two patches across


def test_the_camera_moves_background_and_standing_sprites_alike(clips: list[Clip]) -> None:
    moved = 0
    for pictures, masks, truth in clips:
        camera = np.array(truth["camera"])
        way = camera - camera[0]
        for thing in truth["objects"]:
            if thing["motion"] == "still":
                centre = np.array(thing["centre"])
                assert centre - centre[0] == pytest.approx(-way, abs=0.002)
        t = int(np.abs(way).max(axis=1).argmax())
        dx, dy = (round(value) for value in way[t])
        if max(abs(dx), abs(dy)) < 4:
            continue
        moved += 1
        here = (slice(max(0, -dy), SIZE - max(0, dy)), slice(max(0, -dx), SIZE - max(0, dx)))
        there = (slice(max(0, dy), SIZE + min(0, dy)), slice(max(0, dx), SIZE + min(0, dx)))
        ground = (masks[t][here] == 0) & (masks[0][there] == 0)
        aligned = np.abs(pictures[t][here].astype(int) - pictures[0][there])[ground].mean()
        unmoved = np.abs(pictures[t].astype(int) - pictures[0])[(masks[t] == 0) & (masks[0] == 0)].mean()
        assert aligned < 0.7 * unmoved
    assert moved >= 3


def test_main_sprites_stay_in_the_picture_however_long_the_clip() -> None:
    for index in range(30):
        scene = make_scene(CLASSES[index % len(CLASSES)], seed=0, index=index, frames=600, size=224)
        centre = scene.sprites[0].path.centre
        assert centre.min() > 0
        assert centre.max() < 224
        step = np.hypot(*np.diff(centre, axis=0).T)
        assert step.max() < 0.1 * 224  # no jumps


def test_more_frames_only_continue_and_size_only_magnifies() -> None:
    short, long, large = (
        make_scene("orbit", seed=1, index=2, frames=frames, size=size) for frames, size in ((9, 64), (40, 64), (9, 128))
    )
    for a, b, c in zip(short.sprites, long.sprites, large.sprites, strict=True):
        assert np.array_equal(a.path.centre, b.path.centre[:9])
        assert (a.path.centre + 0.5) * 2 == pytest.approx(c.path.centre + 0.5)
        assert (a.shape, a.colour, a.texture, a.depth) == (c.shape, c.colour, c.texture, c.depth)
    assert short.ground == long.ground == large.ground


def test_the_loader_reads_the_set(made: Path) -> None:
    rows = load_rows("sprites", made)
    assert Counter(row.label for row in rows) == dict.fromkeys(CLASSES, CLIPS // len(CLASSES))
    assert Counter(row.split for row in rows) == {"train": 10, "val": 2}
    assert all((made / row.source).is_file() for row in rows)


def test_the_same_arguments_make_the_same_bytes_and_more_clips_extend(made: Path, tmp_path: Path) -> None:
    generate_sprites(tmp_path, clips=2, frames=FRAMES, size=SIZE, rate=RATE, seed=5)
    files = {path: digest for path, digest in tree(tmp_path).items() if path != "sprites.json"}
    assert len(files) == 6
    assert files.items() <= tree(made).items()
    generate_sprites(tmp_path, clips=3, frames=FRAMES, size=SIZE, rate=RATE, seed=5)
    assert files.items() <= tree(tmp_path).items()
    assert json.loads((tmp_path / "sprites.json").read_text())["clips"] == 3


def test_seeds_differ_and_classes_can_be_chosen(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    for seed in (0, 1):
        generate_sprites(
            tmp_path / str(seed),
            clips=2,
            frames=1,
            size=32,
            seed=seed,
            classes=["spin", "hide"],
            progress=lambda k, n: done.append((k, n)),
        )
    assert done == [(1, 2), (2, 2)] * 2
    assert sorted(path.name for path in (tmp_path / "0/videos").iterdir()) == ["hide", "spin"]
    assert not set(tree(tmp_path / "0").values()) & set(tree(tmp_path / "1").values())


def test_an_interrupted_set_is_not_taken_for_a_whole_one_and_is_finished_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    generate_sprites(whole, clips=3, frames=2, size=32)
    commit = sprites._commit

    def interrupted(path: Path, data: bytes) -> str:
        if path.name == "sprite-00001.npz":
            path.with_name(f".{path.name}.tmp").write_bytes(data[:10])
            raise KeyboardInterrupt
        return commit(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(sprites, "_commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate_sprites(broken, clips=3, frames=2, size=32)
    with pytest.raises(InputError, match=r"unfinished"):
        load_rows("sprites", broken)
    generate_sprites(broken, clips=3, frames=2, size=32)
    assert tree(broken) == tree(whole)


def test_extending_that_is_interrupted_leaves_no_whole_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate_sprites(tmp_path, clips=1, frames=2, size=32)

    def stop(*_: object, **__: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(sprites, "encode", stop)
    with pytest.raises(KeyboardInterrupt):
        generate_sprites(tmp_path, clips=2, frames=2, size=32)
    assert not (tmp_path / "sprites.json").exists()


def test_damage_is_mended_and_what_is_whole_is_kept(tmp_path: Path) -> None:
    generate_sprites(tmp_path, clips=3, frames=2, size=32)
    before = tree(tmp_path)
    kept = tmp_path / "truth/sprite-00002.npz"
    stamp = kept.stat().st_mtime_ns
    video = next(tmp_path.glob("videos/*/sprite-00000.mp4"))
    video.write_bytes(video.read_bytes()[:-7])
    (tmp_path / "truth/sprite-00001.json").unlink()
    generate_sprites(tmp_path, clips=3, frames=2, size=32)
    assert tree(tmp_path) == before
    assert kept.stat().st_mtime_ns == stamp


def test_a_folder_that_is_not_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"holds no sprites"):
        generate_sprites(tmp_path, clips=1, frames=1, size=32)
    with pytest.raises(InputError, match="is a file"):
        generate_sprites(tmp_path / "thesis.tex", clips=1, frames=1, size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("other", [{"seed": 1}, {"size": 34}, {"frames": 3}, {"rate": 25}, {"clips": 1}])
def test_other_sprites_in_the_folder_are_refused(tmp_path: Path, other: dict[str, int]) -> None:
    generate_sprites(tmp_path, clips=2, frames=2, size=32)
    before = tree(tmp_path)
    with pytest.raises(InputError, match="other sprites"):
        generate_sprites(tmp_path, **{"clips": 2, "frames": 2, "size": 32, **other})  # type: ignore[arg-type]
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "bad",
    [
        {"clips": 0},
        {"frames": 0},
        {"size": 33},
        {"size": 16},
        {"rate": 0},
        {"seed": -1},
        {"classes": []},
        {"classes": ["walk"]},
        {"classes": ["spin", "spin"]},
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cannot be made"):
        generate_sprites(tmp_path / "out", **bad)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: bytes) -> str:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(sprites, "_commit", full)
    with pytest.raises(InputError, match="No space left"):
        generate_sprites(tmp_path / "out", clips=1, frames=1, size=32)


def test_a_damaged_index_is_said(tmp_path: Path) -> None:
    (tmp_path / "sprites.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        generate_sprites(tmp_path, clips=1, frames=1, size=32)
