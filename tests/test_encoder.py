"""The encoder as it is used: steps and whole clips, a stream without end, and what is kept of it."""

from __future__ import annotations

import copy
import gc
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import STAGE1, STAGE2, noise, small_encoder
from torch import Tensor

import frame.model.encoder
from frame.model import FrameEncoder, MemoryConfig, ModelConfig, Tokens


def whole(encoder: FrameEncoder, clip: Tensor) -> Tokens:
    with torch.no_grad():
        return encoder(clip)  # type: ignore[no-any-return]


def stepped(encoder: FrameEncoder, clip: Tensor) -> Tokens:
    steps = [encoder.step(frame) for frame in clip]
    return Tokens(cls=torch.stack([s.cls for s in steps]), patches=torch.stack([s.patches for s in steps]))


def assert_same(found: Tokens, expected: Tokens) -> None:
    torch.testing.assert_close(found.cls, expected.cls, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.patches, expected.patches, rtol=1e-5, atol=1e-5)


@settings(max_examples=15)
@given(
    length=st.integers(1, 9), rows=st.integers(1, 5), columns=st.integers(1, 5), frames=st.integers(1, 5),
    chunk=st.integers(1, 200), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_clip_at_once_is_as_frame_by_frame(
    length: int, rows: int, columns: int, frames: int, chunk: int, seed: int
) -> None:
    """Clips shorter and longer than the memory, grids of any shape, chunks of any length."""
    encoder = small_encoder(replace(STAGE2, memory=MemoryConfig(frames=frames, dim=16)), seed)
    clip = noise(length, 8 * rows, 8 * columns, seed=seed)
    expected = stepped(encoder, clip)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame.model.encoder, "_CHUNK_TOKENS", chunk)
        found = whole(encoder, clip)
    assert found.cls.shape == (length, 128)
    assert found.patches.shape == (length, rows, columns, 128)
    assert_same(found, expected)


def test_several_clips_at_once_are_as_each_alone() -> None:
    encoder, clips = small_encoder(), noise(2, 6, 24, 32)
    both = whole(encoder, clips)
    assert both.patches.shape == (2, 6, 3, 4, 128)
    for clip in range(2):
        assert_same(Tokens(cls=both.cls[clip], patches=both.patches[clip]), whole(encoder, clips[clip]))


def test_several_streams_at_once_are_as_each_alone() -> None:
    encoder, clips = small_encoder(), noise(3, 6, 24, 32)
    together = [encoder.step(clips[:, time]) for time in range(6)]
    for stream in range(3):
        encoder.reset()
        for time in range(6):
            alone = encoder.step(clips[stream, time])
            assert_same(Tokens(cls=together[time].cls[stream], patches=together[time].patches[stream]), alone)


def test_exactly_the_past_frames_of_the_memory_are_remembered() -> None:
    """A frame three steps back still counts, one that is four back does not: the memory holds three."""
    encoder, clip = small_encoder(), noise(5, 16, 16)
    for changed, remembered in ((1, True), (0, False)):
        other = clip.clone()
        other[changed] = 255 - other[changed]
        same = torch.allclose(whole(encoder, clip).patches[4], whole(encoder, other).patches[4], atol=1e-5)
        assert same is not remembered


def test_after_a_reset_nothing_is_remembered() -> None:
    encoder, clip = small_encoder(), noise(4, 16, 16)
    first = stepped(encoder, clip)
    assert not torch.allclose(encoder.step(clip[0]).cls, first.cls[0], atol=1e-4)
    encoder.reset()
    second = stepped(encoder, clip)
    assert torch.equal(first.cls, second.cls)
    assert torch.equal(first.patches, second.patches)


def test_a_clip_leaves_the_stream_as_it_was() -> None:
    encoder, clip = small_encoder(), noise(6, 16, 16)
    expected = stepped(encoder, clip)
    encoder.reset()
    for time, picture in enumerate(clip):
        assert torch.equal(encoder.step(picture).cls, expected.cls[time])
        whole(encoder, noise(2, 24, 24))


def test_another_size_or_number_of_streams_needs_a_reset() -> None:
    encoder = small_encoder()
    encoder.step(noise(16, 24))
    for other in (noise(24, 16), noise(2, 16, 24)):
        with pytest.raises(ValueError, match=r"call reset\(\)"):
            encoder.step(other)
    encoder.step(noise(16, 24))
    encoder.reset()
    encoder.step(noise(2, 24, 16))


def test_a_refused_frame_is_not_remembered() -> None:
    encoder, clip = small_encoder(), noise(3, 16, 16)
    expected = stepped(encoder, clip)
    encoder.reset()
    for time, picture in enumerate(clip):
        for wrong in (noise(15, 16), picture.long(), picture[..., :2]):
            with pytest.raises(ValueError, match="frame"):
                encoder.step(wrong)
        assert torch.equal(encoder.step(picture).cls, expected.cls[time])


@pytest.mark.parametrize("shape", [(16, 16), (0, 16, 16), (2, 0, 16, 16), (1, 1, 1, 16, 16)])
def test_what_is_no_clip_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a clip is"):
        small_encoder()(noise(*shape))


def test_arrays_that_must_not_be_written_to_are_frames_too() -> None:
    encoder, clip = small_encoder(), noise(3, 16, 16)
    array = clip.numpy()
    array.flags.writeable = False
    expected = whole(encoder, clip)
    with torch.no_grad():
        assert torch.equal(encoder(array).cls, expected.cls)
    encoder.step(array[0])


