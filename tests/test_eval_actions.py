"""Action recognition: known answers zero-shot and by a probe, the encoder's past, failures, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from small_actions import COLOURS, register_tiny_clip, write_hmdb, write_ucf
from small_eval import IdentityEncoder
from torch import Tensor
from torch.nn import functional
from typer.testing import CliRunner

from frame.eval import cli
from frame.eval.data.video_frames import VideoFrames, read_videos, segment_centres
from frame.eval.encoder import Encoder, Frame, Triple
from frame.eval.recognise.action_features import Sampling, plan_streams
from frame.eval.recognise.class_text import TextSource
from frame.eval.recognise.text import TextEmbeddings, write_embeddings
from frame.eval.request import Request
from frame.eval.result import Result
from frame.eval.tasks import actions as task
from frame.eval.tasks.actions import ActionOptions
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.model import Tokens
from frame.train.run_folder import write_config

LINEAR = ActionOptions(side=32, sweep=3)


class ColourEncoder(IdentityEncoder):
    """CLS is the mean colour; text shares that space. ``seen`` are the streams, as the brightness of their frames."""

    def __init__(self, *, memory: int = 0, semantic: bool = True) -> None:
        super().__init__(patch=16)
        self.info = replace(self.info, width=3, memory=memory)
        self.seen: list[list[float]] = []
        self._semantic = semantic

    def stream(self, frames: Iterable[Frame], *, std: Triple | None = None) -> Iterator[Tokens]:
        del std
        self.seen.append([])
        for frame in frames:
            self.seen[-1].append(float(frame.mean()))
            colour = torch.from_numpy(np.asarray(frame, dtype=np.float32).mean(axis=(0, 1))) / 255
            yield Tokens(cls=colour, patches=colour.expand(2, 2, 3))

    def semantic(self, cls_TD: Tensor) -> Tensor:
        if not self._semantic:
            raise InputError(what="This encoder has no space shared with text.")
        return cls_TD


@pytest.fixture(scope="module")
def ucf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ucf(tmp_path_factory.mktemp("data") / "ucf")


@pytest.fixture(scope="module")
def hmdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hmdb(tmp_path_factory.mktemp("data") / "hmdb")


@pytest.fixture
def text(tmp_path: Path) -> TextSource:
    """Classes as their colours, in another order and with names written another way."""
    names = ("be blue", "apply_red", "GoGreen")
    path = tmp_path / "text.npz"
    write_embeddings(path, TextEmbeddings(names=names, vectors=np.eye(3, dtype=np.float32)[[2, 0, 1]]))
    return TextSource(embeddings=path)


def evaluate(
    data: Path, options: ActionOptions, *, name: str = "ucf101", preset: str = "linear", encoder: object = None,
    only: tuple[str, ...] = (),
) -> Result:  # fmt: skip
    request = Request(data=data, encoder="colour", out=data / "out", preset=preset, sequences=only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "open_encoder", lambda *_, **__: encoder or ColourEncoder())
        return task.evaluate(name, request, options, Progress(quiet=True))


def test_zero_shot_on_all_splits(ucf: Path, text: TextSource) -> None:
    result = evaluate(ucf, ActionOptions(side=32, split="all", text=text), preset="zero-shot")
    # In split 1 the two clips of BeBlue are green: two of six wrong.
    assert result.scores == {
        "zero-shot": pytest.approx((4 / 6 + 1 + 1) / 3), "zero-shot, split 1": pytest.approx(4 / 6),
        "zero-shot, split 2": 1.0, "zero-shot, split 3": 1.0,
    }  # fmt: skip
    assert next(iter(result.scores)) == "zero-shot"
    assert result.items[2] == {"name": "BeBlue", "zero-shot": pytest.approx(2 / 3), "clips": 6}
    assert result.options["split"] == "all"
    assert result.options["text"] == f"file {sha256(np.eye(3, dtype=np.float32).tobytes()).hexdigest()[:12]}"
    assert (result.data["test_split1"], "train_split1" in result.data) == (6, False)
    assert "sweep" not in result.options


def test_each_frame_is_normalised_before_the_mean(ucf: Path, tmp_path: Path) -> None:
    """A bright frame must not outvote the others: its direction counts as theirs do."""

    class OneLoud(ColourEncoder):
        def semantic(self, cls_TD: Tensor) -> Tensor:
            loud = torch.tensor([0.0, 0.0, 100.0])
            return torch.cat([loud[None], cls_TD[1:]])

    path = tmp_path / "text.npz"
    write_embeddings(path, TextEmbeddings(names=tuple(COLOURS), vectors=np.eye(3, dtype=np.float32)))
    options = ActionOptions(side=32, split="2", text=TextSource(embeddings=path))
    assert evaluate(ucf, options, preset="zero-shot", encoder=OneLoud()).scores["zero-shot"] == 1.0


def test_a_linear_probe_learns_the_colours(ucf: Path) -> None:
    result = evaluate(ucf, replace(LINEAR, split="all", seed=3))
    assert result.scores["linear, split 1"] == pytest.approx(4 / 6)
    assert result.scores["linear, split 2"] == 1.0
    assert result.options["sweep"] == 3
    assert result.options["seed"] == 3
    assert "text" not in result.options
    assert any(note.startswith("Split 3: C = ") for note in result.notes)
    first = evaluate(ucf, replace(LINEAR, seed=3))
    assert first.scores == {"linear": pytest.approx(4 / 6)}
    assert first.data["train_split1"] == 18


def test_hmdb_leaves_out_what_is_of_neither_part(hmdb: Path) -> None:
    result = evaluate(hmdb, LINEAR, name="hmdb51")
    assert result.scores == {"linear": 1.0}
    assert (result.data["train_split1"], result.data["test_split1"]) == (8, 4)
    assert result.task == "hmdb51"


def test_some_classes_only(ucf: Path) -> None:
    result = evaluate(ucf, LINEAR, only=("GoGreen", "ApplyRed"))
    assert [item["name"] for item in result.items] == ["ApplyRed", "GoGreen"]
    assert result.scores["linear"] == 1.0
    with pytest.raises(InputError, match="needs two classes"):
        evaluate(ucf, LINEAR, only=("GoGreen",))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A data set in which one test video and one training video cannot be read."""
    root = write_ucf(tmp_path / "ucf", groups=3)
    videos = root / "UCF-101" / "GoGreen"
    (videos / "v_GoGreen_g02_c01.avi").write_bytes(b"no video")
    (videos / "v_GoGreen_g03_c01.avi").write_bytes(b"")
    return root


