"""The classes of a dataset as vectors in an encoder's space of text: from a file, or by an open_clip text tower."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from frame.eval.data.actions import label_text
from frame.eval.data.lists import read_lines, shown
from frame.eval.encoder import Encoder, open_device
from frame.eval.recognise.text import (
    TEMPLATES,
    TextEmbeddings,
    embed_names,
    for_classes,
    read_embeddings,
    read_templates,
    write_embeddings,
)
from frame.manifests.errors import InputError
from frame.pipeline.teachers import catalogue
from frame.train.run_folder import ENCODER, read_config


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSource:
    """Where the classes' vectors come from: an ``embeddings`` file, or the text ``tower`` of an open_clip model with
    ``weights`` and ``templates`` (a file; None: "a person {label}")."""

    tower: str = ""
    weights: str = ""
    templates: Path | None = None
    embeddings: Path | None = None


def text_of_classes(classes: Sequence[str], source: TextSource, device: torch.device) -> TextEmbeddings:
    """Vectors of the classes by an open_clip text tower. Raises InputError."""
    from frame.eval.recognise.text_tower import TextTower

    templates = read_templates(source.templates) if source.templates else TEMPLATES
    tower = TextTower(source.tower, source.weights, device)
    said = " | ".join(templates) if len(templates) < 4 else f"{len(templates)} templates"
    random = ", RANDOM WEIGHTS" if tower.weights == "random" else ""
    return embed_names(classes, templates, tower.encode, source=f"{tower.model} ({tower.digest[:12]}{random}): {said}")


def write_text(names: Path, source: TextSource, out: Path, device: str) -> int:
    """Embeddings of the names in a file, one a line (a number before a name is left out), to ``out``; how many."""
    found = [re.sub(r"^\d+\s+", "", line) for _, line in read_lines(names)]
    twice = sorted({name for name in found if [label_text(one) for one in found].count(label_text(name)) > 1})
    if twice or not found:
        why = f"there twice: {shown(twice)}" if twice else "there is none"
        raise InputError(what="These are no names of classes.", where=str(names), why=why)
    write_embeddings(out, text_of_classes(found, source, open_device(device)))
    return len(found)


def shared_text(classes: Sequence[str], source: TextSource, encoder: Encoder) -> TextEmbeddings:
    """Vectors of the classes, in their order, in the encoder's space of text. Raises InputError for other spaces."""
    channels = encoder.semantic(torch.zeros(1, encoder.info.width, device=encoder.device)).shape[-1]
    if source.embeddings:
        found, where = read_embeddings(source.embeddings), str(source.embeddings)
    else:
        found, where = text_of_classes(classes, source, encoder.device), f"--text {source.tower}"
    if found.vectors.shape[1] != channels:
        raise InputError(
            what="Text and encoder do not share a space.", where=where,
            why=f"text has {found.vectors.shape[1]} channels, {encoder.info.name} {channels}",
            fix="take the text tower of the CLIP that the encoder is, or was distilled from",
        )  # fmt: skip
    model = found.source.partition(" (")[0]
    if encoder.info.kind == "open_clip" and model and model != encoder.info.model:
        raise InputError(
            what="Text and pictures are of two CLIPs.", where=where, why=f"{model} and {encoder.info.model}",
            fix="take both towers of one model and tag",
        )  # fmt: skip
    teacher = semantic_teacher(encoder)
    if teacher in catalogue() and not _kin(model, teacher):
        raise InputError(
            what="Text and pictures are of two CLIPs.", where=where,
            why=f"{model or 'the text'} is no text of {teacher} ({_model(teacher)}), which the run {encoder.info.name} "
            "was distilled from",
            fix="take the text tower of the CLIP that the encoder was distilled from",
        )  # fmt: skip
    return TextEmbeddings(
        names=tuple(classes), vectors=for_classes(found, classes, where=where), source=found.source
    )  # fmt: skip


def origin_note(text: TextEmbeddings, encoder: Encoder) -> str:
    """Of a FRAME encoder: what made the text, and how far its kinship with the encoder is known. "" for others, whose
    own model ``shared_text`` compares."""
    if encoder.info.kind != "frame":
        return ""
    by = text.source or "a tower that the file does not name"
    teacher = semantic_teacher(encoder)
    if text.source and teacher in catalogue():
        return (
            f"The text is by {by}; the run's record names {teacher} ({_model(teacher)}) as the semantic teacher, but "
            "whether the weights are of one CLIP cannot be checked."
        )
    why = f"its record names the teacher {teacher} only" if teacher else "its training record is not at hand"
    return f"The text is by {by}; whether the encoder was distilled from that CLIP cannot be checked: {why}."


def semantic_teacher(encoder: Encoder) -> str:
    """The teacher that a run's record names for its CLS targets, such as clip_vitb32; "" where there is no record."""
    if encoder.info.kind != "frame":
        return ""
    folder = Path(encoder.info.name).expanduser().resolve()
    try:
        record = read_config(folder.parent if folder.name == ENCODER else folder)
    except InputError:  # an exported encoder, or one of the hub: it has no record, which the note says
        return ""
    column = record.get("settings", {}).get("semantic", "")
    return str(column).removesuffix(".cls")


def _kin(model: str, teacher: str) -> bool:
    """Whether text by ``model`` ("": unknown; perhaps without its tag) can be of the CLIP that the catalogue names."""
    if catalogue()[teacher].library != "open_clip":
        return False
    return not model or f"{_model(teacher)}.".startswith(f"{model}.")


def _model(teacher: str) -> str:
    """As an encoder's info writes it."""
    return catalogue()[teacher].model.replace("/", ".")
