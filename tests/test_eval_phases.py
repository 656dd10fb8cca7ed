from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_actions import register_tiny_clip
from small_models import STAGE1, small_encoder
from small_videos import write_video
from typer.testing import CliRunner

from frame.eval.cli import app
from frame.eval.data.phases import PENN_PHASES, frames, read_videos_list
from frame.eval.encoder import open_encoder
from frame.eval.metrics.alignment import kendall_tau, retrieval_precision
from frame.eval.metrics.phases import LinearRecipe, Videos, phase_accuracy, phase_progression
from frame.eval.request import Request
from frame.eval.result import Result, data_digest, read_result
from frame.eval.tasks.phases import evaluate_finegym, evaluate_penn, evaluate_pouring
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.pipeline.decode import DecodeCage

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)  # runs of other tests are compared to the bit


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a small encoder without memory."""
    folder = tmp_path_factory.mktemp("run") / "encoder"
    small_encoder(STAGE1).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of 10 frames, 224 x 240."""
    folder = tmp_path_factory.mktemp("phases")
    for number in range(4):
        write_video(folder / "videos" / f"{number}.mp4", frames=10, height=224, width=240, seed=number)
    return folder


def record(number: int, labels: list[int]) -> dict[str, object]:
    return {"name": f"v{number}", "video_file": f"videos/{number}.mp4", "frame_label": labels}


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def request(data: Path, out: Path, encoder: str, **changes: object) -> Request:
    return Request(data=data, encoder=encoder, out=out, device="cpu", **changes)  # type: ignore[arg-type]


def by_hand(videos: list[int], root: Path, labels: list[int], name: str) -> Videos:
    encoder = open_encoder(name, device="cpu")
    list_file = root / "by_hand.json"
    write(list_file, [record(number, labels) for number in videos])
    embeddings = []
    with DecodeCage() as cage:
        for video in read_videos_list(list_file, classes=99):
            cls = torch.stack([tokens.cls for tokens in encoder.stream(frames(video, cage))])
            normal = (cls / cls.norm(dim=1, keepdim=True)).numpy()
            embeddings.append(normal[np.array(labels) >= 0])
    known = np.array([label for label in labels if label >= 0])
    return Videos(embeddings=embeddings, labels=[known] * len(videos))


