"""Features of frames on disk: taken once, found again by what they were made of, remade if they are damaged.

h w grid, D width.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from frame.eval.encoder import Picture
from frame.manifests.errors import InputError
from frame.model.files import replacing

StoredType = Literal["float16", "float32"]
Features = NDArray[Any]  # float16 or float32 [h, w, D]
_DIGEST = 32  # bytes of SHA-256


def picture_digest(picture: Picture) -> str:
    """sha256 of the shape and the pixels of a picture as the encoder gets it, wherever it was read from."""
    return hashlib.sha256(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


class FeatureStore:
    """A folder of ``.npy`` files, one a frame, each with the SHA-256 of its bytes behind it (NumPy reads it as is).

    A file appears whole or not at all, under a name that says what it was made of: encoder, pixels, past frames in the
    memory, type. Several runs may share a folder.
    """

    def __init__(self, folder: Path, stored: StoredType = "float16") -> None:
        if stored not in get_args(StoredType):
            raise InputError(what="Features cannot be kept so.", where=stored, fix="use float16 or float32")
        self.folder, self.stored = folder, stored

    def key(self, encoder: str, seen: Sequence[str]) -> str:
        """The name of a frame's features: of what identifies the encoder, and the digests of the frames it sees.

        What an encoder with memory says of a frame depends on its past, so the past is part of the name.
        """
        return hashlib.sha256("\n".join([encoder, self.stored, *seen]).encode()).hexdigest()

    def holds(self, key: str) -> bool:
        """Whether whole features are there. A damaged file does not count, and is overwritten by ``write``."""
        try:
            data = self._path(key).read_bytes()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise InputError(what="The features cannot be read.", where=str(self._path(key)), why=str(error)) from error
        return len(data) > _DIGEST and hashlib.sha256(data[:-_DIGEST]).digest() == data[-_DIGEST:]

    def write(self, key: str, features_hwD: NDArray[np.float32]) -> None:
        """Keep features. Raises InputError for a value that the stored type cannot hold."""
        with np.errstate(over="ignore"):
            kept_hwD = features_hwD.astype(self.stored)
        if not np.isfinite(kept_hwD).all():
            raise InputError(
                what=f"The encoder gave features that are no {self.stored} numbers.",
                where=str(self.folder),
                why=f"largest magnitude {float(np.abs(features_hwD).max()):g}",
                fix="keep them as float32; if that fails too, the encoder's weights are broken",
            )
        data = io.BytesIO()
        np.save(data, kept_hwD)
        with replacing(self._path(key)) as partial:
            partial.write_bytes(data.getvalue() + hashlib.sha256(data.getvalue()).digest())

    def read(self, key: str, *, mapped: bool = False) -> Features:
        """The features [h, w, D] of a key that ``holds``; ``mapped`` leaves them on disk until they are looked at."""
        features: Features = np.load(self._path(key), mmap_mode="r" if mapped else None, allow_pickle=False)
        return features

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"
