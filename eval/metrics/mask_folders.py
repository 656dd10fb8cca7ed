"""J and F of a folder of predicted masks against the annotations: ``FOLDER/SEQUENCE/*.png`` on both sides.

Frames are scored by several processes, because reading and scoring a mask is many short steps that threads would only
do in turns.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frame.eval.data.mask_png import cut_rows, read_rows
from frame.eval.metrics.cut import Cut
from frame.eval.metrics.davis import TOGETHER, Floats, ObjectScores, object_count, score_cuts, summarise
from frame.manifests.errors import InputError

_WORTH = 256  # frames: with fewer, starting a process takes longer than it saves
_SHARE = 4 * TOGETHER  # frames that a process is given at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class _Share:
    """Some frames of one sequence: (prediction, annotation), and how many objects they have."""

    pairs: tuple[tuple[Path, Path], ...]
    objects: int
    binary: bool


def score_folders(
    pred: Path, true: Path, sequences: Sequence[str] = (), *, binary: bool = False, processes: int | None = None
) -> dict[str, list[ObjectScores]]:
    """The scores of every object of the ``sequences`` (all folders in ``true`` if none are named), in their order.

    The annotated frames are the PNG files of a sequence in ``true``, in the order of their names. The first and the
    last are not scored, and need not be in ``pred``; the others must. ``binary``: all values above 0 are object 1
    (DAVIS-2016). ``processes``: this one and so many less one; None: one a processor core, this one alone for few
    frames. More than one import the main module again, as ``multiprocessing`` does: a script guards its own work with
    ``if __name__ == "__main__"``. Raises InputError for missing folders or masks, masks that cannot be read, sizes that
    differ, and ids that the first annotation does not have.
    """
    names = list(sequences) or _folders(true)
    frames = {name: _annotations(true / name) for name in names}
    objects = {name: 1 if binary else object_count(cut_rows(read_rows(frames[name][0])).ids_hw) for name in names}
    shares = {name: list(_shares(pred / name, frames[name][1:-1], objects[name], binary)) for name in names}
    every = [share for name in names for share in shares[name]]
    scored = iter(_score_all(every, processes or _processes(sum(map(len, frames.values())))))
    return {
        name: summarise([frame for _ in shares[name] for frame in next(scored)], objects[name]) for name in names
    }  # fmt: skip


def _shares(pred: Path, true: Sequence[Path], objects: int, binary: bool) -> Iterator[_Share]:
    pairs = [(pred / path.name, path) for path in true]
    for at in range(0, len(pairs), _SHARE):
        yield _Share(pairs=tuple(pairs[at : at + _SHARE]), objects=objects, binary=binary)


def _processes(frames: int) -> int:
    return len(os.sched_getaffinity(0)) if frames >= _WORTH else 1


def _score_all(shares: Sequence[_Share], processes: int) -> list[Floats]:
    """The scores of all shares, in order. Other processes begin at the front, this one works towards them."""
    found: dict[int, Floats] = {}
    with ExitStack() as stack:
        futures = {}
        if processes > 1 and len(shares) > 1:
            # Not forked: this process has threads of torch and OpenCV, which a fork would cut in two.
            context = multiprocessing.get_context("forkserver")
            pool = stack.enter_context(ProcessPoolExecutor(processes - 1, mp_context=context))
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            futures = {number: pool.submit(_score, share) for number, share in enumerate(shares)}
        for number in reversed(range(len(shares))):
            if number not in futures or futures[number].cancel():
                found[number] = _score(shares[number])
        found |= {number: future.result() for number, future in futures.items() if number not in found}
    return [found[number] for number in range(len(shares))]


def _score(share: _Share) -> Floats:
    """[K, 2, O] of the frames of a share."""
    parts = [_score_some(share.pairs[at : at + TOGETHER], share) for at in range(0, len(share.pairs), TOGETHER)]
    return np.concatenate(parts)


def _score_some(paths: Sequence[tuple[Path, Path]], share: _Share) -> Floats:
    pairs = [(cut_rows(read_rows(pred)), cut_rows(read_rows(true))) for pred, true in paths]
    try:
        return score_cuts(pairs, share.objects, binary=share.binary)
    except InputError:
        for (path, _), pair in zip(paths, pairs, strict=True):  # whose fault is it?
            _score_one(path, pair, share)
        raise


def _score_one(path: Path, pair: tuple[Cut, Cut], share: _Share) -> None:
    try:
        score_cuts([pair], share.objects, binary=share.binary)
    except InputError as error:
        raise InputError(what=error.what, where=str(path), why=error.why, fix=error.fix) from error


def _folders(root: Path) -> list[str]:
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not names:
        raise InputError(
            what="There are no sequences of masks.", where=str(root), fix="give a folder with one folder a sequence"
        )
    return names


def _annotations(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.png"))
    if not files:
        raise InputError(
            what="A sequence has no annotations.",
            where=str(folder),
            why="there is no PNG file in it" if folder.is_dir() else "there is no such folder",
        )
    return files
