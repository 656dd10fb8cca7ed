"""The five things asked of a model library; ``timm_vit``, ``open_clip_tower`` and ``frame_vit`` answer them as plain
functions."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Protocol, cast

from torch import Tensor, nn

from frame.pipeline.teachers.names import LibraryName, TeacherName
from frame.pipeline.teachers.spec import Fit, TeacherSpec


class Library(Protocol):
    """A module that speaks for one library."""

    def version(self) -> str:
        """The installed version."""

    def describe(self, name: TeacherName, *, size: int, fit: Fit) -> TeacherSpec:
        """Describe a model without its weights. Raises InputError if it is unknown or unsuitable."""

    def build(self, spec: TeacherSpec) -> nn.Module:
        """Make the model on the CPU with the library's random initial values, in evaluation mode."""

    def adapt(
        self, state: Mapping[str, Tensor], model: nn.Module, spec: TeacherSpec, *, may_resample: bool
    ) -> dict[str, Tensor]:
        """Bring a checkpoint to the model's own key names, without the heads and towers that features do not use."""

    def features(self, model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        """[B, 3, S, S] normalised pixels to one tensor [B, ...] for each column suffix."""


_MODULES: Mapping[LibraryName, str] = {"timm": "timm_vit", "open_clip": "open_clip_tower", "frame": "frame_vit"}


def library_of(name: LibraryName) -> Library:
    """Import the module for a library, and with it the library, only now: each takes a second or more."""
    return cast(Library, importlib.import_module(f"frame.pipeline.teachers.{_MODULES[name]}"))
