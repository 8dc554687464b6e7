"""Near-duplicates: pairs of different classes that look alike, and all pairs in an index that do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.arrays import to_tensor
from fewshot.errors import InvalidOption
from fewshot.scan import of_equals

if TYPE_CHECKING:
    from fewshot.index import Index
    from fewshot.store import Store

MOST = 10_000  # rows compared with each other: 10,000 of 1,664 columns take some ten seconds on two cores
BLOCK = 1024


class Pair(NamedTuple):
    """Two rows, `first` < `second`."""

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


def pairs_above(index: Index, least: float, *, block: int = BLOCK) -> Iterator[Pair]:
    """Yield the pairs of rows of an index whose inner product is `least` or more, by first row, nearest first.

    What is 1 but for rounding counts as 1. Every row is a range search; an approximate kind of index may miss a pair,
    and no pair's cosine is approximate.
    """
    live, least = np.flatnonzero(index.alive), min(least, of_equals(index.rows))
    for start in range(0, len(live), block):
        own = live[start : start + block]
        for first, (scores, rows) in zip(own, index.range_search(to_tensor(index.rows[own]), least), strict=True):
            later = rows > first
            for score, second in zip(scores[later].tolist(), rows[later].tolist(), strict=True):
                yield Pair(int(first), second, min(score, 1.0))


def duplicate_paths(store: Store, index: Index, least: float) -> Iterator[tuple[str, str, float]]:
    """Yield the paths of near-duplicate pictures with their cosine: identical files first, then by first row.

    Raises
    ------
    InvalidOption
        for a `least` that is no number.
    """
    if math.isnan(least):
        raise InvalidOption("the least cosine must be a number, got nan")
    entries = store.entries()
    paths: dict[int, list[str]] = {}
    for entry in entries:
        paths.setdefault(entry.row, []).append(entry.path)
    for same in paths.values():
        yield from ((first, second, 1.0) for first, second in combinations(same, 2))
    for pair in pairs_above(index, least):
        yield from ((a, b, pair.cosine) for a in paths.get(pair.first, ()) for b in paths.get(pair.second, ()))
