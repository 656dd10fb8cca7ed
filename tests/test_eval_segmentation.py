"""Linear segmentation from frames to a result: the right input for each label, scores, notes, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from frame.eval.commands.segmentation import camvid, vspw
from frame.eval.encoder import EncoderInfo, Picture
from frame.eval.result import Result, read_result
from frame.eval.segment.feature_store import FeatureStore
from frame.eval.segment.head_training import HeadRecipe
from frame.eval.segment.labelled_clip import LabelledClip, SegmentationData
from frame.eval.segment.linear_segmentation import Predicted, SegmentationSettings, linear_segmentation, resized_labels
from frame.eval.segment.segmentation_scores import DeltaScores
from frame.eval.tasks.segmentation import HeadOptions, parse_deltas, parse_first, parse_size, segmentation_result
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.model import Tokens

QUIET = Progress(quiet=True)
CYCLE = 5  # a frame's picture and label say its number modulo this
STEP = 40  # grey levels between pictures
PATCH = 4


class GreyEncoder:
    """Each patch token is one-hot of the patch's grey: all that a linear head needs."""

    def __init__(self) -> None:
        self.info = EncoderInfo(
            name="grey", kind="test", model="grey", patch=PATCH, width=CYCLE, mean=(0, 0, 0), std=(1, 1, 1), memory=0,
            weights="none", digest="grey",
        )  # fmt: skip
        self.device = torch.device("cpu")
        self.seen = 0

    def stream(self, frames: Iterable[Picture], *, std: object = None) -> Iterator[Tokens]:
        assert std is None
        for frame in frames:
            self.seen += 1
            ids = torch.from_numpy(frame[::PATCH, ::PATCH, 0] // STEP).long()
            patches = torch.nn.functional.one_hot(ids, CYCLE).float()
            yield Tokens(cls=patches.mean(dim=(0, 1)), patches=patches)

    def semantic(self, cls_TD: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def picture(number: int) -> Picture:
    return np.full((9, 12, 3), STEP * (number % CYCLE), np.uint8)


def label(number: int) -> np.ndarray:
    ids = np.full((9, 12), number % CYCLE, np.uint8)
    ids[0, 0] = 255
    return ids


def clip_of(name: str, numbers: Sequence[int], labelled: Sequence[int]) -> LabelledClip:
    return LabelledClip(
        name=name, numbers=numbers, labelled=labelled, pictures=lambda asked: map(picture, asked), label=label
    )


def data_of(root: Path, train: Sequence[LabelledClip], test: Sequence[LabelledClip]) -> SegmentationData:
    return SegmentationData(
        root=root, train=train, test=test, classes=tuple("abcde"), source="Made by the test.", files=[], facts={}
    )


RECIPE = HeadRecipe(iterations=120, warmup=4, batch=8, lr=0.05)
SETTINGS = SegmentationSettings(classes=tuple("abcde"), deltas=(2, 3), recipe=RECIPE)
TRAIN = [clip_of("train", range(30), range(4, 30))]
TEST = [clip_of("test-a", range(100, 120), range(100, 120)), clip_of("test-b", range(4), [2, 3])]


def test_a_head_ahead_sees_the_frame_so_long_before(tmp_path: Path) -> None:
    """One frame too many or too few anywhere, and copying or predicting says another class."""
    seen: dict[int, list[Predicted]] = {}

    def consume(delta: int, predictions: Sequence[Predicted]) -> None:
        seen.setdefault(delta, []).extend(predictions)

    trained = linear_segmentation(TRAIN, TEST, GreyEncoder(), SETTINGS, FeatureStore(tmp_path), consume, QUIET)
    assert {delta: len(found) for delta, found in seen.items()} == {0: 22, 2: 18 + 2, 3: 17 + 1}
    for delta, found in seen.items():
        for one in found:
            assert one.source == one.target - delta
            assert (one.true == label(one.target)).all()
            assert (one.copied == one.source % CYCLE).all()
            assert (one.predicted == one.target % CYCLE).all()
    assert [one.train_frames for one in trained] == [(26, 26), (26, 26), (26, 26)]
    assert [one.test_frames for one in trained] == [(22, 22), (20, 22), (18, 22)]
    assert all(one.loss < 0.2 for one in trained)


def test_the_result_says_what_was_measured(tmp_path: Path) -> None:
    options = HeadOptions(deltas=(2,), schedule="200")
    encoder = GreyEncoder()
    found = segmentation_result(
        "made", data_of(tmp_path, TRAIN, TEST), encoder, options, out=tmp_path, progress=QUIET, convention="camvid",
        windows=(4, 30),
    )  # fmt: skip
    assert list(found.scores)[:3] == ["mIoU", "mIoU@2", "copy_last@2"]
    assert found.scores["copy_last@2"] == 0
    assert found.scores["mIoU@2"] > 0.9
    # The one pixel that keeps its label is void, and what is predicted there changes with every frame.
    assert found.scores["vc4"] == 0
    assert "vc30" not in found.scores
    assert any("long enough for vc30" in note for note in found.notes)
    assert found.notes[0] == "Made by the test."
    assert any(note.startswith("Delta 2: 26 of 26 training and 20 of 22 test labels") for note in found.notes)
    assert [item["name"] for item in found.items] == list("abcde")
    assert np.mean([item["mIoU@2"] for item in found.items]) == pytest.approx(found.scores["mIoU@2"])
    assert found.preset == "dinov2-linear-200"
    assert (found.options["iterations"], found.options["warmup"], found.options["deltas"]) == (200, 7, [0, 2])
    assert len(found.pictures) == 8
    for name in found.pictures:
        with Image.open(tmp_path / name) as image:
            assert image.height == 240
    found.write(tmp_path)
    assert read_result(tmp_path).scores == found.scores
    # Again, with nothing but the store: the same to the last bit.
    before = encoder.seen
    again = segmentation_result(
        "made", data_of(tmp_path, TRAIN, TEST), encoder, options, out=tmp_path, progress=QUIET, convention="camvid",
        windows=(4, 30),
    )  # fmt: skip
    assert encoder.seen == before
    assert again == found


def test_features_on_disk_give_what_features_in_memory_give(tmp_path: Path) -> None:
    found = []
    for room in (0, 1 << 20):
        kept: list[np.ndarray] = []
        settings = replace(SETTINGS, deltas=(0,), recipe=replace(RECIPE, iterations=5), room=room)
        losses = linear_segmentation(
            TRAIN, TEST, GreyEncoder(), settings, FeatureStore(tmp_path),
            lambda _, some, kept=kept: kept.extend(one.predicted for one in some), QUIET,
        )  # fmt: skip
        found.append((losses, np.stack(kept)))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_a_delta_that_no_frame_allows_is_refused(tmp_path: Path) -> None:
    def run(train: list[LabelledClip], test: list[LabelledClip], delta: int) -> None:
        settings = replace(SETTINGS, deltas=(delta,))
        linear_segmentation(train, test, GreyEncoder(), settings, FeatureStore(tmp_path), lambda *_: None, QUIET)

    stills = [clip_of("stills", range(0, 300, 30), range(0, 300, 30))]
    with pytest.raises(InputError, match=r"training frame has a frame 2 numbers before it(.|\n)*30, 60, 90"):
        run(stills, TEST, 2)
    with pytest.raises(InputError, match=r"test frame has a frame 40 numbers"):
        run([clip_of("long", range(99), [98])], TEST, 40)
    with pytest.raises(InputError, match=r"none but 0"):
        run([clip_of("one", [3], [3])], TEST, 1)
    with pytest.raises(InputError, match="no labelled test frames"):
        run(TRAIN, [clip_of("none", [3], [])], 0)
    with pytest.raises(InputError, match="negative"):
        run(TRAIN, TEST, -1)


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    wrong = replace(TRAIN[0], label=lambda _: np.full((9, 12), 5, np.uint8))
    with pytest.raises(InputError, match="id 5 of 5 classes"):
        linear_segmentation([wrong], TEST, GreyEncoder(), SETTINGS, FeatureStore(tmp_path), lambda *_: None, QUIET)


def test_labels_are_resized_by_the_pixels_centres() -> None:
    assert resized_labels(np.arange(9, dtype=np.uint8)[None].repeat(3, 0), (1, 3)).tolist() == [[1, 4, 7]]
    ids = label(3)
    assert resized_labels(ids, (9, 12)) is ids


def predicted(clip: LabelledClip, predicted: object, copied: object, true: object, delta: int = 1) -> Predicted:
    arrays = [np.array(ids, np.uint8) for ids in (true, predicted, copied)]
    return Predicted(clip=clip, source=5 - delta, target=5, true=arrays[0], predicted=arrays[1], copied=arrays[2])


def test_the_conventions_of_miou() -> None:
    """Of four classes 0 and 1 are labelled, 2 is predicted only, 3 is nowhere."""
    one = predicted(TRAIN[0], [[0, 2, 1, 1]], [[1, 1, 0, 0]], [[0, 0, 1, 255]])
    expected = {"camvid": (0.5 + 1) / 4, "vspw": (0.5 + 1) / 2, "present": (0.5 + 1) / 2}
    for convention, value in expected.items():
        scores = DeltaScores(4, convention)  # type: ignore[arg-type]
        scores.add([one])
        totals = scores.totals("@1")
        assert totals["mIoU@1"] == pytest.approx(value)
        assert totals["copy_last@1"] == 0
        assert totals["accuracy@1"] == pytest.approx(2 / 3)
        assert totals.get("mIoU_union@1") == (pytest.approx((0.5 + 1 + 0) / 3) if convention == "vspw" else None)
        assert np.isnan(scores.by_class("")["mIoU"][3])
        assert scores.labelled_pixels().tolist() == [2, 1, 0, 0]


def test_all_void_leaves_scores_out() -> None:
    scores = DeltaScores(2, "vspw")
    scores.add([predicted(TRAIN[0], [[0]], [[0]], [[255]], delta=0)])
    assert scores.totals("") == {}


def test_options_as_text() -> None:
    assert parse_size("360x480") == (360, 480)
    assert parse_size("native") is None
    assert parse_deltas("8, 0,2,2") == (0, 2, 8)
    assert parse_first(["0001TP=6690", "a=0"]) == {"0001TP": 6690, "a": 0}
    for parse, text in (
        (parse_size, "360"), (parse_size, "0x4"), (parse_size, "axb"), (parse_deltas, "-1"), (parse_deltas, ""),
        (parse_deltas, "1.5"), (lambda text: parse_first([text]), "0001TP"),
    ):  # fmt: skip
        with pytest.raises(InputError):
            parse(text)


def test_presets_tell_heads_and_schedules_apart() -> None:
    presets = {
        HeadOptions(head=head, schedule=schedule).preset()
        for head in ("linear", "unet")
        for schedule in ("full", "short", "7")
    }  # type: ignore[arg-type]
    assert len(presets) == 6
    assert "dinov2-linear" in presets


APP = Typer()
APP.command()(camvid)
APP.command()(vspw)
RANDOM = ["--encoder", "timm:deit_tiny_patch16_224", "--weights", "random", "--device", "cpu", "--schedule", "2"]


def run(arguments: list[str]) -> Result:
    done = CliRunner().invoke(APP, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    stored = json.loads(done.stdout)
    return Result(**{name: stored[name] for name in Result.__dataclass_fields__})


def test_camvid_from_the_command(tmp_path: Path) -> None:
    from test_eval_camvid import write

    for part, numbers in (("train", (30, 60)), ("test", (90, 120))):
        for number in numbers:
            write(tmp_path / "data", part, f"Seq05VD_f{number:05d}.png", ids=number // 30, grey=number)
    folder = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), *RANDOM, "--json"]
    found = run(["camvid", *folder, "--deltas", "30", "--size", "40x48", "--head", "unet"])
    assert {"mIoU", "mIoU@30", "copy_last@30"} <= set(found.scores)
    assert (found.task, found.preset, found.encoder["weights"]) == ("camvid", "dinov2-unet-2", "random")
    assert found.data["deltas"][1]["train_frames"] == [1, 2]
    assert found.data["deltas"][1]["test_frames"] == [2, 2]
    assert any("stills, 30 raw frames apart" in note for note in found.notes)
    assert (tmp_path / "out" / "features").is_dir()


def test_vspw_from_the_command(tmp_path: Path) -> None:
    from test_eval_vspw import write

    for video in ("one", "two"):
        for number in range(12):
            write(tmp_path, video, number, ids=3)
    (tmp_path / "train.txt").write_text("one")
    (tmp_path / "val.txt").write_text("two")
    folder = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), *RANDOM, "--json"]
    found = run(["vspw", *folder, "--size", "16x32", "--deltas", "1", "--features", str(tmp_path / "kept")])
    assert {"mIoU", "mIoU_union", "mIoU@1", "copy_last@1", "vc8", "vc8@1"} <= set(found.scores)
    assert "vc16" not in found.scores
    assert found.data["deltas"][1]["test_frames"] == [11, 12]
    assert (tmp_path / "kept").is_dir()
    assert not (tmp_path / "out" / "features").exists()
