"""Any encoder behind one face: frames of a sequence in, tokens out, in order, with whatever memory it has inside.

T frames of a sequence, H W pixels, h w grid, D width, C channels of the space shared with text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frame.manifests.errors import InputError
from frame.model import Tokens

Picture = NDArray[np.uint8]  # RGB [H, W, 3]
Frame = Picture | NDArray[np.float32]  # the same, or values from 0 to 255 that were not rounded after a resize
Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
# Frames that go through an image encoder together on an accelerator; on a CPU one at a time is as fast.
_TOGETHER = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderInfo:
    """What a result says of its encoder. ``memory`` counts the past frames it looks at (0: each frame by itself)."""

    name: str
    kind: str  # frame, timm or open_clip
    model: str
    patch: int
    width: int
    mean: Triple
    std: Triple
    memory: int
    weights: str  # file, hub, random, or run
    digest: str  # sha256 over all tensors

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


class Encoder(Protocol):
    """What every evaluation works with. See ``open_encoder``."""

    info: EncoderInfo
    device: torch.device

    def stream(self, frames: Iterable[Frame], *, std: Triple | None = None) -> Iterator[Tokens]:
        """Tokens of each frame of one sequence: ``cls`` [D] and ``patches`` [h, w, D], float32 on the device.

        The memory is empty at the first frame and only ever sees the past: a sequence cannot leak into another.
        Frames are of one size, whole patches a side. ``std`` replaces ImageNet's standard deviation in an encoder that
        uses it (a protocol may have a slip of its own there); other encoders keep theirs. The CLS token is the one
        after the final norm; of ``open_clip`` it is the projected embedding.
        """

    def semantic(self, cls_TD: Tensor) -> Tensor:
        """CLS tokens in the space shared with text, [T, C], not normalised. Raises InputError where there is none."""


def open_encoder(name: str, *, weights: str = "", device: str = "auto") -> Encoder:
    """The encoder ``name``: a run's folder, ``timm:MODEL[.TAG]``, ``open_clip:MODEL[/TAG]``, a teacher's name, or a
    hub name of a FRAME encoder (``owner/name``).

    ``weights`` is a file, or ``random``, for an image encoder; a run has its own. ``device`` ``auto`` takes an
    accelerator where there is one. Raises InputError for an unknown name, weights that do not fit in every key, and a
    model without plain patch tokens.
    """
    place = open_device(device)
    if _is_run(name):
        if weights:
            raise InputError(
                what="A FRAME encoder has its own weights.", where=f"--weights {weights}", fix="leave the option out"
            )
        from frame.eval.frame_stream import FrameStream

        return FrameStream(name, place)
    from frame.eval.image_encoder import ImageEncoder

    return ImageEncoder(name, weights, place)


def open_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``. Raises InputError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        why = (str(error).splitlines() or [""])[0]
        raise InputError(what="There is no such device.", where=f"--device {name}", why=why, fix="use cpu") from error
    return device


def batched(frames: Iterable[Frame], device: torch.device) -> Iterator[Tensor]:
    """uint8 or float32 [B, H, W, 3] on the device, B as many as go through an encoder together."""
    count = 1 if device.type == "cpu" else _TOGETHER
    held: list[Frame] = []
    for frame in frames:
        held.append(frame)
        if len(held) == count:
            yield torch.from_numpy(np.stack(held)).to(device)
            held = []
    if held:
        yield torch.from_numpy(np.stack(held)).to(device)


def _is_run(name: str) -> bool:
    """A folder, or what can only be one, or a name of the hub; not a teacher."""
    from frame.pipeline.teachers import catalogue

    if name in catalogue() or name.startswith(("timm:", "open_clip:")):
        return False
    if ":" in name.split("/")[0]:
        return False
    return "/" in name or Path(name).expanduser().is_dir()