def test_pouring_is_what_the_metrics_say_of_the_normalised_cls_tokens(
    videos: Path, tmp_path: Path, encoder: str
) -> None:
    labels = [-1, 0, 0, 1, 1, 2, 2, 3, 4, 4]
    write(videos / "train.json", [record(0, labels), record(1, labels)])
    write(videos / "val.json", [record(2, labels), record(3, labels)])
    result = evaluate_pouring(request(videos, tmp_path, encoder), QUIET)
    train, val = by_hand([0, 1], videos, labels, encoder), by_hand([2, 3], videos, labels, encoder)
    precision = retrieval_precision(val.embeddings, val.labels, stride=5)
    tau = kendall_tau(val.embeddings, stride=5)
    expected = {
        "classification": phase_accuracy(train, val), "progression": phase_progression(train, val, 5),
        **({} if np.isnan(tau) else {"kendall_tau": tau}),
        "AP@5": precision[5], "AP@10": precision[10], "AP@15": precision[15],
    }  # fmt: skip
    assert {name: result.scores[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert next(iter(result.scores)) == "classification"
    assert (result.task, result.preset, result.data["videos"]) == ("pouring", "carl", 4)
    files = [videos / f"videos/{number}.mp4" for number in range(4)] + [videos / "train.json", videos / "val.json"]
    assert result.data["digest"] == data_digest(videos, files)


def test_penn_is_the_plain_mean_over_actions(videos: Path, tmp_path: Path, encoder: str) -> None:
    groups: list[list[int]] = [[] for _ in PENN_PHASES]
    groups[2], groups[3] = [0, 1], [2, 3]  # bench_press has two phases, bowl three
    two, three = [0] * 5 + [1] * 5, [0] * 3 + [1] * 3 + [2] * 4
    records = [record(0, two), record(1, two), record(2, three), record(3, three)]
    for split in ("train", "val"):
        write(videos / f"{split}.json", [records, groups])
    result = evaluate_penn(request(videos, tmp_path, encoder, sequences=("bench_press", "bowl")), QUIET)
    assert [item["name"] for item in result.items] == ["bench_press", "bowl"]
    for name in ("classification", "progression", "kendall_tau", "AP@5", "classification@0.1"):
        assert result.scores[name] == pytest.approx(np.mean([item[name] for item in result.items]))
    assert result.scores["progression"] > 0.9  # trained on what is scored
    assert result.options["stride"] == 2
    assert result.notes == ["2 of the 13 actions only"]
    with pytest.raises(InputError, match="no such action"):
        evaluate_penn(request(videos, tmp_path, encoder, sequences=("juggling",)), QUIET)
    with pytest.raises(InputError, match="not one labelled frame"):
        evaluate_penn(request(videos, tmp_path, encoder), QUIET)


def test_finegym_trains_on_fractions_but_never_on_less_than_a_batch(videos: Path, tmp_path: Path, encoder: str) -> None:
    labels = [3, 3, -1, 98, 98]
    write(videos / "gym99_train_v1.0.json", [record(number % 2, labels) for number in range(22)])
    write(videos / "gym99_val.json", [record(0, labels), record(1, labels)])
    recipe = LinearRecipe(rate=5.0, epochs=40)
    result = evaluate_finegym(request(videos, tmp_path, encoder, preset="gym99"), QUIET, recipe)
    assert [item["videos"] for item in result.items] == [10, 11, 22]
    assert result.scores == {"classification": result.items[-1]["classification"]}
    assert result.options["recipe"] == {
        "rate": 5.0, "momentum": 0.9, "decay": 1e-6, "epochs": 40, "videos": 10, "seed": 0,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"gym288_train_v1\.0\.json"):
        evaluate_finegym(request(videos, tmp_path, encoder, preset="gym288"), QUIET, recipe)


@pytest.mark.parametrize("evaluate", [evaluate_penn, evaluate_pouring])
def test_another_preset_is_refused(videos: Path, tmp_path: Path, encoder: str, evaluate: object) -> None:
    with pytest.raises(InputError, match=r"(?s)no such preset.*use carl"):
        evaluate(request(videos, tmp_path, encoder, preset="dino"), QUIET)  # type: ignore[operator]


def test_a_score_that_is_not_defined_is_left_out_and_said(videos: Path, tmp_path: Path, encoder: str) -> None:
    labels = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    write(videos / "train.json", [record(0, labels)])
    write(videos / "val.json", [record(1, labels)])  # one video has no other to be compared with
    result = evaluate_pouring(request(videos, tmp_path, encoder), QUIET)
    assert "kendall_tau" not in result.scores
    assert "AP@5" not in result.scores
    assert any("kendall_tau" in note for note in result.notes)


def test_clips_cls_is_said_to_be_projected(videos: Path, tmp_path: Path, encoder: str) -> None:
    register_tiny_clip(tmp_path)
    labels = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    for split in ("train", "val"):
        write(videos / f"{split}.json", [record(0, labels), record(1, labels)])
    note = "The CLS token used is CLIP's projected embedding."
    clip = request(videos, tmp_path, "open_clip:tiny-clip", weights="random")
    assert evaluate_pouring(clip, QUIET).notes.count(note) == 1
    assert note not in evaluate_pouring(request(videos, tmp_path, encoder), QUIET).notes


def test_the_commands_write_a_result(videos: Path, tmp_path: Path, encoder: str) -> None:
    labels = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    write(videos / "train.json", [record(0, labels)])
    write(videos / "val.json", [record(0, labels), record(1, labels)])
    options = ["--data", str(videos), "--encoder", encoder, "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, ["pouring", *options, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    stored: Result = read_result(tmp_path)
    assert json.loads(done.output)["scores"] == stored.scores
    assert stored.task == "pouring"
