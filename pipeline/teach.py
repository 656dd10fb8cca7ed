"""The teachers at work: a batch of decoded frames to encoded columns, everything on the device until it is small."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frame.manifests.errors import InputError
from frame.pipeline.block import ABOUT
from frame.pipeline.options import Fit, Precision
from frame.pipeline.store.columns import FRAMES, Column, Steps
from frame.pipeline.teachers import (
    Encoding,
    Scales,
    Teacher,
    TeacherSpec,
    WeightSource,
    encode,
    fit_clips,
    load_teacher,
    to_pictures,
)

# What a record says of where the weights were found; the rest says what they are, and has to agree on a resume.
_PROVENANCE = ("requested", "library_version")


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherPlan:
    """Which teachers to load, and what to make of a batch. Small and picklable: actors are started from it.

    ``records``: each teacher's entry in ``cache.json``; a teacher whose weights or preprocessing differ is refused.
    ``columns``: how each column is encoded.
    """

    specs: tuple[TeacherSpec, ...]
    weights: Mapping[str, WeightSource]
    records: Mapping[str, dict[str, Any]]
    precision: Precision
    columns: Mapping[str, Column]
    size: int
    fit: Fit
    threads: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """One batch, encoded: arrays by name (and ``ABOUT`` ones: loss and moments of every segment), which segments are
    finite throughout, seconds spent, and the software behind every column."""

    arrays: dict[str, np.ndarray]
    finite: list[bool]
    software: dict[str, dict[str, str]]
    seconds: dict[str, float] = field(default_factory=dict)


def teacher_columns(specs: Sequence[TeacherSpec], *, part: str = "") -> dict[str, Column]:
    """The columns that the teachers fill, in float16."""
    return {
        f"{spec.name}.{suffix}": Column(
            name=f"{spec.name}.{suffix}", shape=tuple(shape), encoding="float16", teacher=spec.name, part=part
        )
        for spec in specs
        for suffix, shape in spec.columns.items()
    }


def same_teacher(record: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What two records disagree on, apart from where the weights were found and the library's version."""

    def essence(value: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **{key: item for key, item in value.items() if key not in (*_PROVENANCE, "weights")},
            "weights": value["weights"]["sha256"],
        }

    a, b = essence(record), essence(other)
    return [f"{key}: {a.get(key)} and {b.get(key)}" for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]


def load_recorded(
    spec: TeacherSpec,
    *,
    weights: WeightSource,
    record: Mapping[str, Any],
    precision: Precision,
    device: torch.device | str = "cpu",
) -> Teacher:
    """Load the teacher that a cache has on record. Raises InputError where it is another one."""
    teacher = load_teacher(spec, weights=weights, device=device, precision=precision)
    differing = same_teacher(record, teacher.record())
    if differing:
        raise InputError(
            what=f"The teacher {spec.name!r} is not the one this cache was built with.",
            where=f"--weights {spec.name}=…",
            why="; ".join(differing),
            fix="Give the same weights, or add the other teacher under a name of its own: --teachers ALIAS=SPEC.",
        )
    return teacher


