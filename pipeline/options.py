"""What a build is asked to do, and how that is written into ``cache.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from frame.manifests.errors import InputError
from frame.pipeline.encoding_option import parse_encoding
from frame.pipeline.store.layout import COPIED, CacheMeta, StoreKind
from frame.pipeline.store.objects import StorePath

Fit = Literal["crop", "squash"]
DecoderName = Literal["decord", "pyav", "torchcodec"]
Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildOptions:
    """Everything that decides the content of a cache, besides the videos and the weights."""

    dataset: str
    source: Path
    teachers: tuple[str, ...]
    weights: tuple[str, ...] = ()
    size: int = 224
    fit: Fit = "crop"
    fps: float | None = None
    frames_per_clip: int | None = None
    store: StoreKind = "zarr"
    encoding: str = "float16"
    decoder: DecoderName = "decord"
    precision: Precision = "float32"
    seed: int = 0
    per_class: int | None = None
    limit: int | None = None
    unit_rows: int | None = None
    batch_rows: int = 32

    def __post_init__(self) -> None:
        checks: list[tuple[bool, str, str, str]] = [
            (16 <= self.size <= 4096, "--size", str(self.size), "give a side between 16 and 4096 pixels"),
            (self.fps is None or 0 < self.fps <= 1000, "--fps", str(self.fps), "give `native` or frames a second"),
            (_positive(self.frames_per_clip), "--frames-per-clip", str(self.frames_per_clip), "give at least 1"),
            (_positive(self.per_class), "--per-class", str(self.per_class), "give at least 1"),
            (_positive(self.limit), "--limit", str(self.limit), "give at least 1"),
            (_positive(self.unit_rows), "--unit-rows", str(self.unit_rows), "give at least 1"),
            (1 <= self.batch_rows <= 4096, "--batch-rows", str(self.batch_rows), "give between 1 and 4096"),
        ]
        for fine, option, value, fix in checks:
            if not fine:
                raise InputError(what=f"{option} {value} makes no sense.", where=option, fix=fix)
        parse_encoding(self.encoding)
        if not self.teachers:
            raise InputError(
                what="No teacher was named.", where="--teachers", fix="for instance dino_vits16,clip_vitb32"
            )

    def dataset_json(self, *, licence: str, clips: int) -> dict[str, Any]:
        """The ``dataset`` object of ``cache.json``."""
        return {
            "name": self.dataset,
            "licence": licence,
            "clips": clips,
            "seed": self.seed,
            "per_class": self.per_class,
            "limit": self.limit,
        }

    def sampling_json(self) -> dict[str, Any]:
        """The ``sampling`` object of ``cache.json``."""
        return {"fps": self.fps, "frames_per_clip": self.frames_per_clip}

    def geometry_json(self) -> dict[str, Any]:
        """The ``geometry`` object of ``cache.json``."""
        return {"size": self.size, "fit": self.fit, "resize": "torch antialiased bicubic on float RGB, clamped"}

    def build_json(self) -> dict[str, Any]:
        """The ``build`` object of ``cache.json``: options that decide bytes."""
        return {
            "encoding": self.encoding,
            "decoder": self.decoder,
            "precision": self.precision,
            "batch_rows": self.batch_rows,
        }


def _positive(value: int | None) -> bool:
    return value is None or value >= 1


def options_of(meta: CacheMeta, source: Path) -> BuildOptions:
    """The options a cache was planned with, as far as its metadata keep them."""
    return BuildOptions(
        dataset=meta.dataset["name"],
        source=source,
        teachers=tuple(record["requested"] for record in meta.teachers.values()),
        size=meta.geometry["size"],
        fit=meta.geometry["fit"],
        store=meta.store,
        seed=meta.dataset["seed"],
        per_class=meta.dataset["per_class"],
        limit=meta.dataset["limit"],
        unit_rows=meta.rows_per_unit,
        **meta.sampling,
        # A copy notes there what it was made of; that is no option of a build.
        **{key: value for key, value in meta.build.items() if key not in COPIED},
    )


def require_same(meta: CacheMeta, options: BuildOptions, *, cache: StorePath) -> None:
    """Refuse to go on with a cache under other options than it was planned with, naming each that differs."""
    have: dict[str, Any] = {**meta.sampling, **meta.geometry, **meta.build, "store": meta.store}
    want: dict[str, Any] = {
        **options.sampling_json(),
        **options.geometry_json(),
        **options.build_json(),
        "store": options.store,
    }
    for key in ("name", "seed", "per_class", "limit"):
        have[f"dataset {key}"] = meta.dataset[key]
        want[f"dataset {key}"] = options.dataset_json(licence="", clips=0)[key]
    if options.unit_rows is not None:
        have["unit rows"], want["unit rows"] = meta.rows_per_unit, options.unit_rows
    differing = [f"{key}: cache {have[key]}, asked {want[key]}" for key in want if have.get(key) != want[key]]
    if differing:
        raise InputError(
            what="This cache was planned with other options.",
            where=str(cache),
            why="; ".join(differing),
            fix=f"`frame-cache build {cache}` resumes it as it was planned; another plan needs another --out.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """How a build is carried out; none of it changes a byte."""

    units: tuple[int, int] = (1, 1)  # the I-th of N equal shares, 1-based
    address: str | None = None
    workers: int | None = None
    max_failures: float = field(default=0.05)
    deep_check: bool = True


def parse_share(text: str | None) -> tuple[int, int]:
    """``3/16`` -> (3, 16). Raises ``InputError`` for anything but 1 <= I <= N."""
    if text is None:
        return 1, 1
    part, _, whole = text.partition("/")
    if part.isdecimal() and whole.isdecimal() and 1 <= int(part) <= int(whole):
        return int(part), int(whole)
    raise InputError(
        what=f"--units {text} makes no sense.", where="--units", fix="I/N with 1 <= I <= N, for instance 3/16"
    )


def share_of(units: int, share: tuple[int, int]) -> range:
    """The units of one share: contiguous, disjoint, together all of them."""
    part, whole = share
    return range(units * (part - 1) // whole, units * part // whole)
