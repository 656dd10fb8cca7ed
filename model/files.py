"""Writing a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from frame.manifests.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, with its suffix, to write to; renamed onto ``path`` if all went well.

    Raises InputError where the disk refuses.
    """
    # The process's number keeps two writers apart; whoever is last wins, with a whole file.
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise InputError(what="The file cannot be written.", where=str(path), why=str(error)) from error
    finally:
        with suppress(OSError):  # where a parent is a file, there is nothing to remove, and the error has been said
            partial.unlink(missing_ok=True)
