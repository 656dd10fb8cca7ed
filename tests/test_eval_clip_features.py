"""Which frames go through the encoder, and whose features end up under which number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import noise, small_encoder

from frame.eval.encoder import EncoderInfo, Picture
from frame.eval.frame_stream import FrameStream
from frame.eval.segment.clip_features import ClipFeatures, fitted, plan_runs, take_features, whole_patches
from frame.eval.segment.feature_store import FeatureStore
from frame.eval.segment.labelled_clip import LabelledClip, possible_deltas, widest_gap
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.model import Tokens

QUIET = Progress(quiet=True)


class PastEncoder:
    """Says of a frame its grey, and the greys of those in its memory, newest first; -1 where there are none."""

    def __init__(self, memory: int) -> None:
        self.info = EncoderInfo(
            name="past", kind="test", model="past", patch=2, width=memory + 1, mean=(0, 0, 0), std=(1, 1, 1),
            memory=memory, weights="none", digest=f"past-{memory}",
        )  # fmt: skip
        self.device = torch.device("cpu")
        self.streams: list[int] = []

    def stream(self, frames: Iterable[Picture], *, std: object = None) -> Iterator[Tokens]:
        assert std is None
        seen: list[float] = []
        for frame in frames:
            seen.insert(0, float(frame[0, 0, 0]))
            held = (seen + [-1.0] * self.info.width)[: self.info.width]
            grid = (frame.shape[0] // 2, frame.shape[1] // 2)
            yield Tokens(cls=torch.tensor(held), patches=torch.tensor(held).expand(*grid, -1))
        self.streams.append(len(seen))

    def semantic(self, cls_TD: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def clip_of(numbers: Sequence[int], *, gap: int = 1, labelled: Sequence[int] = (), size: int = 4) -> LabelledClip:
    """Frame n is of grey n."""

    def pictures(asked: Sequence[int]) -> Iterator[Picture]:
        assert list(asked) == sorted(set(asked))
        assert set(asked) <= set(numbers)
        return (np.full((size, size, 3), number, dtype=np.uint8) for number in asked)

    return LabelledClip(
        name="clip", numbers=numbers, labelled=labelled, pictures=pictures, label=lambda _: np.zeros((4, 4), np.uint8),
        gap=gap,
    )  # fmt: skip


@given(
    steps=st.lists(st.integers(1, 4), min_size=1, max_size=60), gap=st.integers(1, 3), memory=st.integers(0, 5),
    data=st.data(),
)  # fmt: skip
def test_every_frame_sees_exactly_its_past(
    steps: list[int], gap: int, memory: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against the definition: the frames before, newest first, up to the memory or a hole."""
    numbers = list(np.cumsum(steps).tolist())
    wanted = data.draw(st.sets(st.sampled_from(numbers), min_size=1))
    clip = clip_of(numbers, gap=gap)
    store = FeatureStore(tmp_path_factory.mktemp("store"))
    keys = take_features([(clip, wanted)], PastEncoder(memory), store, None, QUIET)
    assert set(keys) == {("clip", number) for number in wanted}
    features = ClipFeatures(store, keys, room=1 << 20)
    for number in wanted:
        expected, last = [float(number)], number
        for before in reversed(numbers[: numbers.index(number)]):
            if len(expected) > memory or last - before > gap:
                break
            expected.append(float(before))
            last = before
        expected += [-1.0] * (memory + 1 - len(expected))
        assert features("clip", number)[0, 0].tolist() == expected


def test_only_what_is_needed_is_read() -> None:
    numbers = list(range(100))
    assert [run.numbers for run in plan_runs(clip_of(numbers), [50, 10], 0)] == [(10, 50)]
    runs = plan_runs(clip_of(numbers), [10, 12, 50], 3)
    assert [run.numbers for run in runs] == [tuple(range(7, 13)), (47, 48, 49, 50)]
    assert [run.wanted for run in runs] == [{10, 12}, {50}]
    assert plan_runs(clip_of(numbers), [], 3) == []
    assert max(len(run.numbers) for run in plan_runs(clip_of(numbers), numbers, 3)) <= 32 + 3  # bounds pictures held


def test_features_are_taken_once_and_damage_is_mended(tmp_path: Path) -> None:
    clip, store = clip_of(range(6)), FeatureStore(tmp_path)
    first = PastEncoder(2)
    keys = take_features([(clip, [2, 4])], first, store, None, QUIET)
    assert first.streams == [5]
    again = PastEncoder(2)
    assert take_features([(clip, [2, 4])], again, store, None, QUIET) == keys
    assert again.streams == []
    path = store._path(keys["clip", 2])
    path.write_bytes(path.read_bytes()[:-5])
    assert take_features([(clip, [2, 4])], again, store, None, QUIET) == keys
    assert again.streams == [3]  # frames 0 to 2
    assert ClipFeatures(store, keys, room=0)("clip", 2)[0, 0].tolist() == [2, 1, 0]
    other = PastEncoder(1)
    assert set(take_features([(clip, [2, 4])], other, store, None, QUIET).values()).isdisjoint(keys.values())