def test_videos_that_cannot_be_read_are_wrong_and_named(broken: Path, text: TextSource) -> None:
    found = evaluate(broken, ActionOptions(side=32, split="2", text=text), preset="zero-shot")
    assert found.scores["zero-shot"] == pytest.approx(5 / 6)
    (note,) = [note for note in found.notes if "could not be read" in note]
    assert note.startswith("1 videos")
    assert "v_GoGreen_g02_c01.avi (not-a-video" in note
    probed = evaluate(broken, replace(LINEAR, split="2"))
    assert probed.scores["linear"] == pytest.approx(5 / 6)
    assert any(note.startswith("2 videos") and "v_GoGreen_g03_c01.avi (empty" in note for note in probed.notes)


def test_nothing_readable_is_refused(broken: Path) -> None:
    for path in (broken / "UCF-101").rglob("*.avi"):
        path.write_bytes(b"x")
    with pytest.raises(InputError, match="Not one video can be read"):
        evaluate(broken, LINEAR)


@given(st.integers(1, 90), st.integers(0, 7), st.sampled_from(["sampled", "native", "off"]))
def test_streams_end_in_the_sampled_frames(count: int, memory: int, past: str) -> None:
    streams = plan_streams(count, Sampling(side=32, past=past), memory)  # type: ignore[arg-type]
    kept = [number for stream in streams for number in stream.numbers[-stream.kept :]]
    assert kept == segment_centres(count, 8)
    if past == "sampled" or memory == 0:
        assert len(streams) == 1
    for stream in streams[: 0 if len(streams) == 1 else None]:
        before = memory if past == "native" else 0
        assert len(stream.numbers) == min(before, stream.numbers[-1]) + 1
        assert list(stream.numbers) == list(range(stream.numbers[0], stream.numbers[-1] + 1))


