"""Where a teacher's weights come from: the hub, a file, or a seeded random generator. Never one instead of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from frame.manifests.errors import InputError
from frame.pipeline.teachers.checkpoint import SUFFIXES
from frame.pipeline.teachers.spec import TeacherSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightSource:
    """``file`` is the checkpoint's path, and None for the other origins."""

    origin: Literal["hub", "file", "random"]
    file: Path | None = None


HUB = WeightSource(origin="hub")
RANDOM = WeightSource(origin="random")


def parse_weights(options: Sequence[str], specs: Sequence[TeacherSpec]) -> dict[str, WeightSource]:
    """``--weights`` options to one source for each teacher, keyed by ``spec.name``; the hub where nothing is said.

    An option is ``NAME=FILE``, ``NAME=random``, or ``random`` for every teacher not named by another option. NAME is
    the teacher's name or the text it was requested by. Raises InputError for an unknown or repeated NAME and for a
    missing FILE.
    """
    sources = {spec.name: RANDOM if "random" in options else HUB for spec in specs}
    seen: set[str] = set()
    for option in options:
        if option == "random":
            continue
        name, value = _split(option, specs)
        if name in seen:
            raise InputError(
                what=f"The weights of {name} are given twice.", where=f"--weights {option}", fix="keep one"
            )
        seen.add(name)
        sources[name] = RANDOM if value == "random" else WeightSource(origin="file", file=_file(value, option))
    return sources


def _split(option: str, specs: Sequence[TeacherSpec]) -> tuple[str, str]:
    # A requested text may hold an equals sign itself (ALIAS=timm:MODEL), and so may a file's name: the longest known
    # name that the option begins with is the one meant.
    known = {label: spec.name for spec in specs for label in (spec.requested, spec.name)}
    for label in sorted(known, key=len, reverse=True):
        if option.startswith(f"{label}="):
            return known[label], option[len(label) + 1 :]
    raise InputError(
        what="The option --weights names no teacher of this build.",
        where=f"--weights {option}",
        why="teachers: " + (", ".join(spec.name for spec in specs) or "none"),
        fix="write NAME=FILE or NAME=random with one of these names, or random for all",
    )


def _file(value: str, option: str) -> Path:
    path = Path(value).expanduser()
    if not path.is_file():
        why = "it is not a file" if path.exists() else "no such file"
        raise InputError(what=f"The weights {value!r} cannot be read.", where=f"--weights {option}", why=why)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            what=f"The weights {path.name!r} are in no format that is read here.",
            where=f"--weights {option}",
            fix=f"give a file that ends in {', '.join(SUFFIXES)}",
        )
    return path
