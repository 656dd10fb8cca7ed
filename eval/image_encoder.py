"""An image model of timm or open_clip as an encoder: every frame by itself.

B frames, H W pixels, h w grid, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from frame.eval.encoder import IMAGENET_STD, EncoderInfo, Frame, Triple, batched
from frame.manifests.errors import InputError
from frame.model import Tokens
from frame.pipeline.teachers import Teacher, load_teacher, parse_weights, resolve

# Only describes the model: frames of any whole number of patches go through it afterwards.
_ANY_SIZE = 224


class ImageEncoder:
    """A frozen image model, given by a teacher's name, with the weights that a teacher would have."""

    def __init__(self, name: str, weights: str, device: torch.device) -> None:
        spec = resolve(name, size=_ANY_SIZE, fit="crop")
        if spec.patch is None:
            raise _no_grid(name, "it is no plain vision transformer")
        options = [weights if weights == "random" or not weights else f"{spec.name}={weights}"]
        source = parse_weights([option for option in options if option], [spec])[spec.name]
        self._teacher: Teacher = load_teacher(spec, weights=source, device=device)
        self.device, self._spec = device, spec
        self.info = EncoderInfo(
            name=name, kind=spec.library, model=f"{spec.model}.{spec.tag}" if spec.tag else spec.model,
            patch=spec.patch, width=spec.width, mean=spec.mean, std=spec.std, memory=0,
            weights=source.origin, digest=str(self._teacher.record()["weights"]["sha256"]),
        )  # fmt: skip

    def stream(self, frames: Iterable[Frame], *, std: Triple | None = None) -> Iterator[Tokens]:
        """See ``Encoder.stream``."""
        for frames_BHW3 in batched(frames, self.device):
            grid = self._grid(frames_BHW3)
            cls_BD, patches_BND = self._tokens(self._pixels(frames_BHW3, std), grid)
            patches_BhwD = patches_BND.reshape(len(frames_BHW3), *grid, -1)
            for cls_D, patches_hwD in zip(cls_BD, patches_BhwD, strict=True):
                yield Tokens(cls=cls_D, patches=patches_hwD)

    def semantic(self, cls_TD: Tensor) -> Tensor:
        """See ``Encoder.semantic``: CLIP's embedding is in that space already."""
        if self._spec.library != "open_clip":
            raise InputError(
                what="This encoder has no space shared with text.",
                where=f"--encoder {self.info.name}",
                why="zero-shot needs CLIP, or a FRAME encoder distilled from it",
                fix="use open_clip:MODEL/TAG or a run's folder, or evaluate the linear probe",
            )
        return cls_TD

    def _pixels(self, frames_BHW3: Tensor, std: Triple | None) -> Tensor:
        own = self._spec.std
        if std is not None and own == IMAGENET_STD:
            own = std
        mean_C11, std_C11 = (
            torch.tensor(triple, device=self.device)[:, None, None] for triple in (self._spec.mean, own)
        )
        return (frames_BHW3.permute(0, 3, 1, 2).float() / 255.0 - mean_C11) / std_C11

    def _grid(self, frames_BHW3: Tensor) -> tuple[int, int]:
        patch = self.info.patch
        height, width = frames_BHW3.shape[1:3]
        if height % patch or width % patch:
            raise ValueError(f"frames of {height} x {width} pixels are no whole number of patches of {patch}")
        return height // patch, width // patch

    def _tokens(self, pixels_B3HW: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), self._teacher.kernels():
            if self._spec.library == "open_clip":
                return clip_tokens(self._teacher.model, pixels_B3HW, grid, name=self.info.name)
            kept = self._teacher.features(pixels_B3HW)
        patches_BND = kept["patch"]
        # A model without a class token is summed up by the mean of its patches, as timm does.
        return kept.get("cls", patches_BND.mean(dim=1)), patches_BND


def clip_tokens(tower: Any, pixels_B3HW: Tensor, grid: tuple[int, int], *, name: str) -> tuple[Tensor, Tensor]:
    """The projected embedding [B, C] and the patch tokens [B, h x w, D] after the final norm, on any grid.

    open_clip's towers know the grid they were trained on; for another one their positions are interpolated (bicubic,
    antialiased: what open_clip does when it loads weights for another image size). Raises InputError for a tower that
    is no plain vision transformer.
    """
    if not hasattr(tower, "positional_embedding") or getattr(tower, "attn_pool", None) is not None:
        raise _no_grid(name, "its tower is no plain vision transformer")
    positions = _resized(tower.positional_embedding, grid)
    before, tower.output_tokens = tower.output_tokens, True
    try:
        cls_BC, patches_BND = functional_call(tower, {"positional_embedding": positions}, (pixels_B3HW,))
    finally:
        tower.output_tokens = before
    return cls_BC, patches_BND


def _resized(positions_ND: Tensor, grid: tuple[int, int]) -> Tensor:
    own = round((len(positions_ND) - 1) ** 0.5)
    if (own, own) == grid:
        return positions_ND
    first, rest = positions_ND[:1], positions_ND[1:]
    maps_1Dhw = rest.reshape(1, own, own, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(maps_1Dhw, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([first, resized[0].flatten(1).T])


def _no_grid(name: str, why: str) -> InputError:
    return InputError(
        what="This encoder has no plain grid of patch tokens.", where=f"--encoder {name}", why=why,
        fix="use a ViT of timm, such as dino_vits16 or timm:deit_tiny_patch16_224, or CLIP's ViT-B/32",
    )  # fmt: skip
