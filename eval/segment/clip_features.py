"""Features of the frames that an evaluation asks for, each with its past in the encoder's memory.

H W pixels, h w grid, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from frame.eval.encoder import Encoder, EncoderInfo, Picture
from frame.eval.propagate.images import resize_picture
from frame.eval.segment.feature_store import Features, FeatureStore, picture_digest
from frame.eval.segment.labelled_clip import LabelledClip
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress, Tick

Size = tuple[int, int]  # rows, columns in pixels

_TOGETHER = 32  # frames asked for in one stream: bounds the pictures held, costs at most one memory's warm-up each


def whole_patches(size: Size, patch: int, *, where: str = "") -> Size:
    """Both sides rounded down to whole patches. Raises InputError where nothing is left."""
    rows, columns = (side // patch * patch for side in size)
    if not rows or not columns:
        raise InputError(
            what="The input is smaller than one patch.",
            where=where,
            why=f"{size[0]} x {size[1]} pixels, patches of {patch}",
            fix="give a larger --size",
        )
    return rows, columns


def fitted(picture_HW3: Picture, size: Size | None, patch: int, *, where: str = "") -> Picture:
    """The whole picture at ``size`` (None: its own), sides rounded down to whole patches; OpenCV's bilinear."""
    rows, columns = whole_patches(size or picture_HW3.shape[:2], patch, where=where)
    return resize_picture(picture_HW3, (rows, columns))


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Frames of one clip that go through an encoder in one stream; those in ``wanted`` are kept."""

    numbers: tuple[int, ...]
    wanted: frozenset[int]


def plan_runs(clip: LabelledClip, wanted: Iterable[int], memory: int) -> list[Run]:
    """The fewest frames to read so that each wanted frame is seen with its whole memory before it.

    Streams whose windows overlap are one, up to a length that bounds the pictures held.
    """
    runs: list[Run] = []
    numbers: list[int] = []
    kept: list[int] = []
    for number in sorted(set(wanted)):
        window = clip.window(number, memory)
        if kept and len(kept) < _TOGETHER and _continues(clip, numbers, window, memory):
            numbers += [one for one in window if one > numbers[-1]]
        else:
            if kept:
                runs.append(Run(numbers=tuple(numbers), wanted=frozenset(kept)))
            numbers, kept = window, []
        kept.append(number)
    return [*runs, Run(numbers=tuple(numbers), wanted=frozenset(kept))] if kept else runs


def _continues(clip: LabelledClip, numbers: Sequence[int], window: Sequence[int], memory: int) -> bool:
    """Whether the window goes on where the stream is, so that one memory serves both."""
    if memory == 0:
        return True  # every frame by itself: what lies between does not matter
    return window[0] <= numbers[-1] or clip.window(window[0], 1)[0] == numbers[-1]


class ClipFeatures:
    """Features by (clip, frame number): in memory if all fit into ``room`` bytes, else mapped from the store."""

    def __init__(self, store: FeatureStore, keys: Mapping[tuple[str, int], str], room: int) -> None:
        self._store, self._keys = store, keys
        first = next(iter(keys.values()), None)
        size = 0 if first is None else store.read(first, mapped=True).nbytes * len(keys)
        self.in_memory = size <= room
        self._held = {key: store.read(key) for key in set(keys.values())} if self.in_memory else {}

    def __call__(self, clip: str, number: int) -> Features:
        """[h, w, D]"""
        key = self._keys[clip, number]
        return self._held[key] if self.in_memory else self._store.read(key, mapped=True)


def take_features(
    clips: Sequence[tuple[LabelledClip, Iterable[int]]], encoder: Encoder, store: FeatureStore, size: Size | None,
    progress: Progress,
) -> dict[tuple[str, int], str]:  # fmt: skip
    """Put the features of the wanted frames of each clip into the store, those that are not there yet.

    Returns the store's key for each (clip's name, frame number). Clips of one name must be of the same frames.
    """
    memory = encoder.info.memory
    planned = [(clip, run) for clip, wanted in clips for run in plan_runs(clip, wanted, memory)]
    keys: dict[tuple[str, int], str] = {}
    with progress.bar("features", total=sum(len(run.wanted) for _, run in planned), unit="frames") as tick:
        for clip, run in planned:
            keys |= _take_run(clip, run, encoder, store, size, tick)
    return keys


def _take_run(
    clip: LabelledClip, run: Run, encoder: Encoder, store: FeatureStore, size: Size | None, tick: Tick
) -> dict[tuple[str, int], str]:
    pictures = _pictures(clip, run, size, encoder.info.patch)
    digests = dict(zip(run.numbers, map(picture_digest, pictures), strict=True))
    keys = {}
    for number in run.wanted:
        seen = [digests[one] for one in clip.window(number, encoder.info.memory)]
        keys[number] = store.key(_identity(encoder.info), seen)
    missing = {number for number, key in keys.items() if not store.holds(key)}
    tick(len(keys) - len(missing))
    if missing:
        # Frames after the last one that is asked for need not be seen; those before fill the memory.
        count = run.numbers.index(max(missing)) + 1
        for number, tokens in zip(run.numbers[:count], encoder.stream(pictures[:count]), strict=True):
            if number in missing:
                store.write(keys[number], tokens.patches.float().cpu().numpy())
                tick()
    return {(clip.name, number): key for number, key in keys.items()}


def _identity(info: EncoderInfo) -> str:
    """All of an encoder that its features depend on: weights, and how it reads pixels."""
    return f"{info.digest} {info.model} {info.mean} {info.std} {info.memory}"


def _pictures(clip: LabelledClip, run: Run, size: Size | None, patch: int) -> list[Picture]:
    pictures = [fitted(one, size, patch, where=clip.name) for one in clip.pictures(run.numbers)]
    shapes = {one.shape for one in pictures}
    if len(shapes) > 1:
        raise InputError(
            what="The frames of a video are of several sizes.",
            where=clip.name,
            why=", ".join(sorted(f"{shape[0]} x {shape[1]}" for shape in shapes)),
            fix="give one --size for all",
        )
    return pictures
