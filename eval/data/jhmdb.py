"""JHMDB: which clips, their frames, and the 15 joints of the person in each.

The layout is that of the published archives: ``Rename_Images/<action>/<clip>/00001.png`` (or ``Frames``, as another
release has it), ``joint_positions/<action>/<clip>/joint_positions.mat``, and the test list of split 1: a file
``testlist_split1.txt`` or ``jhmdb_vallist.txt`` of paths, or ``splits/<action>_test_split1.txt`` with lines ``clip.avi
2``. J joints, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from frame.eval.data.lists import inside, read_lines, require_files, shown
from frame.manifests.errors import InputError

JOINTS = (
    "neck", "belly", "face", "right shoulder", "left shoulder", "right hip", "left hip", "right elbow", "left elbow",
    "right knee", "left knee", "right wrist", "left wrist", "right ankle", "left ankle",
)  # fmt: skip
_FRAMES = ("Rename_Images", "Frames")
_JOINTS, _MAT, _FIELD = "joint_positions", "joint_positions.mat", "pos_img"
_LISTS = ("testlist_split1.txt", "jhmdb_vallist.txt")
_SPLITS, _ENDING = "splits", "_test_split1.txt"
_LARGEST = 64 << 20  # bytes: a clip's joints take some kilobytes


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseClip:
    """One clip, ``action/clip``: its frames in order, and the file of its joints."""

    name: str
    pictures: tuple[Path, ...]
    joints: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseData:
    """The test clips of split 1, or those asked for."""

    root: Path
    clips: tuple[PoseClip, ...]
    lists: tuple[Path, ...]


def load_jhmdb(root: Path, only: Sequence[str] = ()) -> PoseData:
    """The test clips of split 1; of them ``only`` these clips (``action/clip``, or ``clip``) and actions.

    Raises InputError naming what is missing.
    """
    folder = next((root / name for name in _FRAMES if (root / name).is_dir()), None)
    missing = [] if folder else [" or ".join(_FRAMES)]
    missing += [] if (root / _JOINTS).is_dir() else [_JOINTS]
    if missing or folder is None:
        raise InputError(
            what="This is no folder of JHMDB.", where=str(root), why=f"there is no {', no '.join(missing)}",
            fix=f"--data is the folder that holds {_FRAMES[0]}, {_JOINTS} and the test list",
        )  # fmt: skip
    lists, listed = _listed(root)
    names = _chosen(listed, only)
    require_files(root, [f"{_JOINTS}/{name}/{_MAT}" for name in names], what="files of joints")
    clips = [
        PoseClip(name=name, pictures=_frames(folder / name), joints=root / _JOINTS / name / _MAT) for name in names
    ]
    return PoseData(root=root, clips=tuple(clips), lists=tuple(lists))


def read_positions(path: Path) -> NDArray[np.float64]:
    """The joints of a clip, [2, J, T]: x before y, in pixels counted from 0 (the file counts from 1).

    Nothing of a MATLAB file but this one array is read. Raises InputError.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is larger than 64 MiB")
        stored = loadmat(path, variable_names=[_FIELD])[_FIELD]
    except Exception as error:  # scipy fails on a damaged or foreign file in any way at all
        why = f"it has no {_FIELD}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise InputError(what="The joints of a clip cannot be read.", where=str(path), why=why[:300]) from error
    shape: tuple[int, ...] = getattr(stored, "shape", ())
    if len(shape) != 3 or shape[:2] != (2, len(JOINTS)) or not shape[2] or stored.dtype.kind not in "fiu":
        raise InputError(
            what="The joints of a clip are not as JHMDB has them.", where=str(path),
            why=f"{_FIELD} is {getattr(stored, 'dtype', '?')} {list(shape)}, not numbers [2, {len(JOINTS)}, frames]",
        )  # fmt: skip
    positions_2JT = stored.astype(np.float64) - 1
    if not np.isfinite(positions_2JT).all():
        raise InputError(what="The joints of a clip are not all finite.", where=str(path))
    return np.asarray(positions_2JT)


def _listed(root: Path) -> tuple[list[Path], list[str]]:
    """The lists that there are, and the clips in them as ``action/clip``, in order."""
    path = next((root / name for name in _LISTS if (root / name).is_file()), None)
    if path is not None:
        files, names = [path], [_name_of_path(path, number, line) for number, line in read_lines(path)]
    else:
        files = sorted((root / _SPLITS).glob(f"*{_ENDING}"))
        names = [name for file in files for name in _official(file)]
    if not names:
        raise InputError(
            what="There is no list of JHMDB's test clips.", where=str(root),
            why=f"neither {' nor '.join(_LISTS)} nor {_SPLITS}/<action>{_ENDING} names a clip",
            fix="put one of them there: the 268 test clips of split 1",
        )  # fmt: skip
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError(what="Clips are listed twice.", where=str(files[0]), why=shown(twice))
    return files, names


def _name_of_path(path: Path, number: int, line: str) -> str:
    """``action/clip`` out of a line of paths on another machine: joints before frames, or the other way round."""
    parts = line.split()[0].rstrip("/").removesuffix(f"/{_MAT}").split("/")
    if len(parts) < 2:
        raise InputError(
            what="A line of a list is not understood.", where=f"{path}, line {number}: {line[:80]}",
            why="expected a path that ends in ACTION/CLIP",
        )  # fmt: skip
    return inside("/".join(parts[-2:]), where=f"{path}, line {number}")


def _official(path: Path) -> list[str]:
    action, names = path.name.removesuffix(_ENDING), []
    for number, line in read_lines(path):
        file, _, part = line.rpartition(" ")
        if part not in ("1", "2") or not file.strip():
            raise InputError(
                what="A line of a list is not understood.", where=f"{path}, line {number}: {line[:80]}",
                why="expected 'CLIP.avi 1' or 'CLIP.avi 2'",
            )  # fmt: skip
        if part == "2":
            names.append(inside(f"{action}/{file.strip().removesuffix('.avi')}", where=f"{path}, line {number}"))
    return names


def _chosen(listed: Sequence[str], only: Sequence[str]) -> list[str]:
    def forms(name: str) -> set[str]:
        action, _, clip = name.partition("/")
        return {name, action, clip}

    unknown = [one for one in only if not any(one in forms(name) for name in listed)]
    if unknown:
        raise InputError(
            what="There are no such clips or actions in the list.", where="--sequences", why=shown(unknown)
        )
    return [name for name in listed if not only or forms(name) & set(only)]


def _frames(folder: Path) -> tuple[Path, ...]:
    """Pictures with a number for a name, in the order of the numbers."""
    found = folder.glob("*.png") if folder.is_dir() else []
    numbered = sorted((int(path.stem), path) for path in found if path.stem.isdecimal())
    if not numbered:
        raise InputError(
            what="A clip has no frames.", where=str(folder),
            why="there are no numbered PNG files in it" if folder.is_dir() else "there is no such folder",
            fix="unpack all frames, or name the clips that are there with --sequences",
        )  # fmt: skip
    return tuple(path for _, path in numbered)