def test_a_fresh_stage_2_gives_what_stage_1_gives() -> None:
    stage1, clip = small_encoder(STAGE1), noise(6, 16, 24)
    stage2 = stage1.as_stage2(MemoryConfig(), anticipation=True).eval()
    found = whole(stage2, clip)
    assert torch.equal(found.patches, whole(stage1, clip).patches)
    assert_same(stepped(stage2, clip), stepped(stage1, clip))
    assert stage2.config == replace(STAGE1, memory=MemoryConfig(), anticipation=True)
    tokens = torch.cat([found.cls[:, None], found.patches.flatten(1, 2)], dim=1)
    before, after = stage1.decode(tokens), stage2.decode(tokens)
    assert after.keys() == {"semantic", "spatial", "future_semantic", "future_spatial"}
    for name, value in before.items():
        assert torch.equal(after[name], value)
        assert torch.equal(after[f"future_{name}"], value)


def test_stage_2_shares_no_weights_with_the_stage_1_it_came_from() -> None:
    stage1 = small_encoder(STAGE1)
    before = {name: value.clone() for name, value in stage1.state_dict().items()}
    stage2 = stage1.as_stage2(MemoryConfig(), anticipation=True)
    assert len({value.data_ptr() for value in stage2.state_dict().values()}) == len(stage2.state_dict())
    for value in stage2.state_dict().values():
        value.fill_(7)
    assert all(torch.equal(value, before[name]) for name, value in stage1.state_dict().items())


@pytest.mark.parametrize(("memory", "anticipation"), [(None, True), (MemoryConfig(), False), (None, False)])
def test_memory_and_anticipation_can_be_left_out(memory: MemoryConfig | None, anticipation: bool) -> None:
    encoder = small_encoder(STAGE1).as_stage2(memory, anticipation)
    assert (encoder.memory is None) is (memory is None)
    assert len(encoder.decode(torch.zeros(1, 5, 128))) == (4 if anticipation else 2)
    assert_same(stepped(encoder.eval(), noise(2, 16, 16)), whole(encoder, noise(2, 16, 16)))


def test_parts_are_counted_and_make_up_the_whole() -> None:
    encoder = small_encoder()
    parts = encoder.parameters_by_part()
    assert list(parts) == [
        "encoder", "semantic decoder", "spatial decoder", "memory", "semantic anticipator", "spatial anticipator",
    ]  # fmt: skip
    assert sum(parts.values()) == sum(p.numel() for p in encoder.parameters())
    assert "memory" not in small_encoder(STAGE1).parameters_by_part()


def test_a_vit_small_has_the_known_number_of_parameters() -> None:
    with torch.device("meta"):
        config = ModelConfig(width=384, size=(224, 224), semantic_dim=512, spatial_dim=384)
        assert FrameEncoder(config).parameters_by_part()["encoder"] == 21_665_664  # DINO S/16


def test_gradients_reach_every_parameter_through_a_clip() -> None:
    encoder = small_encoder()
    tokens = encoder(noise(4, 16, 16))
    flat = torch.cat([tokens.cls[:, None], tokens.patches.flatten(1, 2)], dim=1)
    sum(out.square().mean() for out in encoder.decode(flat).values()).backward()  # type: ignore[union-attr]
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)] == []


def test_steps_keep_no_graph() -> None:
    assert not small_encoder().step(noise(16, 16)).cls.requires_grad


def test_an_encoder_in_the_middle_of_a_stream_can_be_copied() -> None:
    encoder, clip = small_encoder(), noise(6, 16, 16)
    for picture in clip[:4]:
        encoder.step(picture)
    twin = copy.deepcopy(encoder)
    for picture in clip[4:]:
        assert torch.equal(encoder.step(picture).cls, twin.step(picture).cls)


def test_the_stream_is_no_part_of_the_state() -> None:
    encoder = small_encoder()
    names = list(encoder.state_dict())
    encoder.step(noise(16, 16))
    assert list(encoder.state_dict()) == names


def test_tokens_print_their_shapes() -> None:
    assert repr(whole(small_encoder(), noise(2, 16, 24))) == "Tokens(cls=[2, 128], patches=[2, 2, 3, 128])"


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_two_thousand_frames_need_no_more_memory_than_two_hundred() -> None:
    config = replace(STAGE1, width=64, depth=1, patch=4, memory=MemoryConfig())
    encoder, clip = small_encoder(config), noise(16, 32, 32)
    for time in range(200):
        encoder.step(clip[time % 16])
    assert encoder._bank is not None
    assert encoder._bank._ring_BPNM is not None
    ring = encoder._bank._ring_BPNM
    place, shape, tensors, resident = ring.data_ptr(), ring.shape, live_tensors(), resident_bytes()
    for time in range(200, 2200):
        last = encoder.step(clip[time % 16])
    assert encoder._bank._ring_BPNM is ring
    assert (ring.data_ptr(), ring.shape) == (place, shape)
    assert live_tensors() <= tensors + 2  # the two of the last step
    assert resident_bytes() - resident < 8 << 20  # all that was stored of them would be 33 MB
    encoder.reset()
    torch.testing.assert_close(
        last.cls, whole(encoder, clip[torch.arange(2194, 2200) % 16]).cls[-1], rtol=1e-5, atol=1e-5
    )


def test_without_memory_a_stream_is_frame_by_frame() -> None:
    encoder, clip = small_encoder(STAGE1), noise(3, 16, 16)
    assert_same(stepped(encoder, clip), whole(encoder, clip))
    assert_same(stepped(encoder, clip.flip(0)), whole(encoder, clip.flip(0)))
