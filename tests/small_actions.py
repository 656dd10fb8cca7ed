"""Data sets of actions small enough for tests: videos of one colour each, in the layouts of UCF-101 and HMDB-51."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import open_clip

RED, GREEN, BLUE = (230, 20, 20), (20, 230, 20), (20, 20, 230)
COLOURS = {"ApplyRed": RED, "GoGreen": GREEN, "BeBlue": BLUE}


def write_colour(path: Path, colour: tuple[int, int, int], *, frames: int = 9) -> Path:
    """A video whose frames are of one colour, a little darker each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 2_000_000
        for number in range(frames):
            image = np.full((48, 64, 3), colour, dtype=np.uint8) - np.uint8(2 * number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_ucf(root: Path, *, groups: int = 4) -> Path:
    """Three classes of two clips a group; in split N the group N is test. ``BeBlue`` of group 1 is in fact green."""
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    lists.joinpath("classInd.txt").write_text("".join(f"{n} {c}\r\n" for n, c in enumerate(COLOURS, start=1)))
    rows: dict[str, list[str]] = {f"{part}list0{split}": [] for part in ("train", "test") for split in (1, 2, 3)}
    for number, (name, colour) in enumerate(COLOURS.items(), start=1):
        for group in range(1, groups + 1):
            for clip in (1, 2):
                file = f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi"
                shown = GREEN if (name, group) == ("BeBlue", 1) else colour
                write_colour(root / "UCF-101" / file, shown, frames=10 - clip)
                for split in (1, 2, 3):
                    row = file if group == split else f"{file} {number}"
                    rows[f"{'test' if group == split else 'train'}list0{split}"].append(row)
    for name, lines in rows.items():
        lists.joinpath(f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def write_hmdb(root: Path) -> Path:
    """Two classes; ``#odd & (1)_wave_x.avi`` is of neither part in split 1."""
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for name, colour in (("brush_hair", RED), ("wave", BLUE)):
        files = [f"{source}_{name}_u_nm_{n}.avi" for source in ("one", "two", "three") for n in (0, 1)]
        parts = [1, 1, 1, 1, 2, 2]
        if name == "wave":
            files, parts = [*files, "#odd & (1)_wave_x.avi"], [*parts, 0]
        for file in files:
            write_colour(root / name / file, colour)
        for split in (1, 2, 3):
            turned = parts[split - 1 :] + parts[: split - 1]
            lists.joinpath(f"{name}_test_split{split}.txt").write_text(
                "".join(f"{file} {part} \n" for file, part in zip(files, turned, strict=True))
            )
    return root


def register_tiny_clip(folder: Path) -> None:
    """Make open_clip know ``tiny-clip``, ``tiny-custom`` (whose text tower lies below `text.`) and ``tiny-quick``."""
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    configs = {
        "tiny-clip": {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text},
        "tiny-quick": {"embed_dim": 12, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text},
        "tiny-custom": {"embed_dim": 12, "custom_text": True, "vision_cfg": vision, "text_cfg": text},
        "tiny-hub": {"embed_dim": 12, "vision_cfg": vision, "text_cfg": {**text, "hf_tokenizer_name": "a/b"}},
    }
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder / f"{name}.json")
