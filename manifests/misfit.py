"""The error for a source that does not fit a data set: what was expected, what was found, and what it looks like."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from frame.manifests.dataset import Dataset, dataset_names, describe
from frame.manifests.errors import InputError
from frame.manifests.folder import find_clips
from frame.manifests.listing import find_csv
from frame.manifests.rows import VIDEO_SUFFIXES
from frame.manifests.tree import fits, has_marker
from frame.manifests.walk import Listing, list_folder, suffix

_SHOWN = 8
_MOST_FOLDERS = 1000  # looked into for a suggestion; whoever typed the root of the disk gets an answer in time
_INDENT = "\n           "


def misfit(dataset: Dataset, source: Path) -> InputError:
    """The error to raise for a source without a clip of this data set."""
    if not source.exists():
        return InputError(
            what="the source does not exist",
            where=str(source),
            fix=f"give the folder of the data set {dataset.name!r} as --source",
        )
    if source.is_file():
        return _a_file(dataset, source)
    listing = list_folder(source, "")
    if not listing.folders and not listing.files:
        return InputError(
            what="the source folder is empty",
            where=str(source),
            why=_expected(dataset),
            fix="is the disk mounted, the archive unpacked?",
        )
    return InputError(
        what=f"the source does not fit the data set {dataset.name!r}",
        where=str(source),
        why=_expected(dataset) + _INDENT + _found(listing),
        fix=_advice(dataset, source),
    )


def _a_file(dataset: Dataset, source: Path) -> InputError:
    if source.suffix.lower() == ".csv":
        fix = "a CSV file that lists clips is read by --dataset csv"
    elif suffix(source.name) in VIDEO_SUFFIXES:
        fix = f"give its folder as --source, with --dataset folder: {source.parent}"
    else:
        fix = f"give the folder of the data set {dataset.name!r}"
    return InputError(what="the source is a file, not a folder", where=str(source), fix=fix)


def _expected(dataset: Dataset) -> str:
    return "expected:" + _INDENT + _INDENT.join(dataset.layout.rstrip().split("\n"))


def _found(listing: Listing) -> str:
    entries = [f"{name}/" for name in listing.folders] + list(listing.files)
    more = len(entries) - _SHOWN
    names = [name.encode("utf-8", "backslashreplace").decode() for name in entries[:_SHOWN]]
    return f"found: {', '.join(names)}" + (f", and {more} more" if more > 0 else "")


def _advice(dataset: Dataset, source: Path) -> str:
    if not has_marker(dataset, source) and fits(dataset, source, unfinished=True):
        return f"{dataset.marker} is missing, which is written last: the data set is unfinished, generate it again"
    near = _nearby(dataset, source)
    if near is not None:
        return f"that layout was found at {near}: give it as --source"
    names = [name for name in dataset_names() if name != dataset.name and _looks_like(describe(name), source)]
    if names:
        # The data set with a layout of its own says more than "a folder of videos", which nearly everything is.
        own = [name for name in names if name != "folder"] or names
        return f"this looks like {' or '.join(repr(name) for name in own)}: use --dataset {own[0]}"
    return "check the path, and that the archive was unpacked whole"


def _nearby(dataset: Dataset, source: Path) -> Path | None:
    """The same data set a level below or up to two above: the commonest mistake with --source."""
    if dataset.reader != "tree":
        return None
    below = [source / name for name in list_folder(source, "").folders]
    return next((path for path in [*below, *_above(dataset, source.resolve())] if _quietly_fits(dataset, path)), None)


def _above(dataset: Dataset, source: Path) -> list[Path]:
    """The folders above, as far as the layout itself names the way back up (480p, then JPEGImages)."""
    named = {piece for way in dataset.ways for part in way for piece in part.path.split("/") if "{" not in piece}
    named |= dataset.split_folders.keys()
    above = []
    while source.name in named:
        source = source.parent
        above.append(source)
    return above


def _looks_like(dataset: Dataset, source: Path) -> bool:
    if dataset.reader == "csv":
        return find_csv(source) is not None
    return _quietly_fits(dataset, source)


def _quietly_fits(dataset: Dataset, path: Path) -> bool:
    try:
        if dataset.reader == "folder":
            return next(find_clips(path, Counter(), most_folders=_MOST_FOLDERS), None) is not None
        return fits(dataset, path)
    except InputError:
        return False  # a folder nobody asked for may well be unreadable; it is just not suggested
