"""Pictures as a film that every player shows."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from frame.eval.encoder import Picture
from frame.model.files import replacing

_CRF = "18"
_FINEST = 1001  # denominator of a rate: 30000/1001 is told from 30


def write_mp4(path: Path, pictures: Iterable[Picture], rate: float) -> Path:
    """Write RGB pictures of one size as H.264 in MP4, ``rate`` a second; returns the path.

    A side of an odd number of pixels is repeated once more at its end: the colours are kept at half the size. One
    thread and no B-frames, so that the same pictures give the same bytes and the first one is at second 0. Raises
    ValueError without a picture, InputError where the disk refuses.
    """
    each = iter(pictures)
    first = next(each, None)
    if first is None:
        raise ValueError("a film needs a picture")
    with replacing(path) as partial, av.open(partial, "w", format="mp4") as container:
        speed = Fraction(rate).limit_denominator(_FINEST)
        stream = container.add_stream("libx264", rate=speed, options={"crf": _CRF, "preset": "medium", "bf": "0"})
        stream.height, stream.width = _even(first).shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        # Said outright, because decoders guess the colour matrix of untagged video from its size.
        stream.codec_context.colorspace = Colorspace.ITU601
        stream.codec_context.color_range = ColorRange.MPEG
        for picture in chain([first], each):
            image = av.VideoFrame.from_ndarray(_even(picture), format="rgb24")
            container.mux(stream.encode(image.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601)))
        container.mux(stream.encode(None))
    return path


def _even(picture: Picture) -> Picture:
    rows, columns = picture.shape[:2]
    return np.ascontiguousarray(np.pad(picture, ((0, rows % 2), (0, columns % 2), (0, 0)), mode="edge"))
