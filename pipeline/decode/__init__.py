"""Videos and folders of pictures in, RGB frames out: the right frames or none, from a process that can be killed."""

from frame.pipeline.decode.cage import DECODERS, DecodeCage
from frame.pipeline.decode.errors import REASONS, ClipError
from frame.pipeline.decode.limits import Limits
from frame.pipeline.decode.probe import FOLDER_RATE, Probe

__all__ = ["DECODERS", "FOLDER_RATE", "REASONS", "ClipError", "DecodeCage", "Limits", "Probe"]
