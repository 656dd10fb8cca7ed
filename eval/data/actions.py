"""UCF-101 and HMDB-51: which clips, of which class, in which part of which split.

The layouts are those of the published archives:

- UCF-101: ``UCF-101/<Class>/v_<Class>_gXX_cYY.avi``, ``ucfTrainTestlist/classInd.txt``, ``trainlist0N.txt``,
  ``testlist0N.txt``;
- HMDB-51: ``<class>/<file>.avi``, ``testTrainMulti_7030_splits/<class>_test_splitN.txt`` with lines ``file id``, where
  1 is train, 2 is test and 0 is neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from frame.eval.data.lists import inside, read_lines, require_files, shown
from frame.manifests.errors import InputError

SPLITS = (1, 2, 3)
_UCF_LISTS, _UCF_VIDEOS, _HMDB_LISTS = "ucfTrainTestlist", "UCF-101", "testTrainMulti_7030_splits"
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_UCF_GROUP = re.compile(r"_(g\d+)_c\d+$")


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionClip:
    """One video: ``name`` is its path below the folder of videos, ``label`` the place of its class in the class list.

    ``group`` is one for all clips that were cut from one source video (as far as the name tells): they look alike.
    """

    name: str
    label: int
    group: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionSplit:
    """The clips of one official split, in the order of its lists."""

    number: int
    train: tuple[ActionClip, ...]
    test: tuple[ActionClip, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionSet:
    """The splits asked for. ``lists`` are the files that said so; ``classes`` are as the dataset writes them."""

    root: Path
    videos: Path
    classes: tuple[str, ...]
    splits: tuple[ActionSplit, ...]
    lists: tuple[Path, ...]


Loader = Callable[[Path, Sequence[int], Sequence[str]], ActionSet]


def label_text(name: str) -> str:
    """A class as words: CamelCase split, underscores to spaces, lower case; text that is so already stays as it is."""
    return " ".join(_CAMEL.sub(" ", name.replace("_", " ")).lower().split())


def load_ucf101(root: Path, splits: Sequence[int], only: Sequence[str] = ()) -> ActionSet:
    """UCF-101 below ``root``; of the classes ``only`` these, where any are named. Raises InputError."""
    folder = root / _UCF_LISTS
    names = ["classInd.txt", *(f"{part}list0{number}.txt" for number in splits for part in ("train", "test"))]
    require_files(
        folder, names, what="lists of UCF-101", fix=f"--data is the folder that holds {_UCF_VIDEOS} and {_UCF_LISTS}"
    )
    every = _ucf_classes(folder / "classInd.txt")
    classes = _chosen(every, only)
    found = [
        ActionSplit(
            number=number,
            train=_ucf_clips(folder / f"trainlist0{number}.txt", every, classes),
            test=_ucf_clips(folder / f"testlist0{number}.txt", every, classes),
        )
        for number in splits
    ]
    lists = tuple(folder / name for name in names)
    return _checked(ActionSet(root=root, videos=root / _UCF_VIDEOS, classes=classes, splits=tuple(found), lists=lists))


def load_hmdb51(root: Path, splits: Sequence[int], only: Sequence[str] = ()) -> ActionSet:
    """HMDB-51 below ``root``; of the classes ``only`` these, where any are named. Raises InputError."""
    folder = root / _HMDB_LISTS
    named = {number: _hmdb_classes(folder, number) for number in splits}
    every = sorted(set().union(*named.values()))
    names = [f"{one}_test_split{number}.txt" for number in splits for one in every]
    if not every:
        names = [f"<class>_test_split{number}.txt" for number in splits]
    require_files(
        folder, names, what="lists of HMDB-51", fix=f"--data is the folder that holds the classes and {_HMDB_LISTS}"
    )
    classes = _chosen(every, only)
    found = []
    for number in splits:
        parts: Mapping[str, list[ActionClip]] = {"1": [], "2": [], "0": []}
        for label, one in enumerate(classes):
            _hmdb_clips(folder / f"{one}_test_split{number}.txt", one, label, parts)
        found.append(ActionSplit(number=number, train=tuple(parts["1"]), test=tuple(parts["2"])))
    lists = tuple(folder / f"{one}_test_split{number}.txt" for number in splits for one in classes)
    return _checked(ActionSet(root=root, videos=root, classes=classes, splits=tuple(found), lists=lists))


def _ucf_classes(path: Path) -> list[str]:
    """Lines ``1 ApplyEyeMakeup``, counted from 1 without a gap."""
    classes: list[str] = []
    for number, line in read_lines(path):
        words = line.split()
        if len(words) != 2 or words[0] != str(len(classes) + 1) or words[1] in classes:
            raise _bad_line(path, number, line, f"expected '{len(classes) + 1} CLASS', each class once")
        classes.append(words[1])
    return classes


def _ucf_clips(path: Path, every: Sequence[str], classes: Sequence[str]) -> tuple[ActionClip, ...]:
    """Lines ``Class/file.avi label``; the test lists leave the label out."""
    indices = {name: str(number) for number, name in enumerate(every, start=1)}
    clips = []
    for number, line in read_lines(path):
        file, _, index = line.partition(" ")
        name = inside(file, where=f"{path}, line {number}")
        one = name.partition("/")[0]
        if one not in indices or "/" not in name:
            raise _bad_line(path, number, line, "expected CLASS/FILE with a class of classInd.txt")
        if index.strip() not in ("", indices[one]):
            raise _bad_line(path, number, line, f"{one} has the number {indices[one]} in classInd.txt")
        if one in classes:
            group = _UCF_GROUP.search(Path(name).stem)
            key = f"{one}/{group[1] if group else Path(name).stem}"
            clips.append(ActionClip(name=name, label=list(classes).index(one), group=key))
    return tuple(clips)


def _hmdb_classes(folder: Path, number: int) -> set[str]:
    ending = f"_test_split{number}.txt"
    return {path.name.removesuffix(ending) for path in folder.glob(f"*{ending}") if not path.name.startswith(".")}


def _hmdb_clips(path: Path, one: str, label: int, parts: Mapping[str, list[ActionClip]]) -> None:
    for number, line in read_lines(path):
        file, _, part = line.rpartition(" ")
        if part not in parts or not file.strip():
            raise _bad_line(path, number, line, "expected 'FILE 0', 'FILE 1' or 'FILE 2'")
        name = inside(file.strip(), where=f"{path}, line {number}")
        # SOURCE_class_body_camera_…: what stands before the class names the source video.
        source = Path(name).stem.partition(f"_{one}_")[0]
        parts[part].append(ActionClip(name=f"{one}/{name}", label=label, group=f"{one}/{source}"))


def _chosen(classes: Sequence[str], only: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in only if name not in classes]
    if unknown:
        raise InputError(
            what="There are no such classes.", where=f"--sequences {','.join(only)}", why=shown(unknown),
            fix=f"use names of classes: {shown(list(classes))}",
        )  # fmt: skip
    return tuple(name for name in classes if not only or name in only)


def _checked(found: ActionSet) -> ActionSet:
    for split in found.splits:
        names = [clip.name for clip in (*split.train, *split.test)]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise InputError(
                what=f"Clips are listed twice in split {split.number}.", where=str(found.lists[0].parent),
                why=shown(twice), fix="give the published lists: a clip is of one part only",
            )  # fmt: skip
        for part, clips in (("train", split.train), ("test", split.test)):
            if not clips:
                where = str(found.lists[0].parent) if found.lists else str(found.root)
                raise InputError(what=f"Split {split.number} has no {part} clips.", where=where)
    every = {clip.name for split in found.splits for clip in (*split.train, *split.test)}
    require_files(
        found.videos, sorted(every), what="listed videos",
        fix="unpack the whole archive, or name the classes that are there with --sequences",
    )  # fmt: skip
    return found


def _bad_line(path: Path, number: int, line: str, why: str) -> InputError:
    return InputError(what="A line of a list is not understood.", where=f"{path}, line {number}: {line[:80]}", why=why)
