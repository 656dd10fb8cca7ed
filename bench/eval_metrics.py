"""J and F of DAVIS: a plain loop over frames and objects against ours, for time and for value.

    python bench/eval_metrics.py [--masks FOLDER [--binary]] [--frames 60] [--rounds 3]

The loop goes through the official evaluator's steps, one object of one frame at a time: boundary maps, two dilations
by a disk with OpenCV, sums; masks are read with Pillow. It is the one that the tests compare with. *memory*: masks made
here, 480 x 854, are in memory already. *folder*: everything from the PNG files on disk to the scores, on the masks made
here and on those of ``--masks`` (``SEQUENCE/*.png``, DAVIS layout), ``--copies`` of each sequence: DAVIS-2017 has 1,999
frames, and only for many does it pay to start other processes. The prediction is the truth delayed by one frame. The
loop has one thread, and ours in memory too; over folders of many frames ours has a process a core. Rounds are
interleaved and the medians compared.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from frame.eval.metrics.davis import ObjectScores, object_count, sequence_scores
from frame.eval.metrics.mask_folders import score_folders

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from official_davis import plain_f, plain_folder, plain_j

HEIGHT, WIDTH = 480, 854


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=Path, help="a folder of true masks")
    parser.add_argument("--binary", action="store_true", help="all values above 0 are one object (DAVIS-2016)")
    parser.add_argument("--copies", type=int, default=7, help="of each sequence in --masks")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def made(objects: int, frames: int) -> np.ndarray:
    """Ids of rough blobs that drift, uint8 [T, H, W]."""
    rng = np.random.default_rng(objects)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    rough = cv2.GaussianBlur(rng.normal(size=(HEIGHT, WIDTH)), (0, 0), 9)
    rough /= rough.std()
    ids = np.zeros((frames, HEIGHT, WIDTH), dtype=np.uint8)
    for number in range(1, objects + 1):
        y, x, tall, wide = rng.uniform((120, 150, 50, 50), (360, 700, 130, 160))
        down, right = rng.uniform(-4, 4, 2)
        for t in range(frames):
            far = ((rows - y - down * t) / tall) ** 2 + ((columns - x - right * t) / wide) ** 2
            ids[t][far < 1 + 0.15 * rough] = number
    ids[0, 0, :objects] = range(1, objects + 1)  # no object is hidden behind the others at first
    return ids


def delayed(true: Path, pred: Path) -> None:
    for folder in sorted(true.iterdir()):
        files = sorted(folder.glob("*.png"))
        (pred / folder.name).mkdir(parents=True)
        for earlier, file in zip([files[0], *files], files, strict=False):
            shutil.copyfile(earlier, pred / folder.name / file.name)


def write(folder: Path, ids: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, each in enumerate(ids):
        image = Image.fromarray(each)
        image.putpalette(np.random.default_rng(0).integers(0, 255, 768).tolist())
        image.save(folder / f"{number:05d}.png", bits=8)


def loop(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """[object, 2, frame]."""
    count = object_count(true[0])
    frames = [
        [(plain_j(a == n, b == n), plain_f(a == n, b == n)) for n in range(1, count + 1)]
        for a, b in zip(pred[1:-1], true[1:-1], strict=True)
    ]
    return np.array(frames).transpose(1, 2, 0)


def compare(name: str, frames: int, slow: Callable[[], Any], fast: Callable[[], Any], rounds: int) -> None:
    """One line: times of a frame, the ratio of the medians, the largest difference of a mean."""
    times: tuple[list[float], list[float]] = ([], [])
    found: list[Any] = [None, None]
    for _ in range(rounds):
        for at, run in enumerate((slow, fast)):
            began = time.perf_counter()
            found[at] = run()
            times[at].append((time.perf_counter() - began) / frames * 1000)
    ours: list[ObjectScores] = found[1]
    means = np.array([[score.j.mean, score.f.mean] for score in ours])
    difference = np.abs(means - found[0]).max()
    a, b = (statistics.median(each) for each in times)
    print(f"{name:<26}{len(ours):>8}{a:>10.2f}{b:>10.2f}{a / b:>9.1f}x{difference:>13.1e}")


def main() -> None:
    options = arguments()
    cv2.setNumThreads(1)
    print("milliseconds a frame")
    print(f"{'':<26}{'objects':>8}{'loop':>10}{'ours':>10}{'ratio':>10}{'difference':>13}")
    with tempfile.TemporaryDirectory() as temporary:
        for objects in (1, 2, 5):
            ids = made(objects, options.frames)
            late, true = ids[[0, *range(len(ids) - 1)]], ids
            scored = len(ids) - 2
            compare(
                "memory, made", scored, lambda late=late, true=true: loop(late, true).mean(axis=2),
                lambda late=late, true=true: sequence_scores(late, true), options.rounds,
            )  # fmt: skip
            root = Path(temporary) / str(objects)
            write(root / "true" / "made", ids)
            folder("folder, made (palette)", root / "pred", root / "true", False, options.rounds)
        if options.masks:
            pred, true = Path(temporary) / "delayed", Path(temporary) / "true"
            for copy in range(options.copies):
                for sequence in options.masks.iterdir():
                    shutil.copytree(sequence, true / f"{sequence.name}-{copy}")
            folder("folder, --masks", pred, true, options.binary, options.rounds)


def folder(name: str, pred: Path, true: Path, binary: bool, rounds: int) -> None:
    delayed(true, pred)
    scored = sum(len(list(each.glob("*.png"))) - 2 for each in true.iterdir())
    compare(
        name, scored,
        lambda: np.concatenate([each.mean(axis=2) for each in plain_folder(pred, true, binary=binary).values()]),
        lambda: [score for each in score_folders(pred, true, binary=binary).values() for score in each],
        rounds,
    )  # fmt: skip


if __name__ == "__main__":
    main()