@pytest.mark.parametrize(
    ("past", "lengths"), [("sampled", [8]), ("native", [1, 2, 3, 4, 4, 4, 4, 4]), ("off", [1] * 8)]
)
def test_the_encoder_sees_the_past_it_is_given(ucf: Path, past: str, lengths: list[int]) -> None:
    encoder = ColourEncoder(memory=3)
    options = replace(LINEAR, memory=past)  # type: ignore[arg-type]
    result = evaluate(ucf, options, encoder=encoder)
    path = ucf / "UCF-101/ApplyRed/v_ApplyRed_g01_c01.avi"  # nine frames, each darker than the one before
    (video,) = read_videos([path], range, side=32, processes=1)
    assert isinstance(video, VideoFrames)
    brightness = {number: float(picture.mean()) for number, picture in video.pictures.items()}
    assert len(set(brightness.values())) == 9
    centres = [0, 1, 2, 3, 4, 5, 6, 7]
    windows = {"sampled": [centres], "native": [range(max(0, at - 3), at + 1) for at in centres],
               "off": [[at] for at in centres]}[past]  # fmt: skip
    seen = encoder.seen[: len(lengths)]  # of the first video by name
    assert seen == [[brightness[number] for number in window] for window in windows]
    assert [len(stream) for stream in seen] == lengths
    assert len(encoder.seen) == 24 * len(lengths)
    assert result.options["memory"] == past
    assert any("memory at a sampled frame held" in note for note in result.notes)
    assert not any("CLIP" in note for note in result.notes)


def test_an_encoder_without_memory_is_asked_for_no_past(ucf: Path) -> None:
    result = evaluate(ucf, LINEAR)
    assert result.options["memory"] == "sampled"  # as with a memory, so that the two can be compared
    assert not any("memory" in note for note in result.notes)
    for past in ("native", "off"):
        encoder = ColourEncoder()
        with pytest.raises(InputError, match=rf"no memory[\s\S]*--memory {past}[\s\S]*leave the option out"):
            evaluate(ucf, replace(LINEAR, memory=past), encoder=encoder)  # type: ignore[arg-type]
        assert not encoder.seen


@pytest.mark.parametrize("preset", ["linear", "zero-shot"])
def test_clips_cls_is_said_to_be_projected(ucf: Path, text: TextSource, preset: str) -> None:
    encoder = ColourEncoder()
    encoder.info = replace(encoder.info, kind="open_clip")
    options = ActionOptions(side=32, text=text) if preset == "zero-shot" else LINEAR
    result = evaluate(ucf, options, preset=preset, encoder=encoder)
    assert result.notes.count("The CLS token used is CLIP's projected embedding.") == 1


TEXT = TextSource(embeddings=Path("text.npz"))


@pytest.mark.parametrize(
    ("preset", "options", "said"),
    [
        ("nearest", ActionOptions(), "no preset 'nearest'"),
        ("linear", ActionOptions(text=TEXT), "would do nothing[\\s\\S]*--text-embeddings"),
        ("linear", ActionOptions(text=TextSource(weights="f")), "--text-weights"),
        ("linear", ActionOptions(sweep=1), "two values at least"),
        ("linear", ActionOptions(side=20), "no whole number of patches[\\s\\S]*--side 20"),
        ("linear", ActionOptions(side=0), "no whole number of patches"),
        ("zero-shot", ActionOptions(), "needs the classes as text"),
        ("zero-shot", ActionOptions(text=replace(TEXT, tower="open_clip:x")), "both --text and --text-embeddings"),
        ("zero-shot", ActionOptions(text=replace(TEXT, weights="f")), "would do nothing[\\s\\S]*--text-weights"),
        ("zero-shot", ActionOptions(text=TEXT, sweep=45), "would do nothing[\\s\\S]*--sweep"),
        ("zero-shot", ActionOptions(text=TEXT, seed=0), "would do nothing[\\s\\S]*--seed"),
    ],
)
def test_options_that_do_not_go_together_are_refused(ucf: Path, preset: str, options: ActionOptions, said: str) -> None:
    with pytest.raises(InputError, match=said):
        evaluate(ucf, options, preset=preset)


