"""From a data set's name and a source folder to the rows of a manifest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from frame.manifests.choose import chosen_per_class, drawn_splits
from frame.manifests.dataset import Dataset, dataset_names, describe
from frame.manifests.errors import InputError
from frame.manifests.folder import read_folder
from frame.manifests.listing import find_csv, read_listing
from frame.manifests.misfit import misfit
from frame.manifests.rows import SPLITS, ClipSource, Draft, assign_ids
from frame.manifests.tree import read_tree

__all__ = ["Manifest", "dataset_names", "describe", "load_manifest", "load_rows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The clips of a data set as they lie on this disk."""

    dataset: Dataset
    root: Path  # what the sources of the rows are relative to; the folder of the CSV file where --source is one
    rows: tuple[ClipSource, ...]  # sorted by source, then by start
    notes: tuple[str, ...]  # what was assumed, drawn or passed over, a sentence each, for people


def load_rows(
    name: str,
    source: Path,
    *,
    seed: int = 0,
    per_class: int | None = None,
    split: str | None = None,
    limit: int | None = None,
) -> list[ClipSource]:
    """The rows of ``load_manifest``, without its notes."""
    return list(load_manifest(name, source, seed=seed, per_class=per_class, split=split, limit=limit).rows)


def load_manifest(
    name: str,
    source: Path,
    *,
    seed: int = 0,
    per_class: int | None = None,
    split: str | None = None,
    limit: int | None = None,
) -> Manifest:
    """The clips of the data set ``name`` below ``source``: a pure function of the folder and the arguments.

    Ids belong to the whole folder. Then ``per_class`` clips of each class are chosen by ``seed``; an 80/20 train/val
    split is drawn by ``seed`` where the data set has none, or none but training clips are left; ``split`` keeps one
    split; and ``limit`` cuts the sorted rows, so that a larger limit only ever appends.
    Raises ``InputError`` when the name is unknown, the folder does not fit, or nothing is left.
    """
    dataset = describe(name)
    _check_arguments(per_class, split, limit)
    root, drafts, notes = _read(dataset, source)
    drafts.sort(key=lambda draft: (draft.source, draft.start or 0.0, draft.end or 0.0, draft.clip or ""))
    clips = assign_ids(drafts)
    if per_class is not None:
        drafts, clips, more = _choose(dataset, drafts, clips, per_class, seed)
        notes += more
    splits, more = _splits(dataset, drafts, clips, seed)
    rows = [_row(draft, clip, word) for draft, clip, word in zip(drafts, clips, splits, strict=True)]
    rows = [row for row in rows if split in (None, row.split)][:limit]
    if not rows:
        raise InputError(
            what=f"no clip is in the split {split!r}",
            where=str(source),
            why=f"the clips are: {', '.join(f'{count} {word}' for word, count in sorted(Counter(splits).items()))}",
            fix="ask for another split, or for none",
        )
    return Manifest(dataset=dataset, root=root, rows=tuple(rows), notes=tuple(notes + more))


def _check_arguments(per_class: int | None, split: str | None, limit: int | None) -> None:
    for option, value in (("per class", per_class), ("limit", limit)):
        if value is not None and value < 1:
            raise InputError(what=f"the number of clips ({option}) is {value}", fix="give a number from 1")
    if split is not None and split not in SPLITS:
        raise InputError(what=f"unknown split {split!r}", fix=f"give one of {', '.join(SPLITS)}")


def _read(dataset: Dataset, source: Path) -> tuple[Path, list[Draft], list[str]]:
    if dataset.reader == "csv":
        table = find_csv(source)
        if table is None:
            raise misfit(dataset, source)
        drafts, notes = read_listing(dataset, table)
        root = table.parent
    else:
        if not source.is_dir():
            raise misfit(dataset, source)
        root = source
        drafts, notes = (read_folder if dataset.reader == "folder" else read_tree)(dataset, root)
    if not drafts:
        raise misfit(dataset, source)
    return root, drafts, notes


def _choose(
    dataset: Dataset, drafts: list[Draft], clips: list[str], count: int, seed: int
) -> tuple[list[Draft], list[str], list[str]]:
    if not any(draft.label for draft in drafts):
        raise InputError(
            what=f"{count} clips a class cannot be chosen: no clip has a class",
            why=f"labels of the data set {dataset.name!r} come from: {dataset.splits}",
            fix="leave the choice per class away, or give the clips labels (a folder each, or a CSV file)",
        )
    pool = [k for k, draft in enumerate(drafts) if dataset.per_class_from in (None, draft.split) or draft.split is None]
    if not pool:
        raise InputError(
            what=f"there are no {dataset.per_class_from} clips to choose {count} a class from",
            why=f"the choice per class of {dataset.name!r} is made among its {dataset.per_class_from} clips",
            fix="leave the choice per class away, or add the training clips to the source folder",
        )
    # Official splits keep their shares: so many a class of each of them.
    groups = [(drafts[k].split, drafts[k].label) for k in pool]
    chosen = [pool[k] for k in chosen_per_class([clips[k] for k in pool], groups, count, seed)]
    short = sum(size < count for size in Counter(groups).values())
    notes = [f"{len(chosen)} clips were chosen, {count} a class, seed {seed}"]
    if len(pool) < len(drafts):
        notes.append(f"they were chosen among the {len(pool)} {dataset.per_class_from} clips")
    if short:
        notes.append(f"{short} of {len(set(groups))} classes have fewer than {count} clips: all of theirs were taken")
    return [drafts[k] for k in chosen], [clips[k] for k in chosen], notes


def _splits(dataset: Dataset, drafts: list[Draft], clips: list[str], seed: int) -> tuple[list[str], list[str]]:
    given = [draft.split for draft in drafts]
    # A CSV file that says "train" of every clip means it; a training folder on its own just has no validation yet.
    if set(given) == {None} or (set(given) == {"train"} and dataset.reader != "csv"):
        drawn = drawn_splits(clips, seed)
        why = "the source folder has no official split" if set(given) == {None} else "there are training clips only"
        return drawn, [
            f"{why}: 80/20 drawn by clip, seed {seed} ({drawn.count('train')} train, {drawn.count('val')} val)"
        ]
    return [word or "train" for word in given], []


def _row(draft: Draft, clip: str, split: str) -> ClipSource:
    return ClipSource(
        clip=clip,
        source=draft.source,
        split=split,
        label=draft.label,
        start=draft.start,
        end=draft.end,
        frame_rate=draft.frame_rate,
    )
