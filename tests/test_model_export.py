"""Exported programs: the encoder's own numbers without this package, or no file."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import STAGE1, STAGE2, noise, small_encoder
from torch import Tensor, nn

from frame.manifests.errors import InputError
from frame.model import MemoryConfig
from frame.model.export import export_stage1, export_step

SIZE = (16, 24)
ONE = replace(STAGE2, memory=MemoryConfig(frames=3, dim=16, layers=1))


@pytest.fixture(scope="module")
def step_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("step") / "step.pt2"
    export_step(small_encoder(ONE), path, SIZE)
    return path


def test_the_frame_encoders_program_takes_any_number_of_frames(tmp_path: Path) -> None:
    encoder = small_encoder(STAGE1)
    export_stage1(encoder, tmp_path / "encoder.pt2", SIZE)
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    with torch.no_grad():
        for count in (1, 2, 5):
            frames = noise(count, *SIZE)
            cls, patches = program(frames)
            expected = encoder.vit(frames)
            torch.testing.assert_close(cls, expected[:, 0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(patches, expected[:, 1:].reshape(count, 2, 3, 128), rtol=1e-4, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.pt2"]


def test_the_programs_steps_are_the_encoders_for_longer_than_the_memory(step_file: Path) -> None:
    program, encoder = torch.export.load(step_file).module(), small_encoder(ONE)
    bank, count = torch.zeros(3, 7, 16), torch.tensor(0)
    with torch.no_grad():
        for time, frame in enumerate(noise(9, *SIZE, seed=3)):
            cls, patches, bank, count = program(frame, bank, count)
            expected = encoder.step(frame)
            torch.testing.assert_close(cls, expected.cls, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(patches, expected.patches, rtol=1e-4, atol=1e-4)
            assert int(count) == time + 1


def test_what_an_empty_bank_holds_has_no_influence(step_file: Path) -> None:
    program, frame = torch.export.load(step_file).module(), noise(*SIZE)
    with torch.no_grad():
        clean = program(frame, torch.zeros(3, 7, 16), torch.tensor(0))
        dirty = program(frame, torch.full((3, 7, 16), torch.nan), torch.tensor(0))
    torch.testing.assert_close(clean[0], dirty[0])
    torch.testing.assert_close(clean[1], dirty[1])


def test_the_program_runs_where_this_package_is_not(step_file: Path) -> None:
    script = (
        "import sys, torch\n"
        f"program = torch.export.load({str(step_file)!r}).module()\n"
        "out = program(torch.zeros(16, 24, 3, dtype=torch.uint8), torch.zeros(3, 7, 16), torch.tensor(0))\n"
        "brought = [name for name in sys.modules if name.startswith(('frame', 'timm'))]\n"
        "print([list(value.shape) for value in out], brought)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[[128], [2, 3, 128], [3, 7, 16], []] []")


def test_exporting_leaves_the_encoder_and_its_stream_alone(tmp_path: Path) -> None:
    encoder, clip = small_encoder(ONE), noise(4, *SIZE)
    expected = [encoder.step(frame).cls for frame in clip]
    encoder.reset()
    for time in (0, 1):
        assert torch.equal(encoder.step(clip[time]).cls, expected[time])
    encoder.train()
    export_step(encoder, tmp_path / "step.pt2", SIZE)
    assert encoder.training
    assert torch.equal(encoder.step(clip[2]).cls, expected[2])


def test_a_program_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "encoder.pt2"
    path.write_bytes(b"an older one")
    load = torch.export.load

    class Shifted(nn.Module):
        def __init__(self, program: nn.Module) -> None:
            super().__init__()
            self.program = program

        def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
            cls, patches = self.program(frames)
            return cls + 0.01, patches

    class Loaded:
        def __init__(self, file: Path) -> None:
            self.file = file

        def module(self) -> nn.Module:
            return Shifted(load(self.file).module())

    monkeypatch.setattr(torch.export, "load", Loaded)
    with pytest.raises(InputError, match=r"differ by up to 0\.01"):
        export_stage1(small_encoder(STAGE1), path, SIZE)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"an older one"]


def test_sizes_and_encoders_without_such_a_program_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to 16 x 24"):
        export_stage1(small_encoder(STAGE1), tmp_path / "encoder.pt2", (16, 25))
    with pytest.raises(ValueError, match="use export_stage1"):
        export_step(small_encoder(STAGE1), tmp_path / "step.pt2", SIZE)
    assert not list(tmp_path.iterdir())
