"""Pictures of what encoders see in a clip: the frames, each encoder's patch features as colours, masks over the frames.

T frames, H W pixels, h w grid, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from frame.eval.encoder import Encoder, EncoderInfo, Picture, open_encoder
from frame.eval.present.colours import common_colours
from frame.eval.present.film import write_mp4
from frame.eval.present.pictures import overlay
from frame.eval.present.sheet import Panel, film, write_sheet
from frame.eval.propagate.images import Ids, read_mask, resize_nearest
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.pipeline.decode import FOLDER_RATE, ClipError, DecodeCage
from frame.pipeline.decode.folder import SUFFIXES, natural

SHEET, FILM = "show.png", "show.mp4"
_PIECE = 8  # full-size frames held at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """The first frames of a video or a folder of pictures, uint8 [H, W, 3] each, already at the size to be shown.

    ``names`` are those of a folder's pictures, empty for a video; ``rate`` is frames a second, ``total`` how many
    frames there are.
    """

    frames: Sequence[Picture]
    names: tuple[str, ...]
    rate: float
    total: int


def show(
    source: Path, *, encoders: Sequence[str], weights: Sequence[str] = (), masks: Path | None = None, size: int = 448,
    most: int = 64, device: str = "auto", out: Path, progress: Progress,
) -> list[Path]:  # fmt: skip
    """Write ``out/show.png``, some moments of the clip, and ``out/show.mp4``, a film of all of its frames.

    The frame, each encoder's features and the masks lie beside each other; like colours mean like features, for all
    encoders (see ``common_colours``).
    ``source`` is a video or a folder of pictures, of which the first ``most`` frames are taken, their shorter side
    resized to ``size`` pixels and rounded down to whole patches for each encoder. ``weights`` are ``NAME=FILE`` by the
    encoders' names; ``FILE`` (or ``random``) alone does for one encoder. ``masks`` is a folder of id maps (PNG): those
    of a folder of pictures go by name, those of a video one a frame. Raises InputError for what cannot be read or does
    not fit together.
    """
    if not encoders and masks is None:
        raise InputError(what="There is nothing to show.", fix="give --encoder, --masks, or both")
    if size < 1 or most < 1:
        raise InputError(what="There is nothing to show.", where=f"--size {size} --most {most}", fix="give 1 or more")
    files = weights_by_name(encoders, weights)
    clip = read_clip(source, size, most)
    found = match_masks(masks, clip) if masks else {}
    infos, patches = [], []
    for name in encoders:
        encoder = open_encoder(name, weights=files[name], device=device)
        infos.append(encoder.info)
        patches.append(_patches(encoder, clip, progress))
    panels = [Panel(caption=source.name, pictures=clip.frames, remark=f"{len(clip.frames)} of {clip.total} frames")]
    for info, coloured in zip(infos, common_colours(patches) if patches else [], strict=True):
        remark = "RANDOM WEIGHTS" if info.weights == "random" else _memory(info)
        panels.append(Panel(caption=info.name, pictures=list(coloured), remark=remark))
    if found:
        panels.append(Panel(caption="masks", pictures=_overlays(clip, found)))
    return [
        write_sheet(out / SHEET, panels, _labels(clip), _note(infos)),
        write_mp4(out / FILM, film(panels), clip.rate),
    ]


def _memory(info: EncoderInfo) -> str:
    return f"sees {info.memory} past frames" if info.memory else ""


def weights_by_name(encoders: Sequence[str], weights: Sequence[str]) -> dict[str, str]:
    """The weights of each encoder, empty for those that are not named. Raises InputError for a name not given."""
    if len(set(encoders)) < len(encoders):
        raise InputError(what="An encoder is given twice.", where=f"--encoder {', '.join(encoders)}", fix="keep one")
    found = dict.fromkeys(encoders, "")
    for text in weights:
        name = next((name for name in encoders if text.startswith(f"{name}=")), "")
        if name:
            found[name] = text.removeprefix(f"{name}=")
        elif len(encoders) == 1:
            found[encoders[0]] = text
        else:
            raise InputError(
                what="It is not clear whose weights these are.", where=f"--weights {text}",
                why=f"{len(encoders)} encoders", fix=f"give --weights NAME=FILE, NAME one of {', '.join(encoders)}",
            )  # fmt: skip
    return found


def read_clip(source: Path, size: int, most: int) -> Clip:
    """The first ``most`` frames of a video or folder, their shorter side ``size`` pixels. Raises InputError."""
    frames: list[Picture] = []
    try:
        with DecodeCage() as cage:
            probe = cage.probe(source)
            pieces = cage.decode_pieces(
                source, probe.timestamps[:most], height=probe.height, width=probe.width, decoder="pyav", piece=_PIECE
            )
            for piece in pieces:
                frames += [resized(frame, size) for frame in piece]
    except ClipError as error:
        raise InputError(what="The clip cannot be read.", where=str(source), why=str(error)) from error
    names = sorted((path.name for path in source.iterdir()), key=natural) if source.is_dir() else []
    shown = tuple(name for name in names if name.lower().endswith(SUFFIXES))[: len(frames)]
    return Clip(frames=frames, names=shown, rate=probe.rate or FOLDER_RATE, total=len(probe.timestamps))


def resized(picture: Picture, size: int) -> Picture:
    """A picture with its shorter side at ``size`` pixels."""
    rows, columns = picture.shape[:2]
    factor = size / min(rows, columns)
    target = (max(round(columns * factor), 1), max(round(rows * factor), 1))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.array(cv2.resize(picture, target, interpolation=how), dtype=np.uint8)


def match_masks(folder: Path, clip: Clip) -> dict[int, Path]:
    """The mask of each frame that has one. Raises InputError where none fits."""
    files = sorted(folder.glob("*.png"), key=lambda path: natural(path.name)) if folder.is_dir() else []
    if not files:
        raise InputError(what="There are no masks.", where=str(folder), why="no *.png in it")
    if clip.names:
        by_stem = {path.stem: path for path in files}
        found = {n: by_stem[stem] for n, name in enumerate(clip.names) if (stem := Path(name).stem) in by_stem}
        if not found:
            raise InputError(
                what="No mask belongs to a frame.", where=str(folder),
                why=f"masks {files[0].name} …, frames {clip.names[0]} …", fix="name masks as their frames are named",
            )  # fmt: skip
        return found
    if len(files) != clip.total:
        raise InputError(
            what="There is not one mask a frame.", where=str(folder),
            why=f"{len(files)} masks, {clip.total} frames in the video", fix="give a mask for every frame, in order",
        )  # fmt: skip
    return dict(enumerate(files[: len(clip.frames)]))


def _overlays(clip: Clip, masks: Mapping[int, Path]) -> list[Picture]:
    return [
        overlay(frame, _read_ids(masks[number], frame.shape[:2])) if number in masks else frame
        for number, frame in enumerate(clip.frames)
    ]


def _read_ids(path: Path, size: tuple[int, ...]) -> Ids:
    """An id map, nearest at ``size``."""
    ids = read_mask(path)
    if set(np.unique(ids).tolist()) <= {0, 255}:
        ids = np.minimum(ids, 1)  # a binary mask: 255 is its object
    return resize_nearest(ids, (size[0], size[1]), library="opencv")


def _patches(encoder: Encoder, clip: Clip, progress: Progress) -> NDArray[np.float16]:
    """The encoder's patches of every frame, [T, h, w, D]."""
    patch = encoder.info.patch
    sides = [side // patch * patch for side in clip.frames[0].shape[:2]]
    if 0 in sides:
        raise InputError(what="The frames are smaller than one patch.", fix=f"give a --size of {patch} or more")
    whole = (np.array(cv2.resize(frame, sides[::-1]), dtype=np.uint8) for frame in clip.frames)
    held = []
    with progress.bar(encoder.info.name, total=len(clip.frames), unit="frames") as tick:
        for tokens in encoder.stream(whole):
            held.append(tokens.patches.half().cpu().numpy())
            tick()
    return np.stack(held)


def _labels(clip: Clip) -> list[str]:
    """What each frame is: its name, or its second in a video."""
    return [Path(name).stem for name in clip.names] or [f"{n / clip.rate:.2f} s" for n in range(len(clip.frames))]


def _note(encoders: Sequence[EncoderInfo]) -> str:
    if not encoders:
        return ""
    if len(encoders) == 1:
        return "Colours: the first three principal components of its patch features over this clip."
    return (
        "Colours: the first three principal components of each encoder's own patch features over this clip, turned"
        f" together to agree with those of {encoders[0].name}."
    )