def test_text_of_another_space_is_refused(ucf: Path, tmp_path: Path, text: TextSource) -> None:
    options = ActionOptions(side=32, text=text)
    with pytest.raises(InputError, match="no space shared with text"):
        evaluate(ucf, options, preset="zero-shot", encoder=ColourEncoder(semantic=False))
    path = tmp_path / "wide.npz"
    write_embeddings(path, TextEmbeddings(names=tuple(COLOURS), vectors=np.ones((3, 4), np.float32)))
    wide = replace(options, text=TextSource(embeddings=path))
    with pytest.raises(InputError, match="text has 4 channels, perfect 3"):
        evaluate(ucf, wide, preset="zero-shot")
    encoder = ColourEncoder()
    encoder.info = replace(encoder.info, kind="open_clip", model="ViT-B-32.openai")
    vectors = TextEmbeddings(names=tuple(COLOURS), vectors=np.eye(3, dtype=np.float32), source="ViT-B-32.laion (1): x")
    write_embeddings(path, vectors)
    with pytest.raises(InputError, match="two CLIPs"):
        evaluate(ucf, wide, preset="zero-shot", encoder=encoder)


def trained(run: Path, column: str) -> ColourEncoder:
    """An encoder of a run whose record names this column as its CLS target; "": without a record."""
    run.mkdir(exist_ok=True)
    if column:
        write_config(run, {"stage": "stage2", "settings": {"semantic": column}}, tmp=run)
    encoder = ColourEncoder()
    encoder.info = replace(encoder.info, kind="frame", name=str(run), model="small")
    return encoder


def text_by(path: Path, source: str) -> ActionOptions:
    vectors = np.eye(3, dtype=np.float32)
    write_embeddings(path, TextEmbeddings(names=tuple(COLOURS), vectors=vectors, source=source))
    return ActionOptions(side=32, text=TextSource(embeddings=path))


@pytest.mark.parametrize(
    ("column", "source", "said"),
    [
        ("", "ViT-B-32.openai (1): x", r"ViT-B-32.openai \(1\): x; whether .* cannot be checked: its training record"),
        ("", "", "by a tower that the file does not name; whether .* cannot be checked"),
        ("mine.cls", "ViT-B-32.openai (1): x", "cannot be checked: its record names the teacher mine only"),
        ("clip_vitb32.cls", "", "a tower that the file does not name; .* cannot be checked"),
        ("clip_vitb32.cls", "ViT-B-32.openai (1): x", r"record names clip_vitb32 \(ViT-B-32.openai\) .* cannot be"),
        ("clip_vitb32.cls", "ViT-B-32 (1): x", "ViT-B-32 .*record names clip_vitb32"),
    ],
)
def test_how_far_text_and_a_run_are_known_to_be_kin_is_said(
    ucf: Path, tmp_path: Path, column: str, source: str, said: str
) -> None:
    options = text_by(tmp_path / "text.npz", source)
    encoder = trained(tmp_path / "run", column)
    result = evaluate(ucf, options, preset="zero-shot", encoder=encoder)
    (note,) = [note for note in result.notes if note.startswith("The text is by")]
    assert re.search(said, note)
    assert not any(note.startswith("The text is by") for note in evaluate(ucf, options, preset="zero-shot").notes)