class TeacherBench:
    """The loaded teachers of one process."""

    def __init__(self, plan: TeacherPlan) -> None:
        if plan.threads is not None:
            torch.set_num_threads(plan.threads)
        self._plan = plan
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._teachers = {spec.name: self._load(spec) for spec in plan.specs}
        steps = {name: column.steps for name, column in plan.columns.items()}
        self._scales = {name: scales_of(item, self._device) for name, item in steps.items() if item}
        self._software = {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu",
        }

    def _load(self, spec: TeacherSpec) -> Teacher:
        return load_recorded(
            spec,
            weights=self._plan.weights[spec.name],
            record=self._plan.records[spec.name],
            precision=self._plan.precision,
            device=self._device,
        )

    def make(self, columns: Sequence[str], clips: Sequence[np.ndarray]) -> Made:
        """Encode ``columns`` of the frames of ``clips``, uint8 ``[n_i, H_i, W_i, 3]`` each, as one batch.

        Without enough memory it is tried once more, and whole: parts of it would give other bytes. Raises
        ``InputError`` if that fails too, and for whatever else goes wrong in a model.
        """
        try:
            return self._make(columns, clips)
        except (RuntimeError, MemoryError) as error:
            if not _lacks_memory(error):
                raise self._failed(clips, error) from error
        # Out here, where the error no longer keeps what was made before it.
        torch.cuda.empty_cache()
        try:
            return self._make(columns, clips)
        except (RuntimeError, MemoryError) as error:
            raise self._failed(clips, error) from error

    def _failed(self, clips: Sequence[np.ndarray], error: Exception) -> InputError:
        full = _lacks_memory(error)
        return InputError(
            what="There is not enough memory for a batch." if full else "A teacher failed.",
            where=f"{', '.join(self._teachers)} on {self._software['device']}, {sum(map(len, clips))} frames at once",
            why=(str(error).splitlines() or [""])[0] or type(error).__name__,
            fix="Free memory there and run the same command again: what is finished is kept. Or build another cache "
            "with fewer --batch-rows: they are part of what a cache is."
            if full
            else "Run the same command again: what is finished is kept. If it comes again, it is this installation of "
            "torch, its driver or the device; --debug shows more.",
        )

    def _make(self, columns: Sequence[str], clips: Sequence[np.ndarray]) -> Made:
        clock = _Clock(self._device)
        fitted: dict[int, Tensor] = {}
        arrays: dict[str, np.ndarray] = {}
        counts = [len(clip) for clip in clips]
        finite = [True] * len(clips)
        software = {}
        if FRAMES in columns:
            arrays[FRAMES] = to_pictures(self._fit(clips, self._plan.size, fitted)).cpu().numpy()
            software[FRAMES] = dict(self._software)
        clock.lap("resize")
        for spec in self._plan.specs:
            wanted = [suffix for suffix in spec.columns if f"{spec.name}.{suffix}" in columns]
            if not wanted:
                continue
            pixels = self._fit(clips, spec.input_size, fitted)
            clock.lap("resize")
            features = self._teachers[spec.name].forward(pixels)
            clock.lap("teacher")
            for suffix in wanted:
                name = f"{spec.name}.{suffix}"
                made, fine = self._encode(name, features[suffix], counts)
                arrays |= made
                finite = [a and b for a, b in zip(finite, fine, strict=True)]
                software[name] = {**self._software, spec.library: self._teachers[spec.name].record()["library_version"]}
            clock.lap("encode")
        return Made(arrays=arrays, finite=finite, software=software, seconds=clock.seconds)

    def features(self, clips: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Every teacher's features of the frames of ``clips``, as they are: float32 by name of the column, on the
        processor. Raises as ``make`` does, but tries once."""
        fitted: dict[int, Tensor] = {}
        found: dict[str, Tensor] = {}
        for spec in self._plan.specs:
            try:
                made = self._teachers[spec.name].forward(self._fit(clips, spec.input_size, fitted))
            except (RuntimeError, MemoryError) as error:
                raise self._failed(clips, error) from error
            found |= {f"{spec.name}.{suffix}": features.float().cpu() for suffix, features in made.items()}
        return found

    def _fit(self, clips: Sequence[np.ndarray], size: int, done: dict[int, Tensor]) -> Tensor:
        """Resized frames; teachers of one input size, and the stored pictures, share them."""
        if size not in done:
            done[size] = fit_clips(clips, size, self._plan.fit, device=self._device)
        return done[size]

    def _encode(self, name: str, features: Tensor, counts: list[int]) -> tuple[dict[str, np.ndarray], list[bool]]:
        column = self._plan.columns[name]
        with torch.inference_mode():
            encoded = encode(features, feature_encoding(column), self._scales.get(name))
            arrays = {name: encoded.values.cpu().numpy()}
            if encoded.scale is not None:
                scale = encoded.scale.cpu().numpy()
                arrays[f"{name}.scale"] = scale if scale.ndim > 1 else scale[:, None]
            tokens = torch.split(encoded.decoded, counts)
            cosine = torch.split(encoded.cosine, counts)
            arrays[f"{ABOUT}loss:{name}"] = _rows([_loss(part) for part in cosine], 3)
            arrays[f"{ABOUT}moments:{name}"] = _rows([_moments(part) for part in tokens], 1 + 2 * features.shape[-1])
            return arrays, [bool(part.all()) for part in torch.split(encoded.finite, counts)]


def scales_of(steps: Steps, device: torch.device | str) -> Scales:
    """A column's steps, where its features are encoded."""
    step, mean = (torch.tensor(numbers, dtype=torch.float32, device=device) for numbers in (steps.step, steps.mean))
    return Scales(step=step, mean=mean)


def feature_encoding(column: Column) -> Encoding:
    """The encoding of a column of features. ``ValueError`` for pictures."""
    if column.encoding == "raw":
        raise ValueError(f"{column.name} holds no features")
    return column.encoding


def _lacks_memory(error: Exception) -> bool:
    # On a processor torch says it with a RuntimeError.
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _rows(parts: list[Tensor], width: int) -> np.ndarray:
    return torch.stack(parts).cpu().numpy() if parts else np.empty((0, width))


def _loss(cosine: Tensor) -> Tensor:
    """Number of tokens, sum and minimum of their cosines."""
    flat = cosine.double().flatten()
    return torch.stack([torch.tensor(float(len(flat)), device=flat.device, dtype=flat.dtype), flat.sum(), flat.min()])


def _moments(tokens: Tensor) -> Tensor:
    """Count, mean and summed squared deviation of every channel of ``[rows, ..., width]``."""
    flat = tokens.reshape(-1, tokens.shape[-1])
    variance, mean = torch.var_mean(flat, dim=0, correction=0)
    count = torch.tensor([float(len(flat))], device=flat.device, dtype=torch.float64)
    return torch.cat([count, mean.double(), variance.double() * len(flat)])


class _Clock:
    """Seconds by name. Waits for the device at each lap, so that a name gets the time that it caused."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._cuda = device.type == "cuda"
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        if self._cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
