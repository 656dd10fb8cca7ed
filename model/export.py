"""Programs of an encoder that run without this package: ``torch.export`` files (``.pt2``) for torch and AOTInductor.

B batch, P past frames, N tokens (1 CLS + h x w patches), D width, M memory width, H W pixels, h w grid.

>>> program = torch.export.load("step.pt2").module()
>>> bank, count = torch.zeros(5, 197, 64), torch.tensor(0)
>>> cls, patches, bank, count = program(frame, bank, count)  # for every frame; start again from zeros for another video
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from frame.manifests.errors import InputError
from frame.model.encoder import FrameEncoder
from frame.model.files import replacing
from frame.model.memory import Memory
from frame.model.vit import ViTEncoder

_TOLERANCE = 1e-4
_CHECKED_STEPS = 3  # beyond a full memory


class _Stage1(nn.Module):
    """The frame encoder of one frame size."""

    def __init__(self, vit: ViTEncoder, grid: tuple[int, int]) -> None:
        super().__init__()
        self.vit, self.grid = vit, grid

    def forward(self, frames_BHW3: Tensor) -> tuple[Tensor, Tensor]:
        """cls [B, D], patches [B, h, w, D]."""
        tokens_BND = self.vit(frames_BHW3)
        return tokens_BND[:, 0], tokens_BND[:, 1:].reshape(-1, *self.grid, tokens_BND.shape[2])


class _Step(nn.Module):
    """One step of one stream, its memory given and returned."""

    def __init__(self, vit: ViTEncoder, memory: Memory, grid: tuple[int, int]) -> None:
        super().__init__()
        self.vit, self.memory, self.grid = vit, memory, grid

    def forward(self, frame_HW3: Tensor, bank_PNM: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """cls [D], patches [h, w, D], the bank with this frame in it, and count + 1: the frames seen so far."""
        tokens_BND = self.vit(frame_HW3[None])
        stored_BNM = self.memory.store(tokens_BND, self.grid)
        slot_P = torch.arange(len(bank_PNM), device=bank_PNM.device)
        present_P, age_P = slot_P < count, (count - 1 - slot_P) % len(bank_PNM) + 1
        tokens_BND = self.memory.attend(tokens_BND, bank_PNM[None], self.grid, present_P[None], age_P[None])
        newest_P11 = (slot_P == count % len(bank_PNM))[:, None, None]
        bank_PNM = torch.where(newest_P11, stored_BNM, bank_PNM)
        return tokens_BND[0, 0], tokens_BND[0, 1:].reshape(*self.grid, tokens_BND.shape[2]), bank_PNM, count + 1


def export_stage1(encoder: FrameEncoder, path: Path, size: tuple[int, int]) -> None:
    """Write the program of the frame encoder: uint8 frames [B, H, W, 3] to (cls [B, D], patches [B, h, w, D]).

    ``size`` is (H, W); any B will do. The file is read back and compared with the encoder before it takes its name.
    Raises InputError where they differ, or the disk refuses; ValueError for a size with part of a patch.
    """
    vit = copy.deepcopy(encoder.vit).cpu().float().eval()
    grid = vit.grid(*size)
    frames = _noise(2, size)
    with torch.no_grad():
        exported = torch.export.export(_Stage1(vit, grid), (frames,), dynamic_shapes=({0: Dim("frames", min=1)},))
        with replacing(path) as partial:
            program = _saved(exported, partial)
            for count in (1, 3):
                frames = _noise(count, size)
                expected = vit(frames)
                cls, patches = program(frames)
                _require_same(torch.cat([cls[:, None], patches.flatten(1, 2)], dim=1), expected, path)


def export_step(encoder: FrameEncoder, path: Path, size: tuple[int, int]) -> None:
    """Write the program of one step: (frame uint8 [H, W, 3], bank float [P, N, M], count int64) to (cls [D],
    patches [h, w, D], bank, count). Begin with zeros for both.

    ``size`` is (H, W). The file is read back and run beside ``FrameEncoder.step`` until the memory has gone round,
    before it takes its name. Raises InputError where they differ, or the disk refuses; ValueError for a size with part
    of a patch, or an encoder without memory.
    """
    encoder = copy.deepcopy(encoder).cpu().float().eval()
    if encoder.memory is None or encoder.config.memory is None:
        raise ValueError("an encoder without memory has no step to export: use export_stage1")
    grid = encoder.vit.grid(*size)
    room = encoder.config.memory
    bank, count = torch.zeros(room.frames, 1 + grid[0] * grid[1], room.dim), torch.tensor(0)
    frames = _noise(room.frames + _CHECKED_STEPS, size)
    encoder.reset()
    with torch.no_grad():
        step = _Step(encoder.vit, encoder.memory, grid)
        exported = torch.export.export(step, (frames[0], bank, count))
        with replacing(path) as partial:
            program = _saved(exported, partial)
            for frame in frames:
                expected = encoder.step(frame)
                cls, patches, bank, count = program(frame, bank, count)
                _require_same(cls, expected.cls, path)
                _require_same(patches, expected.patches, path)


def _saved(exported: ExportedProgram, path: Path) -> nn.Module:
    """The program as it comes back from the file."""
    torch.export.save(exported, path)
    return torch.export.load(path).module()


def _noise(count: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, *size, 3), generator=generator, dtype=torch.uint8)


def _require_same(found: Tensor, expected: Tensor, path: Path) -> None:
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise InputError(
            what="The exported program does not give what the encoder gives, and is not kept.",
            where=str(path),
            why=f"they differ by up to {float((found - expected).abs().max()):.3g}"
            if found.shape == expected.shape
            else f"its result is {list(found.shape)}, not {list(expected.shape)}",
            fix="check the versions of torch and timm against this package's constraints",
        )
