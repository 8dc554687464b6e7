"""Vectorised draws behind episodes: ordered samples without replacement, and how many queries each class gets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Rows = NDArray[np.int32]  # numbers of rows, which there are many of
Floats = NDArray[np.float64]

SWAP_LIMIT = 96  # samples longer than this are drawn by sorting random keys, whose cost does not grow with their square
KEYS_AT_ONCE = 4_000_000  # random keys held in memory


def sample_ordered(rng: np.random.Generator, sizes: Ints, k: int) -> Rows:
    """Draw k distinct numbers below sizes[r] for each row r, in random order.  [R] -> [R, k]

    Row r is a uniform draw as far as its first min(k, sizes[r]) numbers; what follows in a shorter row means nothing.
    """
    if k <= SWAP_LIMIT:
        return _shuffle_ahead(rng, sizes, k)
    widest = int(sizes.max(initial=0))
    step = max(1, KEYS_AT_ONCE // max(1, widest))
    parts = [_sort_keys(rng, sizes[a : a + step], widest) for a in range(0, len(sizes), step)]
    drawn = np.zeros((len(sizes), k), dtype=np.int32)
    drawn[:, : min(k, widest)] = np.concatenate(parts)[:, :k]
    return drawn


def _shuffle_ahead(rng: np.random.Generator, sizes: Ints, k: int) -> Rows:
    """Take the first k steps of a Fisher-Yates shuffle of each row, remembering only the places that were swapped."""
    rows = len(sizes)
    place = np.empty((k, rows), dtype=np.int32)  # the place that step i swapped with place i
    moved = np.empty((k, rows), dtype=np.int32)  # the number that went there
    drawn = np.empty((k, rows), dtype=np.int32)
    for i in range(k):
        place[i] = i + (rng.random(rows) * np.maximum(sizes - i, 1)).astype(np.int32)
        drawn[i] = place[i]
        moved[i] = i
        for j in range(i):
            np.copyto(drawn[i], moved[j], where=place[j] == place[i])
            np.copyto(moved[i], moved[j], where=place[j] == i)
    return np.ascontiguousarray(drawn.T)


def _sort_keys(rng: np.random.Generator, sizes: Ints, widest: int) -> Ints:
    """Shuffle every row whole by sorting random keys.  [R] -> [R, widest]"""
    keys = rng.random((len(sizes), widest))
    keys[np.arange(widest) >= sizes[:, None]] = 2.0  # places past the end of a row come last
    return keys.argsort(axis=1)


def long_tail(ways: Ints, widest: int, imbalance: float) -> Floats:
    """Class shares that fall geometrically by `imbalance` from the first class to the last.  [E] -> [E, W]"""
    position = np.arange(widest) / np.maximum(ways[:, None] - 1, 1)  # [E, W]
    weight = np.where(np.arange(widest) < ways[:, None], imbalance**-position, 0.0)
    share: Floats = weight / weight.sum(1, keepdims=True)
    return share


def dirichlet(rng: np.random.Generator, ways: Ints, widest: int, alpha: float) -> Floats:
    """Class shares drawn from a symmetric Dirichlet (Veilleux et al. 2021, arXiv:2106.09226).  [E] -> [E, W]"""
    weight = rng.standard_gamma(alpha, (len(ways), widest)) + 1e-12
    weight[np.arange(widest) >= ways[:, None]] = 0.0
    share: Floats = weight / weight.sum(1, keepdims=True)
    return share


def apportion(share: Floats, total: Ints, room: Ints) -> Ints:
    """Turn shares into whole numbers that sum to `total` with none above `room`.  [E, W], [E], [E, W] -> [E, W]

    Each class gets its share rounded down, the rest goes to the largest remainders; what a full class cannot take goes
    to the others in the same way.
    """
    counts = np.zeros(share.shape, dtype=np.int64)
    for _ in range(share.shape[1] + 1):  # each round ends the work or fills a class
        missing = total - counts.sum(1)  # [E]
        if not missing.any():
            break
        weight = np.where(counts < room, share + 1e-15, 0.0)
        exact = weight / np.maximum(weight.sum(1, keepdims=True), 1e-300) * missing[:, None]
        extra = np.floor(exact).astype(np.int64)
        order = (extra - exact).argsort(axis=1, kind="stable")  # largest remainder first
        left = missing - extra.sum(1)
        rank = order.argsort(axis=1)  # [E, W]
        extra += rank < left[:, None]
        counts = np.minimum(counts + extra, room)
    return counts
