"""Near-duplicates across classes: the pairs of items that look alike and are labelled differently."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST = 10_000  # rows compared with each other: 10,000 of 1,664 columns take some ten seconds on two cores
BLOCK = 1024


class Pair(NamedTuple):
    """Two rows of different classes, `first` < `second`."""

    first: int
    second: int
    cosine: float


def near_pairs(x: Tensor, labels: NDArray[np.int64], count: int, *, block: int = BLOCK) -> list[Pair]:
    """Find the pairs of rows of different classes that are nearest, nearest first; every pair is looked at.

    Parameters
    ----------
    x:
        [n, D] unit-norm embeddings.
    labels:
        [n] classes.
    count:
        how many pairs to return at most.
    """
    truth = torch.from_numpy(labels)
    columns = torch.arange(len(x))
    best: list[tuple[float, int, int]] = []
    for start in range(0, len(x), block):
        rows = columns[start : start + block]
        cosine = x[rows] @ x[start:].T  # [B, n - start]
        apart = (truth[rows, None] != truth[start:]) & (rows[:, None] < columns[start:])  # [B, n - start]
        value, place = cosine.masked_fill(~apart, -2.0).flatten().topk(min(count, cosine.numel()))  # [K] each
        width = cosine.shape[1]
        found = zip(value.tolist(), (place // width + start).tolist(), (place % width + start).tolist(), strict=True)
        best = sorted([*best, *(f for f in found if f[0] > -2.0)], key=lambda f: (-f[0], f[1], f[2]))[:count]
    return [Pair(i, j, min(value, 1.0)) for value, i, j in best]
