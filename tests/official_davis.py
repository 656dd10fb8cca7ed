"""J and F one frame and one object at a time, as the official evaluator goes about it: what the fast versions are
compared with, for value and time.

The official steps are all there, pixels to ignore included, of which this task has none.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def plain_boundary(mask: np.ndarray) -> np.ndarray:
    mask = mask.astype(bool)
    right, below, corner = (np.zeros_like(mask) for _ in range(3))
    right[:, :-1], below[:-1], corner[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edge = (mask ^ right) | (mask ^ below) | (mask ^ corner)
    edge[-1] = mask[-1] ^ right[-1]
    edge[:, -1] = mask[:, -1] ^ below[:, -1]
    edge[-1, -1] = False
    return edge


def plain_disk(radius: int) -> np.ndarray:
    across = np.arange(-radius, radius + 1)
    return (across[:, None] ** 2 + across[None] ** 2 <= radius**2).astype(np.uint8)


def plain_j(pred: np.ndarray, true: np.ndarray) -> float:
    counted = np.logical_not(np.zeros_like(pred))
    union = np.sum((pred | true) & counted)
    return float(np.sum((pred & true) & counted) / union) if union else 1.0


def plain_f(pred: np.ndarray, true: np.ndarray) -> float:
    radius = int(np.ceil(0.008 * np.linalg.norm(pred.shape)))
    counted = np.logical_not(np.zeros_like(pred))
    pred_edge, true_edge = plain_boundary(pred * counted), plain_boundary(true * counted)
    kernel = plain_disk(radius)
    pred_wide = cv2.dilate(pred_edge.astype(np.uint8), kernel)
    true_wide = cv2.dilate(true_edge.astype(np.uint8), kernel)
    pred_match, true_match = pred_edge * true_wide, true_edge * pred_wide
    pred_count, true_count = np.sum(pred_edge), np.sum(true_edge)
    if pred_count == 0 and true_count == 0:
        return 1.0
    precision = np.sum(pred_match) / pred_count if pred_count else 1.0
    recall = np.sum(true_match) / true_count if true_count else 1.0
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def plain_statistics(values: np.ndarray) -> tuple[float, float, float]:
    bounds = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(np.uint8).astype(int)
    quarters = [values[bounds[i] : bounds[i + 1] + 1] for i in range(4)]
    return values.mean(), (values > 0.5).mean(), quarters[0].mean() - quarters[3].mean()


def plain_folder(pred: Path, true: Path, *, binary: bool) -> dict[str, np.ndarray]:
    """J and F by sequence, [object, 2, frame], of all frames but the first and the last: reading, then arithmetic."""
    scores = {}
    for folder in sorted(true.iterdir()):
        files = sorted(folder.iterdir())
        first = np.array(Image.open(files[0]))
        objects = 1 if binary else int(first[first < 255].max())
        frames = []
        for file in files[1:-1]:
            truth, guess = np.array(Image.open(file)), np.array(Image.open(pred / folder.name / file.name))
            if binary:
                truth, guess = truth > 0, guess > 0
            pairs = [(guess == number, truth == number) for number in range(1, objects + 1)]
            frames.append([(plain_j(a, b), plain_f(a, b)) for a, b in pairs])
        scores[folder.name] = np.array(frames).transpose(1, 2, 0)
    return scores
