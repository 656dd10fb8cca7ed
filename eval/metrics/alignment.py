"""Do embeddings of two videos of one action follow each other in time? Kendall's tau and AP@K of CARL and TCC.

T frames of a video, D width of the embeddings. A video is one array [T, D]; labels [T] are those of the same frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import kendalltau

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]

RETRIEVAL_K = (5, 10, 15)
STRIDES = {"penn": 2, "pouring": 5}


def kendall_tau(videos: Sequence[Floats], *, stride: int) -> float:
    """The mean of tau-b over all ordered pairs of different videos, pairs without a value aside; nan without any.

    Each frame (every ``stride``-th, from the first) of one video finds its nearest frame of the other, by squared
    Euclidean distance; tau compares the order of what was found with the order of time. The first of equally near
    frames is taken. A pair has no value where all frames find the same one, or a video has one frame.
    """
    taus = [_tau(query, other) for query, other in permutations([video[::stride] for video in videos], 2)]
    known = [tau for tau in taus if not np.isnan(tau)]
    return float(np.mean(known)) if known else float("nan")


def retrieval_precision(
    videos: Sequence[Floats], labels: Sequence[Labels], *, stride: int, ks: Sequence[int] = RETRIEVAL_K
) -> dict[int, float]:
    """AP@K of the literature, which is the precision among the first K, not averaged over ranks.

    Every ``stride``-th frame of a video asks for its K nearest (Euclidean) among every ``stride``-th frame of all
    *other* videos; the score is the fraction of them with its own label, averaged over the frames of a video, then over
    the videos. nan with fewer than two videos. With fewer than K candidates, all of them are what is found.
    """
    scores = list(_precisions([video[::stride] for video in videos], [each[::stride] for each in labels], max(ks), ks))
    if not scores:
        return dict.fromkeys(ks, float("nan"))
    return dict(zip(ks, np.mean(scores, axis=0).tolist(), strict=True))


def _tau(query_TD: Floats, other_TD: Floats) -> float:
    if len(query_TD) < 2 or not len(other_TD):
        return float("nan")
    nearest_T = cdist(query_TD, other_TD, "sqeuclidean").argmin(axis=1)
    if (nearest_T == nearest_T[0]).all():
        return float("nan")
    return float(kendalltau(np.arange(len(query_TD)), nearest_T).statistic)


def _precisions(
    videos: Sequence[Floats], labels: Sequence[Labels], most: int, ks: Sequence[int]
) -> Iterator[list[float]]:
    for at, (query_TD, query_T) in enumerate(zip(videos, labels, strict=True)):
        others = [number for number in range(len(videos)) if number != at]
        candidates = [videos[number] for number in others]
        if not len(query_TD) or not sum(map(len, candidates)):
            continue
        pool_ND = np.concatenate(candidates)
        pool_N = np.concatenate([labels[number] for number in others])
        distance_TN = cdist(query_TD, pool_ND, "sqeuclidean")
        nearest_Tk = np.argsort(distance_TN, axis=1, kind="stable")[:, :most]
        right_Tk = pool_N[nearest_Tk] == query_T[:, None]
        yield [float(right_Tk[:, :k].mean()) for k in ks]
