"""``--teachers student=RUN``: a trained student's run folder, turned into a teacher's name and the file of its weights.

A cache holds no path, so the folder must not become part of the name: what is planned, recorded and resumed is the
architecture, with weights from a file like those of any other teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from frame.manifests.errors import InputError
from frame.model import pretrained
from frame.model.config import ModelConfig
from frame.pipeline.teachers.frame_vit import student_name
from frame.pipeline.teachers.names import LibraryName, catalogue


def expand_students(teachers: Sequence[str], weights: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """``--teachers`` and ``--weights`` with every ``ALIAS=RUN`` replaced; all others are left as they are.

    ``student=runs/stage1`` becomes the teacher ``student=frame:192-12-16@224x224`` with the weights
    ``student=runs/stage1/encoder/model.safetensors``. RUN is a run folder or the folder of an encoder. The encoder is
    read once, so that a damaged one is refused before anything is planned. Raises InputError for a folder that is
    neither, for a damaged encoder, and for a RUN without ALIAS.
    """
    names: list[str] = []
    files: list[str] = []
    for teacher in teachers:
        alias, run = _split(teacher)
        if run is None:
            names.append(teacher)
            continue
        source = pretrained.find(run, revision=None, token=None)
        config, _ = pretrained.read(source)
        _require_usual_colours(config, teacher)
        names.append(f"{alias}={student_name(config)}")
        files.append(f"{alias}={source.weights}")
    return tuple(names), (*weights, *files)


def _split(teacher: str) -> tuple[str, Path | None]:
    """The alias and the folder of ``ALIAS=RUN``; no folder where the text names a teacher in any other way."""
    alias, equals, rest = teacher.partition("=")
    text = rest if equals else teacher
    if text in catalogue() or text.startswith(tuple(f"{library}:" for library in get_args(LibraryName))):
        return alias, None
    # What looks like a path is one, even if nothing is there: better to say so than to list the known teachers.
    if not (Path(text).expanduser().is_dir() or "/" in text):
        return alias, None
    if not equals:
        raise InputError(
            what="A student needs a name for its columns.",
            where=f"--teachers {teacher}",
            fix=f"put one before it: --teachers student={teacher}",
        )
    return alias, Path(text).expanduser()


def _require_usual_colours(config: ModelConfig, teacher: str) -> None:
    """A name does not tell the normalisation of pixels: only the default one is meant by it."""
    usual = ModelConfig(width=config.width, patch=config.patch, size=config.size, semantic_dim=1, spatial_dim=1)
    if (config.pixel_mean, config.pixel_std) != (usual.pixel_mean, usual.pixel_std):
        raise InputError(
            what="This student normalises pixels in a way of its own, and cannot be cached.",
            where=f"--teachers {teacher}",
            why=f"mean {config.pixel_mean}, standard deviation {config.pixel_std}",
            fix=f"train it with the usual ones: {usual.pixel_mean} and {usual.pixel_std}",
        )
