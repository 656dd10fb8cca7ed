"""Sprites: short videos generated with exact ground truth for every frame, as real H.264 files.

    OUT/videos/<class>/<clip>.mp4    the class is the kind of motion
        truth/<clip>.npz             masks: uint8 [frames, size, size], 1 + the index of the object seen, 0 = background
        truth/<clip>.json            see ``_truth``
        sprites.json                 written last: its absence means unfinished

A clip is a pure function of (seed, its index, frames, size, rate, its class), so that a set is extended or mended by
the same call. The pictures are in the public domain (CC0 1.0).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from frame.manifests.errors import InputError
from frame.manifests.sprite_draw import Drawing, draw
from frame.manifests.sprite_scene import CLASSES, Scene, make_scene

_INDEX, _UNFINISHED = "sprites.json", "sprites.unfinished.json"
_CRF = "18"


def generate_sprites(
    out: Path,
    *,
    clips: int = 24,
    frames: int = 32,
    size: int = 224,
    rate: int = 24,
    seed: int = 0,
    classes: Sequence[str] = CLASSES,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``clips`` videos of ``frames`` frames, ``size`` pixels a side, ``rate`` frames a second, with their truth.

    Called again with the same arguments it mends what is missing or damaged, with more ``clips`` it extends the set.
    ``progress`` is called with (clips done, clips in all). Raises ``InputError`` for arguments out of range, for a
    folder that holds anything else, and when writing fails.
    """
    settings = _settings(frames=frames, size=size, rate=rate, seed=seed, classes=list(classes))
    _check(settings, clips)
    try:
        known = _begin(out, settings, clips)
        files: dict[str, str] = {}
        for index in range(clips):
            files |= _clip_files(out, settings, index, known)
            if progress is not None:
                progress(index + 1, clips)
        _commit(out / _INDEX, _json({**settings, "clips": clips, "files": files}))
        (out / _UNFINISHED).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            what="the sprites cannot be written",
            where=str(error.filename or out),
            why=error.strerror or str(error),
            fix="make room or mend the permissions, then call again: what is there is kept",
        ) from error


def _settings(**values: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "licence": "CC0-1.0",
        "coordinates": "x, y in pixels; the centre of the top left pixel is (0, 0); angles in radians, clockwise",
        **values,
    }


def _check(settings: dict[str, Any], clips: int) -> None:
    size, classes = settings["size"], settings["classes"]
    problems = {
        "clips and frames must be at least 1": clips < 1 or settings["frames"] < 1,
        "size must be an even number from 32 to 4096 (H.264 halves the colour)": size % 2 or not 32 <= size <= 4096,
        "rate must be from 1 to 1000 frames a second": not 1 <= settings["rate"] <= 1000,
        "seed must not be negative": settings["seed"] < 0,
        f"classes must be some of {', '.join(CLASSES)}, each once": not classes
        or not set(classes) <= set(CLASSES)
        or len(set(classes)) < len(classes),
    }
    for why, wrong in problems.items():
        if wrong:
            given = ", ".join(f"{key} {settings[key]}" for key in ("frames", "size", "rate", "seed", "classes"))
            raise InputError(
                what="these sprites cannot be made", where=f"clips {clips}, {given}", why=why, fix="change it"
            )


def _begin(out: Path, settings: dict[str, Any], clips: int) -> dict[str, str]:
    """Claim the folder; the digests of what an earlier call finished there. Nothing counts as finished from here on."""
    present = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    earlier = next((_read(out / name) for name in (_INDEX, _UNFINISHED) if name in present), None)
    if out.exists() and not out.is_dir():
        raise InputError(what="the target is a file, not a folder", where=str(out), fix="give another folder")
    if present and earlier is None:
        raise InputError(
            what="the folder is not empty and holds no sprites",
            where=str(out),
            why=f"found: {', '.join(present[:8])}",
            fix="give a new or empty folder",
        )
    if earlier is not None and ({**earlier, **settings} != earlier or clips < earlier.get("clips", 0)):
        same = ", ".join(f"{key} {earlier.get(key)}" for key in ("clips", "frames", "size", "rate", "seed", "classes"))
        raise InputError(
            what="the folder holds other sprites",
            where=str(out),
            why=f"they were made with: {same}",
            fix="give another folder, or remove this one",
        )
    for folder in (out / "truth", *(out / "videos" / label for label in settings["classes"])):
        folder.mkdir(parents=True, exist_ok=True)
    files = dict(earlier.get("files", {})) if earlier else {}
    _commit(out / _UNFINISHED, _json({**settings, "clips": clips, "files": files}))
    (out / _INDEX).unlink(missing_ok=True)
    return files


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InputError(
            what="the index of the sprites is damaged", where=str(path), why=str(error), fix="remove the folder"
        ) from error


