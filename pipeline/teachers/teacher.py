"""A loaded teacher: frames in, features out, exactly as its library gives them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from frame.manifests.errors import InputError
from frame.pipeline.teachers.checkpoint import read_checkpoint, weights_digest
from frame.pipeline.teachers.geometry import Frames, fit_clips
from frame.pipeline.teachers.hub import hub_file
from frame.pipeline.teachers.library import Library, library_of
from frame.pipeline.teachers.spec import TeacherSpec
from frame.pipeline.teachers.strict import load_strictly
from frame.pipeline.teachers.weights import WeightSource

Precision = Literal["float32", "float16", "bfloat16"]
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Teacher:
    """Calls a frozen model on frames. Made by ``load_teacher``.

    The features of a row do not depend on the other rows of the batch beyond rounding; for the same bytes, call it with
    the same batch on the same hardware.
    """

    def __init__(
        self,
        *,
        spec: TeacherSpec,
        model: nn.Module,
        device: torch.device,
        precision: Precision,
        weights: dict[str, str | None],
    ) -> None:
        self.spec, self.device, self.precision = spec, device, precision
        self._weights = weights
        self._library: Library = library_of(spec.library)
        self.model = model.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(spec.mean, device=device).reshape(shape)
        self._std = torch.tensor(spec.std, device=device).reshape(shape)

    def __call__(self, clips: Sequence[Frames]) -> dict[str, Tensor]:
        """uint8 clips [n_i, H_i, W_i, 3] to one float32 tensor [sum of n_i, ...] a column suffix, on the device.

        Rows keep their order and go through the model as one batch. Values that are not finite are returned as they
        are: see ``finite``.
        """
        return self.forward(fit_clips(clips, self.spec.input_size, self.spec.fit, device=self.device))

    def forward(self, fitted: Tensor) -> dict[str, Tensor]:
        """The same from ``fit_frames``, float [B, 3, S, S] in 0..255: teachers of one input size share the resizing.

        A spec with ``eight_bit`` rounds them first, as the stored pictures are.
        """
        if not len(fitted):
            return {suffix: torch.empty((0, *shape), device=self.device) for suffix, shape in self.spec.columns.items()}
        with torch.inference_mode(), _kernels(self.device, self.precision):
            seen = fitted.to(self.device)
            seen = seen.round() if self.spec.eight_bit else seen
            pixels = (seen / 255.0 - self._mean) / self._std
            features = self._library.features(self.model, pixels.contiguous(memory_format=torch.channels_last))
            return {suffix: features[suffix].float() for suffix in self.spec.columns}

    def features(self, pixels: Tensor) -> dict[str, Tensor]:
        """What the library gives for normalised pixels of any whole grid, [B, 3, H, W]; modes are the caller's."""
        return self._library.features(self.model, pixels)

    def kernels(self) -> contextlib.AbstractContextManager[None]:
        """The arithmetic that features are promised in: see ``load_teacher``."""
        return _kernels(self.device, self.precision)

    def record(self) -> dict[str, Any]:
        """What a cache has to remember of this teacher, as JSON values: no path, no host, no time."""
        spec = self.spec
        return {
            "name": spec.name, "requested": spec.requested, "model": spec.model, "tag": spec.tag,
            "library": spec.library, "library_version": self._library.version(), "weights": dict(self._weights),
            "input_size": spec.input_size, "fit": spec.fit,
            "interpolation": "bicubic, antialiased, on float RGB" + (", rounded to 8 bits" if spec.eight_bit else ""),
            "mean": list(spec.mean), "std": list(spec.std), "patch": spec.patch,
            "grid": None if spec.grid is None else list(spec.grid), "final_norm": spec.final_norm,
            "columns": {f"{spec.name}.{suffix}": list(shape) for suffix, shape in spec.columns.items()},
            "precision": self.precision, "licence": spec.licence,
        }  # fmt: skip


def load_teacher(
    spec: TeacherSpec, *, weights: WeightSource, device: torch.device | str, precision: Precision = "float32"
) -> Teacher:
    """Build the model of ``spec``, give it its weights, and put it on ``device``.

    ``precision`` other than float32 is autocast: faster on an accelerator, and less than a feature is promised to be.
    With DeiT-Tiny's real weights 4 % of the tokens then miss a cosine of 0.99999 in float16 (the worst has 0.9995), and
    all of them in bfloat16. Raises InputError where the weights cannot be had or do not fit in every key. The global
    random state is left as it was.
    """
    place = torch.device(device)
    library = library_of(spec.library)
    seed = int.from_bytes(hashlib.sha256(f"{spec.library}:{spec.model}".encode()).digest()[:7], "big")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = library.build(spec)
    record = _fill(model, spec, library, weights)
    return Teacher(spec=spec, model=model, device=place, precision=precision, weights=record)


def finite(features: Mapping[str, Tensor]) -> Tensor:
    """bool [rows]: True where every value of every column is finite."""
    masks = [torch.isfinite(values).flatten(1).all(dim=1) for values in features.values()]
    return torch.stack(masks).all(dim=0)


def _fill(model: nn.Module, spec: TeacherSpec, library: Library, weights: WeightSource) -> dict[str, str | None]:
    """Load the weights into the model; what ``record`` says of them."""
    path = _checkpoint(spec, weights)
    if path is not None:
        state = library.adapt(read_checkpoint(path), model, spec, may_resample=weights.origin == "hub")
        load_strictly(model, state, where=str(path))
    return {
        "origin": weights.origin,
        "file": path.name if path else None,
        "repository": spec.hub if weights.origin == "hub" else None,
        "sha256": weights_digest(model.state_dict()),
    }


def _checkpoint(spec: TeacherSpec, weights: WeightSource) -> Path | None:
    if weights.origin == "random":
        return None
    if weights.file is not None:
        return weights.file
    fix = f"give a file: --weights {spec.name}=FILE (safetensors or .pth), or --weights {spec.name}=random for a trial"
    if not spec.hub:
        raise InputError(what=f"{spec.library} names no hub source for {spec.model}.", where=spec.requested, fix=fix)
    return hub_file(spec.hub, spec.hub_files, fix=fix)


@contextlib.contextmanager
def _kernels(device: torch.device, precision: Precision) -> Iterator[None]:
    """Autocast for the precision; on CUDA also kernels that give the same bits each time, and no TF32 in float32."""
    with contextlib.ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False))
        if precision in _DTYPES:
            stack.enter_context(torch.autocast(device.type, dtype=_DTYPES[precision]))
        yield
