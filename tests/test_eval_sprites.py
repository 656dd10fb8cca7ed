"""The evaluation on generated sprites: with features that know the truth it is nearly perfect, with noise it is not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import STAGE2, small_encoder
from torch import Tensor

from frame.eval.data.sprites import read_pictures, read_truth, shape_labels, sprite_clips
from frame.eval.encoder import EncoderInfo, Picture, Triple
from frame.eval.request import Request
from frame.eval.result import read_result
from frame.eval.tasks import sprites as task
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.manifests.sprites import generate_sprites
from frame.model import Tokens

PATCH = 4
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sprites") / "set"
    generate_sprites(out, clips=10, frames=6, size=64)
    return out


class Knowing:
    """An encoder whose patches say which object of which shape is there; or noise."""

    device = torch.device("cpu")

    def __init__(self, folder: Path, *, noise: bool = False) -> None:
        self.noise = noise
        self.truth = {}
        for clip in sprite_clips(folder):
            truth = read_truth(clip)
            shapes = shape_labels(truth, task.CLASSES)
            for picture, mask, shape in zip(read_pictures(clip), truth.masks, shapes, strict=True):
                self.truth[picture.tobytes()] = np.stack([mask, 16 + shape])
        self.info = EncoderInfo(
            name="knowing", kind="frame", model="x", patch=PATCH, width=32, mean=(0, 0, 0), std=(1, 1, 1), memory=0,
            weights="run", digest="noise" if noise else "truth",
        )  # fmt: skip

    def stream(self, frames: Iterable[Picture], *, std: Triple | None = None) -> Iterator[Tokens]:
        assert std == (0.228, 0.224, 0.225)
        for number, frame in enumerate(frames):
            ids = torch.from_numpy(self.truth[frame.tobytes()][:, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH]).long()
            patches = torch.nn.functional.one_hot(ids, 32).sum(dim=0).float()
            if self.noise:
                patches = torch.randn(patches.shape, generator=torch.Generator().manual_seed(number))
            yield Tokens(cls=patches.mean(dim=(0, 1)), patches=patches)

    def semantic(self, cls_TD: Tensor) -> Tensor:
        return cls_TD


def evaluated(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *, noise: bool) -> dict[str, float]:
    encoder = Knowing(folder, noise=noise)
    monkeypatch.setattr(task, "open_encoder", lambda *_, **__: encoder)
    request = Request(data=folder, encoder="knowing", out=out)
    result = task.evaluate(request, QUIET, schedule="150")
    result.write(out)
    return dict(read_result(out).scores)


def test_features_that_know_the_truth_are_nearly_perfect(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Segmentation streams without a protocol's deviation: one assertion for both would hide a difference.
    monkeypatch.setattr(task, "segmentation_result", _without_heads)
    knowing = evaluated(folder, tmp_path / "a", monkeypatch, noise=False)
    noisy = evaluated(folder, tmp_path / "b", monkeypatch, noise=True)
    assert knowing["J"] > 0.7  # the masks are known to patches of four pixels only
    assert noisy["J"] < 0.5 * knowing["J"]
    assert knowing["PCK@0.5"] > noisy["PCK@0.5"]
    stored = read_result(tmp_path / "a")
    assert stored.preset == "dino, heads"
    assert all((tmp_path / "a" / name).is_file() for name in stored.pictures)
    assert {item["name"] for item in stored.items} == {c.name for c in sprite_clips(folder) if c.split == "val"}


def _without_heads(*_: object, **__: object) -> object:
    class Nothing:
        preset = "heads"
        scores: dict[str, float] = {}  # noqa: RUF012
        options: dict[str, object] = {}  # noqa: RUF012
        notes: list[str] = []  # noqa: RUF012
        pictures: list[str] = []  # noqa: RUF012

    return Nothing()


def test_a_run_is_evaluated_from_end_to_end(folder: Path, tmp_path: Path) -> None:
    """Nothing replaced: propagation, keypoints and heads, of an encoder with a memory."""
    small_encoder(STAGE2).save_pretrained(tmp_path / "encoder")
    request = Request(data=folder, encoder=str(tmp_path / "encoder"), out=tmp_path / "out")
    result = task.evaluate(request, QUIET, schedule="10")
    result.write(tmp_path / "out")
    wanted = {"J&F", "J", "F", "PCK@0.2", "PCK@0.5", "mIoU", "mIoU@2", "copy_last@2"}
    assert wanted <= set(read_result(tmp_path / "out").scores)
    # Of six frames 0 and 4 are labelled, and only 4 has a frame two before it.
    assert any(note.startswith("Delta 2: 8 of 16 training and 2 of 4 test labels") for note in result.notes)
    assert result.preset == "dino, dinov2-linear-10"
    assert all((tmp_path / "out" / name).is_file() for name in result.pictures)


def test_labels_are_the_shapes_of_the_objects(folder: Path) -> None:
    clip = sprite_clips(folder)[0]
    truth = read_truth(clip)
    stored = json.loads(clip.truth.read_text())
    for label, mask in zip(shape_labels(truth, task.CLASSES), truth.masks, strict=True):
        for number, one in enumerate(stored["objects"], start=1):
            assert set(np.unique(label[mask == number]).tolist()) <= {task.CLASSES.index(one["shape"])}
        assert not label[mask == 0].any()


def test_named_clips_only_and_unknown_ones_refused(folder: Path) -> None:
    assert [clip.name for clip in sprite_clips(folder, ("sprite-00003",))] == ["sprite-00003"]
    with pytest.raises(InputError, match="no such clips"):
        sprite_clips(folder, ("sprite-99999",))


def test_damaged_truth_is_named(tmp_path: Path) -> None:
    generate_sprites(tmp_path / "set", clips=2, frames=3, size=32)
    first, second = sprite_clips(tmp_path / "set")
    first.masks.write_bytes(first.masks.read_bytes()[:-30])
    with pytest.raises(InputError, match=rf"(?s)truth of a clip is damaged.*{first.name}"):
        read_truth(first)
    second.truth.write_text("{}")
    with pytest.raises(InputError, match="KeyError"):
        read_truth(second)
    second.video.write_bytes(b"no video")
    with pytest.raises(InputError, match="cannot be decoded"):
        read_pictures(second)
    first.truth.unlink()
    with pytest.raises(InputError, match="has no truth"):
        sprite_clips(tmp_path / "set")


def test_a_set_of_single_frames_cannot_be_scored(tmp_path: Path) -> None:
    generate_sprites(tmp_path / "set", clips=2, frames=2, size=32)
    with pytest.raises(InputError, match="too short"):
        task.evaluate(
            Request(data=tmp_path / "set", encoder="timm:vit_tiny_patch16_224", out=tmp_path, weights="random"), QUIET
        )