def _clip_files(out: Path, settings: dict[str, Any], index: int, known: dict[str, str]) -> dict[str, str]:
    """Make sure that a clip's three files are there; their paths and digests."""
    label = settings["classes"][index % len(settings["classes"])]
    name = f"sprite-{index:05d}"
    paths = [f"videos/{label}/{name}.mp4", f"truth/{name}.npz", f"truth/{name}.json"]
    if all(path in known and _digest_of(out / path) == known[path] for path in paths):
        return {path: known[path] for path in paths}
    scene = make_scene(label, seed=settings["seed"], index=index, frames=settings["frames"], size=settings["size"])
    made = zip(paths, _make_clip(scene, name, settings["rate"]), strict=True)
    return {path: _commit(out / path, data) for path, data in made}


def _make_clip(scene: Scene, name: str, rate: int) -> tuple[bytes, bytes, bytes]:
    """A clip's video, masks and truth."""
    drawings: list[Drawing] = []
    masks: list[NDArray[np.uint8]] = []

    def images() -> Iterator[NDArray[np.uint8]]:
        for drawing in draw(scene):
            masks.append(drawing.mask)
            drawings.append(drawing)
            yield drawing.image

    video = encode(images(), size=scene.size, rate=rate)
    return video, _npz(masks), _json({"clip": name, **_truth(scene, drawings)})


def encode(images: Iterable[NDArray[np.uint8]], *, size: int, rate: int) -> bytes:
    """An MP4 file of RGB pictures, uint8 [size, size, 3]: H.264, 4:2:0, near lossless to the eye.

    One thread and fixed settings, so that the same pictures give the same bytes. No B-frames: with them MP4 needs an
    edit list, which some decoders ignore, and the first frame would not be at second 0 for everyone.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": _CRF, "preset": "medium", "bf": "0"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        # Said outright, because decoders guess the colour matrix of untagged video from its size.
        stream.codec_context.colorspace = Colorspace.ITU601
        stream.codec_context.color_range = ColorRange.MPEG
        for image in images:
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601)))
        container.mux(stream.encode(None))
    return file.getvalue()


def _truth(scene: Scene, drawings: Sequence[Drawing]) -> dict[str, Any]:
    """The truth of a clip: class, the camera's way [T, 2], and its objects.

    Of each object: looks, depth (more is nearer) and, frame by frame, centre, radius, angle, area, inside, hidden and
    keypoints [T, K, 3] (see ``Drawing``).
    """
    objects = [
        {
            "id": k + 1,
            "shape": sprite.shape,
            "colour": sprite.colour,
            "texture": sprite.texture,
            "motion": sprite.motion,
            "depth": sprite.depth,
            "centre": np.round(sprite.path.centre, 3).tolist(),
            "radius": np.round(sprite.path.radius, 3).tolist(),
            "angle": np.round(sprite.path.angle, 5).tolist(),
            "area": [drawing.area[k] for drawing in drawings],
            "inside": [round(drawing.inside[k], 4) for drawing in drawings],
            "hidden": [round(drawing.hidden[k], 4) for drawing in drawings],
            "keypoints": [drawing.keypoints[k].tolist() for drawing in drawings],
        }
        for k, sprite in enumerate(scene.sprites)
    ]
    return {"label": scene.label, "camera": np.round(scene.camera, 3).tolist(), "objects": objects}


def _npz(masks: Sequence[NDArray[np.uint8]]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, masks=np.stack(masks))
    return file.getvalue()


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, separators=(",", ":")) + "\n").encode()


def _commit(path: Path, data: bytes) -> str:
    """Write a file whole or not at all; its sha256."""
    draft = path.with_name(f".{path.name}.tmp")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return hashlib.sha256(data).hexdigest()


def _digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
