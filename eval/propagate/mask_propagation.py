"""One video under a preset: its frames and the mask of the first one in, a mask of every frame out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import cv2
import numpy as np
import torch

from frame.eval.encoder import Encoder, Frame, Picture
from frame.eval.propagate.images import Ids, Size, input_size, resize_float, resize_nearest, resize_picture
from frame.eval.propagate.label_maps import read_out, soft_labels
from frame.eval.propagate.preset import InputKnobs, MaskKnobs, Preset
from frame.eval.propagate.propagation import Propagator
from frame.model import Tokens


def propagate_masks(encoder: Encoder, preset: Preset, pictures: Iterable[Picture], mask_HW: Ids) -> Iterator[Ids]:
    """The ids of every frame, in order, of the size at which the preset scores (see ``scored``).

    ``mask_HW`` is the mask of the first frame; what comes out for the first frame are its labels after they went to
    cells and back. All frames are brought to the input size of the first. Nothing comes out of no frames.
    """
    masks = mask_knobs(preset)
    copied = (_copied(picture, masks) for picture in pictures)
    first = next(copied, None)
    if first is None:
        return
    height, width = first.shape[:2]
    size = input_size((height, width), rule=preset.input.rule, sides=preset.input.sides, patch=encoder.info.patch)
    true_HW = scored(mask_HW, preset)
    frames = (prepared(picture, preset.input, size) for picture in chain([first], copied))
    tokens = encoder.stream(frames, std=preset.input.std)
    yield from _propagate(tokens, preset, true_HW, size=size, patch=encoder.info.patch)


def scored(mask_HW: Ids, preset: Preset) -> Ids:
    """A true mask as the preset scores it: as it is, or as it is in the resized copy of the dataset."""
    return _copied(mask_HW, mask_knobs(preset))


def prepared(picture: Picture, knobs: InputKnobs, size: Size) -> Frame:
    """A frame as it goes into the encoder: resized, and grey where the protocol wants lightness only."""
    if knobs.colour == "lightness":
        # UVC resizes before it takes the lightness.
        lightness_HW1 = cv2.cvtColor(resize_picture(picture, size), cv2.COLOR_RGB2LAB)[..., :1]
        return np.repeat(lightness_HW1, 3, axis=2)
    return resize_picture(picture, size) if knobs.resized_as == "uint8" else resize_float(picture, size)


def mask_knobs(preset: Preset) -> MaskKnobs:
    """The preset's knobs for masks. Only presets of tasks with masks may come here."""
    if preset.masks is None:
        raise ValueError(f"the preset {preset.name} for {preset.task} has no masks")
    return preset.masks


def _propagate(tokens: Iterator[Tokens], preset: Preset, true_HW: Ids, *, size: Size, patch: int) -> Iterator[Ids]:
    masks, propagator = mask_knobs(preset), Propagator(preset.propagation)
    first = soft_labels(true_HW, down=masks.labels, size=size, patch=patch)
    labels_hwC = torch.from_numpy(first.labels)
    for number, token in enumerate(tokens):
        if number == 0:
            labels_hwC = labels_hwC.to(token.patches.device)
            propagator.begin(token.patches, labels_hwC)
        else:
            labels_hwC = propagator.step(token.patches)
        height, width = true_HW.shape
        yield read_out(
            labels_hwC, first.ids, up=masks.upsample, back=masks.back, minmax=masks.minmax, size=size,
            native=(height, width),
        )  # fmt: skip


def _copied(pixels: Picture, masks: MaskKnobs) -> Picture:
    """A picture or mask in the resized copy of the dataset that the protocol worked on, if there was one."""
    if not masks.copy:
        return pixels
    height, width = masks.copy
    return resize_nearest(pixels, (height, width), library="opencv")