@pytest.mark.parametrize(
    ("column", "source"),
    [
        ("clip_vitb32.cls", "ViT-B-16.openai (1): x"),
        ("clip_vitb16.cls", "ViT-B-32 (1): x"),
        ("clip_vitb32.cls", "ViT-B-32.laion2b_e16 (1): x"),
        ("dino_vits16.cls", ""),
    ],
)
def test_text_that_a_runs_record_contradicts_is_refused(ucf: Path, tmp_path: Path, column: str, source: str) -> None:
    """Both CLIPs have 512 channels: only the record tells them apart."""
    options = text_by(tmp_path / "text.npz", source)
    encoder = trained(tmp_path / "run", column)
    for name in (tmp_path / "run", tmp_path / "run" / "encoder"):
        encoder.info = replace(encoder.info, name=str(name))
        with pytest.raises(InputError, match=rf"two CLIPs[\s\S]*{column.removesuffix('.cls')}"):
            evaluate(ucf, options, preset="zero-shot", encoder=encoder)
        assert not encoder.seen


def test_values_that_are_not_finite_are_the_encoders_fault(ucf: Path) -> None:
    class Broken(ColourEncoder):
        def stream(self, frames: Iterable[Frame], *, std: Triple | None = None) -> Iterator[Tokens]:
            for tokens in super().stream(frames, std=std):
                yield Tokens(cls=tokens.cls * torch.nan, patches=tokens.patches)

    with pytest.raises(InputError, match="not finite"):
        evaluate(ucf, LINEAR, encoder=Broken())


def test_a_whole_clip_by_the_commands(ucf: Path, tmp_path: Path) -> None:
    """Both towers from one file; embeddings made beforehand give the very same scores."""
    register_tiny_clip(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model("tiny-clip").eval()
    weights = tmp_path / "clip.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, weights)
    shared = ["--data", str(ucf), "--encoder", "open_clip:tiny-clip", "--weights", str(weights), "--side", "32"]
    shared += ["--preset", "zero-shot", "--split", "2", "--device", "cpu"]

    def run(*arguments: str) -> dict[str, object]:
        ran = CliRunner().invoke(cli.app, [*arguments])
        assert ran.exit_code == 0, ran.output
        return dict(json.loads(Path(arguments[arguments.index("--out") + 1], "result.json").read_text()))

    tower = ["--text", "open_clip:tiny-clip", "--text-weights", str(weights)]
    direct = run("ucf101", *shared, *tower, "--out", str(tmp_path / "a"))
    file = tmp_path / "text.npz"
    names = ucf / "ucfTrainTestlist" / "classInd.txt"
    ran = CliRunner().invoke(cli.app, ["text", "--names", str(names), *tower, "--out", str(file)])
    assert ran.exit_code == 0, ran.output
    filed = run("ucf101", *shared, "--text-embeddings", str(file), "--out", str(tmp_path / "b"))
    assert direct["scores"] == filed["scores"]
    assert direct["options"] == filed["options"]
    assert filed["encoder"]["model"] == "tiny-clip"  # type: ignore[index]
    assert plain_zero_shot(ucf, model) == pytest.approx(direct["scores"]["zero-shot"])  # type: ignore[index]


def plain_zero_shot(ucf: Path, model: torch.nn.Module) -> float:
    """Zero-shot of split 2 by the whole open_clip model, one video after another."""
    texts = ["a person apply red", "a person go green", "a person be blue"]
    mean, std = (torch.tensor(v)[:, None, None] for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    right = []
    encode: Callable[[Tensor], Tensor] = model.encode_image  # type: ignore[assignment]
    with torch.inference_mode():
        text_KC = functional.normalize(model.encode_text(open_clip.get_tokenizer("tiny-clip")(texts)), dim=-1)  # type: ignore[operator]
        for label, name in enumerate(COLOURS):
            paths = sorted((ucf / "UCF-101" / name).glob("*_g02_*"))
            for video in read_videos(paths, lambda count: segment_centres(count, 8), side=32, processes=1):
                numbers = segment_centres(video.count, 8)  # type: ignore[union-attr]
                frames = np.stack([video.pictures[number] for number in numbers])  # type: ignore[union-attr]
                pixels = (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - mean) / std
                vector = functional.normalize(encode(pixels), dim=-1).mean(0)
                right.append(int((text_KC @ vector).argmax()) == label)
    return sum(right) / len(right)


def test_the_stub_is_an_encoder() -> None:
    encoder: Encoder = ColourEncoder()
    assert encoder.info.width == 3
