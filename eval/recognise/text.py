"""Class names as vectors in the space shared with pictures: prompts, their ensemble, and the file that keeps them.

N names, P prompts, C channels.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from frame.eval.data.actions import label_text
from frame.eval.data.lists import read_lines, shown
from frame.manifests.errors import InputError
from frame.model.files import replacing

TEMPLATES = ("a person {label}",)
"""FRAME's wording ("a person brushing")."""

_PLACES = ("{label}", "{}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextEmbeddings:
    """``vectors`` float32 [N, C], one for each of ``names``. ``source`` says what made them, "" if nobody knows."""

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    source: str = ""


def read_templates(path: Path) -> tuple[str, ...]:
    """One prompt a line, with ``{label}`` (or ``{}``) where the class goes. Raises InputError."""
    templates = read_lines(path)
    for number, line in templates:
        if sum(line.count(place) for place in _PLACES) != 1:
            raise InputError(
                what="A template has to name the class once.", where=f"{path}, line {number}: {line[:80]}",
                fix="write {label} where the class goes: a photo of a person {label}",
            )  # fmt: skip
    if not templates:
        raise InputError(what="There is no template in this file.", where=str(path), fix="write one a line")
    return tuple(line for _, line in templates)


def prompts(template: str, names: Sequence[str]) -> list[str]:
    """The template with each name as words (see ``label_text``). Braces of a name are text, not a format."""
    place = next(place for place in _PLACES if place in template)
    return [template.replace(place, label_text(name)) for name in names]


def embed_names(
    names: Sequence[str], templates: Sequence[str], encode: Callable[[list[str]], Tensor], *, source: str = ""
) -> TextEmbeddings:
    """The ensemble of CLIP's zero-shot protocol: each prompt's vector normalised, their mean normalised again.

    ``encode`` gives [P, C] for P prompts.
    """
    total_NC = torch.stack([functional.normalize(encode(prompts(one, names)), dim=-1) for one in templates]).mean(0)
    vectors = functional.normalize(total_NC, dim=-1).float().cpu().numpy()
    return _checked(TextEmbeddings(names=tuple(names), vectors=vectors, source=source), source)


def write_embeddings(path: Path, text: TextEmbeddings) -> None:
    """A ``.npz`` with ``names``, ``embeddings`` and ``source``, whole or not at all. Raises InputError."""
    if path.suffix != ".npz":
        raise InputError(what="Text embeddings are kept in an .npz file.", where=f"--out {path}")
    with replacing(path) as partial:
        np.savez(partial, names=np.array(text.names), embeddings=text.vectors, source=np.array(text.source))


def read_embeddings(path: Path) -> TextEmbeddings:
    """What ``write_embeddings`` wrote, or another tool: ``names`` [N] and ``embeddings`` [N, C], perhaps ``source``.

    Nothing is unpickled. Raises InputError.
    """
    try:
        with path.open("rb") as file:  # opened here, because NumPy leaves a damaged file open
            stored = np.load(file, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("it is one array, not an .npz of several")
            names, vectors = stored["names"], stored["embeddings"]
            source = str(stored["source"][()]) if "source" in stored else ""
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, AttributeError) as error:
        raise _no_file(path, f"{type(error).__name__}: {error}") from error
    if names.ndim != 1 or names.dtype.kind != "U":
        raise _no_file(path, f"names are {names.dtype} {list(names.shape)}, not text [N]")
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or len(vectors) != len(names):
        raise _no_file(path, f"embeddings are {vectors.dtype} {list(vectors.shape)}, not floats [{len(names)}, C]")
    text = TextEmbeddings(names=tuple(map(str, names)), vectors=vectors.astype(np.float32), source=source)
    return _checked(text, str(path))


def for_classes(text: TextEmbeddings, classes: Sequence[str], *, where: str) -> NDArray[np.float32]:
    """Vectors [N, C] in the order of ``classes``, found by their words: ``BrushHair``, ``brush_hair`` and ``brush
    hair`` are one. Raises InputError where one is missing or there twice; others are left out."""
    known: dict[str, int] = {}
    for place, name in enumerate(text.names):
        if known.setdefault(label_text(name), place) != place:
            raise InputError(what="A class has two text embeddings.", where=where, why=name)
    missing = [name for name in classes if label_text(name) not in known]
    if missing:
        raise InputError(
            what=f"{len(missing)} of {len(classes)} classes have no text embedding.", where=where, why=shown(missing),
            fix="make the file for these classes: frame-eval text --names FILE",
        )  # fmt: skip
    return text.vectors[[known[label_text(name)] for name in classes]]


def _checked(text: TextEmbeddings, where: str) -> TextEmbeddings:
    lengths = np.linalg.norm(text.vectors, axis=1)
    bad = [name for name, length in zip(text.names, lengths, strict=True) if not np.isfinite(length) or length == 0]
    if bad or not text.names:
        raise InputError(
            what="These text embeddings cannot be compared with anything.", where=where,
            why=f"zero or not finite: {shown(bad)}" if bad else "there are none",
        )  # fmt: skip
    return text


def _no_file(path: Path, why: str) -> InputError:
    return InputError(
        what="This is no file of text embeddings.", where=str(path), why=why[:300],
        fix="give an .npz with names [N] and embeddings [N, C], as frame-eval text writes it",
    )  # fmt: skip
