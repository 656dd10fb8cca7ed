"""``resolve``: from a requested name to everything about a teacher but its weights, quickly and offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from frame.manifests.errors import InputError
from frame.pipeline.teachers.names import CatalogueEntry, LibraryName, parse_name

Fit = Literal["crop", "squash"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSpec:
    """What a teacher is, as its library describes it.

    ``name`` is the folder-safe slug before the dot of its columns; ``requested`` what the person wrote. ``grid`` is
    (rows, columns) of patches, or None where no patch tokens are kept. ``input_size`` is the side in pixels of the
    square it sees. ``mean`` and ``std`` are per RGB channel, for values in 0..1. ``columns`` maps a column's suffix to
    the shape of one row: ``{"patch": (196, 384), "cls": (384,)}``. ``final_norm`` is False for the few timm models
    that norm after pooling only (global average pooling): their tokens are kept as ``forward_features`` gives them.
    ``hub`` is the repository of the weights ("" if there is none), ``hub_files`` the names tried in it, in order.
    ``eight_bit``: it sees the fitted frames rounded to whole grey levels, that is the very pictures that the cache
    keeps (a student, which is trained on those); the others see them as they were resized.
    """

    name: str
    requested: str
    library: LibraryName
    model: str
    tag: str
    patch: int | None
    width: int
    grid: tuple[int, int] | None
    input_size: int
    fit: Fit
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    columns: Mapping[str, tuple[int, ...]] = field(hash=False)
    final_norm: bool
    licence: str
    hub: str
    hub_files: tuple[str, ...]
    eight_bit: bool = False


def resolve(name: str, *, size: int, fit: str) -> TeacherSpec:
    """Describe the teacher ``name`` for frames of ``size`` pixels a side.

    A teacher with patch tokens sees ``size`` rounded down to a multiple of its patch (400 becomes 392 for patch 14);
    CLIP sees its own native size, a student (``frame:``) exactly ``size``. Raises InputError for an unknown name, a
    model without a plain grid of patch tokens, a size smaller than a patch (for a student, one that is not whole
    patches), and a catalogue that the installed library contradicts.
    """
    from frame.pipeline.teachers.library import library_of

    if fit not in get_args(Fit):
        raise InputError(what=f"There is no fit {fit!r}.", where="--fit", fix="use crop or squash")
    if size < 1:
        raise InputError(what=f"Frames cannot be {size} pixels wide.", where="--size", fix="use 224, for example")
    parsed = parse_name(name)
    spec = library_of(parsed.library).describe(parsed, size=size, fit="crop" if fit == "crop" else "squash")
    if parsed.entry is not None:
        _agree(spec, parsed.entry)
    return spec


def resolve_all(names: Sequence[str], *, size: int, fit: str) -> list[TeacherSpec]:
    """Resolve each name, in order; two that would write the same folders are an InputError."""
    specs: dict[str, TeacherSpec] = {}
    for name in names:
        spec = resolve(name, size=size, fit=fit)
        # Compared without case: some file systems cannot keep `A.patch` and `a.patch` apart.
        other = specs.setdefault(spec.name.lower(), spec)
        if other is not spec:
            raise InputError(
                what=f"Two teachers would both be called {spec.name!r}.",
                where=f"--teachers {other.requested},{name}",
                fix=f"leave one out, or give it another name: ALIAS={name.rpartition('=')[2]}",
            )
    return list(specs.values())


def _agree(spec: TeacherSpec, entry: CatalogueEntry) -> None:
    found = (spec.patch, spec.width, tuple(spec.columns), spec.hub)
    stated = (entry.patch, entry.width, entry.columns, entry.hub)
    if found != stated:
        raise InputError(
            what=f"The installed {spec.library} does not describe {spec.name} as manifests/teachers.yaml does.",
            where=f"{spec.library} {spec.model}",
            why=f"patch, width, columns, hub: {found} instead of {stated}",
            fix="install the versions of constraints.txt, or correct manifests/teachers.yaml",
        )
