"""The FRAME model: an encoder of video frames with a memory, its decoders, and how it is kept."""

from frame.model.config import WIDTHS, MemoryConfig, ModelConfig
from frame.model.encoder import FrameEncoder, Tokens
from frame.model.weights import weights_digest

__all__ = ["WIDTHS", "FrameEncoder", "MemoryConfig", "ModelConfig", "Tokens", "weights_digest"]
