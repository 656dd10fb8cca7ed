"""Text files that list things, one a line, and the names of files in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from frame.manifests.errors import InputError

_SHOWN = 8
_LONGEST = 64 << 20  # bytes: the longest list of any dataset here is a thousandth of it


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, stripped, each with its number (from 1). Raises InputError."""
    try:
        if path.stat().st_size > _LONGEST:
            raise InputError(what="This list is too long to be one.", where=str(path), why="more than 64 MiB")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InputError(what="The list cannot be read.", where=str(path), why=why or str(error)) from error
    numbered = enumerate(text.splitlines(), start=1)
    return [(number, line.strip()) for number, line in numbered if line.strip()]


def inside(name: str, *, where: str) -> str:
    """``name`` as a relative path with forward slashes. Raises InputError for one that leads out of its folder."""
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or "\0" in name or not pure.parts:
        raise InputError(what=f"{name!r} is no file of this dataset.", where=where, why="it leads out of its folder")
    return pure.as_posix()


def require_files(root: Path, names: Iterable[str], *, what: str, fix: str = "") -> None:
    """Raise InputError naming the first of the ``names`` below ``root`` that are no files, and their number."""
    wanted = list(names)
    missing = [name for name in wanted if not _is_file(root / name)]
    if missing:
        raise InputError(
            what=f"{len(missing)} of {len(wanted)} {what} are missing.", where=str(root), why=shown(missing), fix=fix
        )


def shown(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system allows
        return False
