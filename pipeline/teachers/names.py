"""What a person may write after ``--teachers``, and the folder-safe slug that names the columns.

A name is one of ``manifests/teachers.yaml``, or ``timm:MODEL[.TAG]``, or ``open_clip:MODEL[/TAG]``, or
``frame:WIDTH-DEPTH-PATCH[@HEIGHTxWIDTH]`` (a student of this package, see ``student``); any of them may be given
another name by ``ALIAS=NAME``. Nothing here imports timm or open_clip.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, cast, get_args

import yaml

from frame.manifests.errors import InputError

LibraryName = Literal["timm", "open_clip", "frame"]

_SLUG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
# `frames` is the column of pictures: a teacher of that name would sit beside it and be taken for it.
_RESERVED = frozenset({"frames"})
# Between a model and its tag, in each library's own spelling.
_BEFORE_TAG: Mapping[LibraryName, str] = {"timm": ".", "open_clip": "/", "frame": "@"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueEntry:
    """One line of ``manifests/teachers.yaml``; ``model`` includes the tag in the library's own spelling."""

    library: LibraryName
    model: str
    hub: str
    patch: int
    width: int
    columns: tuple[str, ...]
    licence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherName:
    """A requested teacher, taken apart: ``slug`` names its columns, ``entry`` is set if the catalogue has it."""

    slug: str
    requested: str
    library: LibraryName
    model: str
    tag: str
    entry: CatalogueEntry | None


@cache
def catalogue() -> Mapping[str, CatalogueEntry]:
    """The teachers known by name, in the order of the file."""
    text = files("frame.manifests").joinpath("teachers.yaml").read_text(encoding="utf-8")
    return {
        name: CatalogueEntry(**{**fields, "columns": tuple(fields["columns"])})
        for name, fields in yaml.safe_load(text).items()
    }


def parse_name(requested: str) -> TeacherName:
    """Take a requested name apart. Raises InputError for an unknown form or an alias that is no folder name."""
    alias, equals, rest = requested.partition("=")
    text = rest if equals else requested
    entry = catalogue().get(text)
    library, model, tag = _split(entry.library, entry.model) if entry else _prefixed(text, requested)
    slug = alias if equals else text if entry else _slug(model, tag)
    if not _SLUG.fullmatch(slug) or slug.lower() in _RESERVED:
        raise InputError(
            what=f"A teacher cannot be called {slug!r}.",
            where=f"--teachers {requested}",
            why="the name becomes a folder: letters, digits, _ and -, at most 100, not 'frames'",
            fix="choose another alias: --teachers ALIAS=" + (text or "NAME"),
        )
    return TeacherName(slug=slug, requested=requested, library=library, model=model, tag=tag, entry=entry)


def _prefixed(text: str, requested: str) -> tuple[LibraryName, str, str]:
    library, colon, model = text.partition(":")
    if not colon or library not in get_args(LibraryName) or not model:
        raise unknown_teacher(requested, text, catalogue())
    return _split(cast(LibraryName, library), model)


def _split(library: LibraryName, model: str) -> tuple[LibraryName, str, str]:
    """timm writes MODEL.TAG, open_clip's users write MODEL/TAG."""
    name, _, tag = model.partition(_BEFORE_TAG[library])
    return library, name, tag


def _slug(model: str, tag: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{model}_{tag}" if tag else model)


def unknown_teacher(requested: str, text: str, known: Iterable[str], *, prefix: str = "") -> InputError:
    """The error for a name nobody knows, with the nearest known ones (``prefix`` is put before each)."""
    near = difflib.get_close_matches(text, list(known), n=4, cutoff=0.5)
    listed = ", ".join(prefix + name for name in near) or ", ".join(catalogue())
    return InputError(
        what=f"There is no teacher {requested!r}.",
        where=f"--teachers {requested}",
        why=f"did you mean: {listed}" if near else f"known by name: {listed}",
        fix="use one of these; for any other model write timm:MODEL or open_clip:MODEL/TAG"
        + (f", such as timm:{text}" if text and ":" not in requested else "")
        + ", and student=RUN for the run folder of a trained student",
    )
