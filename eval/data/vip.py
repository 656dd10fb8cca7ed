"""VIP (Video Instance Parsing): which annotated frames of which videos, with their maps of body parts.

The layout is that of ``VIP_Fine``: ``Images/<video>/<12 digits>.jpg``, ``Annotations/Category_ids/<video>/<12
digits>.png`` (or ``Category_ids/<video>/…``, as ATEN's repository has it) and ``lists/val_videos.txt``. One frame in 25
is annotated; pictures without a map are left aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from frame.eval.data.lists import inside, read_lines, shown
from frame.manifests.errors import InputError

CLASSES = (
    "background", "hat", "hair", "sun-glasses", "upper-clothes", "dress", "coat", "socks", "pants", "gloves", "scarf",
    "skirt", "torso-skin", "face", "right-arm", "left-arm", "right-leg", "left-leg", "right-shoe", "left-shoe",
)  # fmt: skip
_LIST = "lists/val_videos.txt"
_MASKS = ("Annotations/Category_ids", "Category_ids")
_PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, kw_only=True, slots=True)
class VipVideo:
    """The annotated frames of one video, in order: each picture and its map of ids 0 to 19."""

    name: str
    pictures: tuple[Path, ...]
    masks: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class VipData:
    """The validation videos, or those asked for. ``unlabelled`` pictures have no map and are not used."""

    root: Path
    videos: tuple[VipVideo, ...]
    lists: tuple[Path, ...]
    unlabelled: int


def load_vip(root: Path, only: Sequence[str] = ()) -> VipData:
    """The videos of ``lists/val_videos.txt``, or ``only`` these, which then need no list. Raises InputError."""
    masks = next((root / name for name in _MASKS if (root / name).is_dir()), None)
    missing = [] if (root / "Images").is_dir() else ["Images"]
    missing += [] if masks else [" or ".join(_MASKS)]
    if missing or masks is None:
        raise InputError(
            what="This is no folder of VIP.", where=str(root), why=f"there is no {', no '.join(missing)}",
            fix="--data is VIP_Fine, the folder that holds Images, Annotations and lists",
        )  # fmt: skip
    names = list(only) or _listed(root / _LIST)
    videos, unlabelled = [], 0
    for name in names:
        video, left = _video(root, masks, inside(name, where=_LIST))
        videos.append(video)
        unlabelled += left
    lists = () if only else (root / _LIST,)
    return VipData(root=root, videos=tuple(videos), lists=lists, unlabelled=unlabelled)


def _listed(path: Path) -> list[str]:
    """Names, one a line, or lines of paths of which the first ends in the name."""
    names = [line.split()[0].rstrip("/").rpartition("/")[2] for _, line in read_lines(path)]
    if not names:
        raise InputError(what="The list of videos is empty.", where=str(path))
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(what="Videos are listed twice.", where=str(path), why=shown(twice))
    return names


def _video(root: Path, masks: Path, name: str) -> tuple[VipVideo, int]:
    """The frames that have a map, and how many have none."""
    folder = root / "Images" / name
    pictures = {path.stem: path for path in _files(folder) if path.suffix.lower() in _PICTURES}
    maps = {path.stem: path for path in _files(masks / name) if path.suffix.lower() == ".png"}
    if not maps:
        raise InputError(what="A video has no maps of body parts.", where=str(masks / name))
    without = sorted(stem for stem in maps if stem not in pictures)
    if without:
        raise InputError(
            what="Pictures of annotated frames are missing.", where=str(folder), why=shown(without),
            fix="unpack all of Images",
        )  # fmt: skip
    stems = sorted(maps, key=_number)
    video = VipVideo(
        name=name, pictures=tuple(pictures[stem] for stem in stems), masks=tuple(maps[stem] for stem in stems)
    )
    return video, len(pictures.keys() - maps.keys())


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(
            what="The folder of a video is missing.", where=str(folder), why=error.strerror or str(error),
            fix="unpack the whole data set, or name the videos that are there with --sequences",
        ) from error  # fmt: skip


def _number(stem: str) -> tuple[int, str]:
    """Frames in the order of their numbers; names that are none come last."""
    return (int(stem), stem) if stem.isdecimal() else (1 << 62, stem)
