"""The encoder as it is used: frames in, tokens out, the memory inside (FRAME 3).

B batch, T frames of a clip, P past frames, N tokens (1 CLS + h x w patches), D width, M memory width, H W pixels,
h w grid.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from numpy.typing import NDArray
from torch import Tensor, nn

from frame.model import pretrained
from frame.model.bank import Bank
from frame.model.config import MemoryConfig, ModelConfig
from frame.model.decoders import SemanticDecoder, SpatialDecoder
from frame.model.memory import Memory, past_windows
from frame.model.vit import ViTEncoder

Pictures = Tensor | NDArray[np.uint8]  # decoders and caches give arrays

# Tokens of a clip that are worked on at once: enough to keep an accelerator busy, little enough for any length of clip.
_CHUNK_TOKENS = 8192


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Tokens:
    """What is known of frames: ``cls`` [..., D] and ``patches`` [..., h, w, D], shaped as the frames are."""

    cls: Tensor
    patches: Tensor

    def __repr__(self) -> str:
        return f"Tokens(cls={list(self.cls.shape)}, patches={list(self.patches.shape)})"


class FrameEncoder(nn.Module, PyTorchModelHubMixin, library_name="frame-encoder", tags=["video", "distillation"]):
    """``vit`` sees single frames, ``memory`` (None in stage 1) relates them to the past, decoders reach the teachers.

    >>> encoder = FrameEncoder.from_pretrained("runs/stage2")
    >>> for frame in video:  # uint8 [H, W, 3]
    ...     tokens = encoder.step(frame)
    >>> encoder.reset()
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vit = ViTEncoder(config)
        self.semantic = SemanticDecoder(config.width, config.semantic_dim)
        self.spatial = SpatialDecoder(config)
        self.memory = None
        if config.memory is not None:
            self.memory = Memory(config.memory, width=config.width, heads=config.heads)
        self.future_semantic = copy.deepcopy(self.semantic) if config.anticipation else None
        self.future_spatial = copy.deepcopy(self.spatial) if config.anticipation else None
        self._bank: Bank | None = None
        self._streams: tuple[int, ...] | None = None  # the shape of the frames of the last step
        self.reset()

    def forward(self, clip: Pictures) -> Tokens:
        """The tokens of a whole clip, uint8 [T, H, W, 3] or [B, T, H, W, 3]: what ``step`` gives frame by frame.

        The memory starts empty, and that of ``step`` is neither used nor changed. Frames are worked on in chunks, so
        that the memory needed beyond the result does not grow with the clip, unless gradients are wanted. Raises
        ValueError for other shapes.
        """
        clip = _as_tensor(clip)
        if clip.ndim not in (4, 5) or not min(clip.shape[:-3]):
            raise ValueError(f"a clip is [frames, height, width, 3] or a batch of such, not {list(clip.shape)}")
        clip_BTHW3 = clip if clip.ndim == 5 else clip[None]
        grid = self.vit.grid(clip_BTHW3.shape[2], clip_BTHW3.shape[3])
        length = max(1, _CHUNK_TOKENS // (len(clip_BTHW3) * (1 + grid[0] * grid[1])))
        chunks, past = [], None
        for first in range(0, clip_BTHW3.shape[1], length):
            tokens_BTND = self._encode(clip_BTHW3[:, first : first + length])
            if self.memory is not None:
                tokens_BTND, past = self._remember(self.memory, tokens_BTND, grid, past, first)
            chunks.append(tokens_BTND)
        tokens_BTND = torch.cat(chunks, dim=1)
        return _tokens(tokens_BTND if clip.ndim == 5 else tokens_BTND[0], grid)

    @torch.inference_mode()
    def step(self, frame: Pictures) -> Tokens:
        """The tokens of the next frame of a stream, uint8 [H, W, 3], or of several streams at once, [B, H, W, 3].

        The past frames are remembered inside: call ``reset`` before another video. Raises ValueError for another size
        or number of streams than the last step's.
        """
        frame = _as_tensor(frame)
        if frame.ndim not in (3, 4):
            raise ValueError(f"a frame is [height, width, 3] or a batch of such, not {list(frame.shape)}")
        frames_BHW3 = (frame if frame.ndim == 4 else frame[None]).to(self.vit.device, non_blocking=True)
        shape = tuple(frames_BHW3.shape)
        if self._streams is not None and self._streams != shape:
            raise ValueError(f"frames were {list(self._streams)} and are now {list(shape)}: call reset() in between")
        tokens_BND = self.vit(frames_BHW3)
        grid = self.vit.grid(shape[1], shape[2])
        if self.memory is not None and self._bank is not None:
            stored_BNM = self.memory.store(tokens_BND, grid)
            past_BPNM, age_BP = self._bank.read(stored_BNM)
            tokens_BND = self.memory.attend(tokens_BND, past_BPNM, grid, age_BP=age_BP)
            self._bank.write(stored_BNM)
        self._streams = shape
        return _tokens(tokens_BND if frame.ndim == 4 else tokens_BND[0], grid)

    def reset(self) -> None:
        """Forget the frames that ``step`` has seen."""
        self._bank = Bank(self.config.memory.frames) if self.config.memory is not None else None
        self._streams = None

    def decode(self, tokens_BND: Tensor) -> dict[str, Tensor]:
        """What tokens (CLS first) say in the teachers' spaces: ``semantic`` [B, C] and ``spatial`` [B, N - 1, C].

        With anticipators also ``future_semantic`` and ``future_spatial``, of the same shapes.
        """
        decoders = {name: getattr(self, name) for name in ("semantic", "spatial", "future_semantic", "future_spatial")}
        return {name: decoder(tokens_BND) for name, decoder in decoders.items() if decoder is not None}

    def as_stage2(self, memory: MemoryConfig | None, anticipation: bool) -> FrameEncoder:
        """A new encoder with copies of this one's frame encoder and decoders, and a fresh memory (FRAME 3.2).

        Anticipators start as copies of the decoders (FRAME 3.3).
        """
        encoder = FrameEncoder(replace(self.config, memory=memory, anticipation=anticipation))
        encoder.vit.load_state_dict(self.vit.state_dict())
        for ours, theirs in ((self.semantic, encoder.semantic), (self.spatial, encoder.spatial)):
            theirs.load_state_dict(ours.state_dict())
        if encoder.future_semantic is not None and encoder.future_spatial is not None:
            encoder.future_semantic.load_state_dict(self.semantic.state_dict())
            encoder.future_spatial.load_state_dict(self.spatial.state_dict())
        return encoder.to(self.vit.device)

    def parameters_by_part(self) -> dict[str, int]:
        """How many parameters each part has; parts that are not there are left out."""
        parts = {
            "encoder": self.vit, "semantic decoder": self.semantic, "spatial decoder": self.spatial,
            "memory": self.memory, "semantic anticipator": self.future_semantic,
            "spatial anticipator": self.future_spatial,
        }  # fmt: skip
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items() if part is not None}

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin's would build a model from any JSON, and unpickle
        cls, pretrained_model_name_or_path: str | Path, *, revision: str | None = None, token: str | bool | None = None
    ) -> FrameEncoder:
        """A trained encoder, on the CPU and in evaluation mode.

        From a run's folder, a folder that ``save_pretrained`` wrote, or the hub by name (at ``revision``, with
        ``token``). Every tensor must be there and be the one that was saved. Raises InputError otherwise, and where the
        hub cannot be reached. Nothing is ever unpickled.
        """
        source = pretrained.find(pretrained_model_name_or_path, revision=revision, token=token)
        config, state = pretrained.read(source)
        with torch.random.fork_rng(devices=[]):
            encoder = cls(config)
        pretrained.fill(encoder, state, source)
        return encoder.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        pretrained.write(save_directory, self.config, self.state_dict())

    def generate_model_card(self) -> ModelCard:
        """Beside the weights: what they are, how large, and what they do not say."""
        return pretrained.card(self.config, self.parameters_by_part(), self._hub_mixin_info.model_card_data)

    def _encode(self, clip_BTHW3: Tensor) -> Tensor:
        tokens_BND: Tensor = self.vit(clip_BTHW3.flatten(0, 1).to(self.vit.device, non_blocking=True))
        return tokens_BND.reshape(*clip_BTHW3.shape[:2], *tokens_BND.shape[1:])

    @staticmethod
    def _remember(
        memory: Memory, tokens_BTND: Tensor, grid: tuple[int, int], past_BPNM: Tensor | None, first: int
    ) -> tuple[Tensor, Tensor]:
        """A chunk's tokens after looking at the past, and the past of the next chunk, oldest frame first.

        ``first`` is the number of the chunk's first frame in its clip.
        """
        batch, length = tokens_BTND.shape[:2]
        tokens_BND = tokens_BTND.flatten(0, 1)
        stored_BTNM = memory.store(tokens_BND, grid).reshape(batch, length, tokens_BND.shape[1], -1)
        if past_BPNM is None:
            past_BPNM = stored_BTNM.new_zeros(batch, memory.frames, *stored_BTNM.shape[2:])
        all_BFNM = torch.cat([past_BPNM, stored_BTNM], dim=1)
        # Before the clip's first frame there is nothing. Known on the CPU, so that no accelerator is waited for.
        frame_T, age_P = torch.arange(first, first + length), torch.arange(1, memory.frames + 1)
        present_BP = (frame_T[:, None] >= age_P).repeat(batch, 1)
        windows_BPNM = past_windows(all_BFNM, memory.frames).flatten(0, 1)
        attended_BND = memory.attend(tokens_BND, windows_BPNM, grid, present_BP)
        return attended_BND.reshape(tokens_BTND.shape), all_BFNM[:, -memory.frames :]


def _as_tensor(pictures: Pictures) -> Tensor:
    # Copied, because an array may be one that must not be written to, which torch has no word for.
    return pictures if isinstance(pictures, Tensor) else torch.from_numpy(np.array(pictures))


def _tokens(tokens: Tensor, grid: tuple[int, int]) -> Tokens:
    """[..., N, D] apart."""
    *leading, _, width = tokens.shape
    return Tokens(cls=tokens[..., 0, :], patches=tokens[..., 1:, :].reshape(*leading, *grid, width))