def test_features_stay_on_disk_where_they_do_not_fit(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    keys = take_features([(clip_of(range(3)), range(3))], PastEncoder(0), store, None, QUIET)
    size = 2 * 2 * 2 * 3  # grid, bytes, frames
    held, mapped = ClipFeatures(store, keys, room=size), ClipFeatures(store, keys, room=size - 1)
    assert held.in_memory
    assert not mapped.in_memory
    assert isinstance(mapped("clip", 1), np.memmap)
    np.testing.assert_array_equal(held("clip", 1), mapped("clip", 1))


def test_the_input_size_is_part_of_what_features_are_of(tmp_path: Path) -> None:
    store, clip = FeatureStore(tmp_path), clip_of([7], size=9)
    keys = [
        take_features([(clip, [7])], PastEncoder(0), store, size, QUIET)["clip", 7] for size in (None, (4, 7), (4, 6))
    ]
    assert [store.read(key).shape[:2] for key in keys] == [(4, 4), (2, 3), (2, 3)]
    assert keys[0] != keys[1] == keys[2]


def test_sizes_are_rounded_down_to_whole_patches() -> None:
    assert whole_patches((360, 480), 16) == (352, 480)
    assert whole_patches((360, 480), 14) == (350, 476)
    with pytest.raises(InputError, match="smaller than one patch"):
        whole_patches((15, 480), 16)
    picture = np.random.default_rng(0).integers(256, size=(32, 48, 3), dtype=np.uint8)
    assert fitted(picture, None, 16) is picture
    assert fitted(picture, (40, 31), 16).shape == (32, 16, 3)


def test_frames_of_several_sizes_are_refused(tmp_path: Path) -> None:
    clip = LabelledClip(
        name="odd", numbers=[4, 6], labelled=[],
        pictures=lambda numbers: (np.zeros((number, 4, 3), np.uint8) for number in numbers),
        label=lambda _: np.zeros((4, 4), np.uint8),
    )  # fmt: skip
    with pytest.raises(InputError, match="4 x 4, 6 x 4"):
        take_features([(clip, [4, 6])], PastEncoder(0), FeatureStore(tmp_path), None, QUIET)
    assert take_features([(clip, [4, 6])], PastEncoder(0), FeatureStore(tmp_path), (4, 4), QUIET)


def test_pairs_are_input_then_target() -> None:
    clip = clip_of([10, 20, 25, 30], labelled=[10, 25, 30])
    assert clip.pairs(0) == [(10, 10), (25, 25), (30, 30)]
    assert clip.pairs(5) == [(20, 25), (25, 30)]
    assert clip.pairs(10) == [(20, 30)]
    assert clip.pairs(7) == []
    # A label whose own frame is not at hand still has a past.
    assert clip_of([10, 20], labelled=[25]).pairs(0) == []
    assert clip_of([10, 20], labelled=[25]).pairs(5) == [(20, 25)]
    assert possible_deltas([clip]) == [5, 10, 15, 20]
    assert possible_deltas([clip_of([3], labelled=[3])]) == []


def test_a_gap_is_twice_the_usual_step() -> None:
    assert widest_gap([0, 270, 541, 810, 3000]) == 541
    assert widest_gap([5]) == 1


def test_frames_memory_is_that_of_the_whole_video(tmp_path: Path) -> None:
    """The real encoder: features of a few frames are what streaming everything before them gives."""
    encoder = small_encoder()
    encoder.save_pretrained(tmp_path / "encoder")
    stream = FrameStream(str(tmp_path / "encoder"), torch.device("cpu"))
    assert stream.info.memory == 3
    video = noise(12, 32, 24).numpy()
    clip = LabelledClip(
        name="noise", numbers=range(12), labelled=[], pictures=lambda numbers: (video[number] for number in numbers),
        label=lambda _: np.zeros((32, 24), np.uint8),
    )  # fmt: skip
    store = FeatureStore(tmp_path / "features", "float32")
    keys = take_features([(clip, [1, 5, 11])], stream, store, None, QUIET)
    whole = [tokens.patches.numpy() for tokens in stream.stream(video)]
    for number in (1, 5, 11):
        np.testing.assert_allclose(store.read(keys["noise", number]), whole[number], atol=1e-5)
    alone = next(iter(stream.stream(video[5:6]))).patches.numpy()
    assert np.abs(alone - whole[5]).max() > 1e-3  # the memory has a say
