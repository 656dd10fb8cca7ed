"""Real small videos for tests: H.264 files of moving coloured squares, every frame different from every other."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def picture(index: int, *, height: int, width: int, seed: int) -> np.ndarray:
    """Frame ``index`` of a video, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    image = np.kron(low, np.ones((-(-height // 6), -(-width // 8), 1), dtype=np.uint8))[:height, :width].copy()
    side = height // 3
    top, left = (index * 3 + seed) % (height - side), (index * 5 + 2 * seed) % (width - side)
    image[top : top + side, left : left + side] = ((40 * index) % 255, 255 - (20 * index) % 255, (90 * seed) % 255)
    return image


def write_video(
    path: Path, *, frames: int = 12, height: int = 72, width: int = 96, rate: int = 12, seed: int = 0
) -> Path:
    """Write an H.264 file (the container from the suffix) and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for index in range(frames):
            image = picture(index, height=height, width=width, seed=seed)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_folder(folder: Path, lengths: list[int], *, bad: int = 0) -> Path:
    """A folder of videos ``clip_00.mp4`` … of these lengths, and ``bad`` files that are no videos."""
    for number, frames in enumerate(lengths):
        write_video(folder / f"clip_{number:02d}.mp4", frames=frames, seed=number)
    for number in range(bad):
        (folder / f"text_{number:02d}.mp4").write_text("this is no video\n" * 50)
    return folder
