"""Queries that an index is measured with, drawn from its rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fewshot.scan import Floats, Rows, Scores, as_float32

KINDS = "pictures", "mixtures", "differences", "directions"  # of queries
MIXED = 0.3, 0.5  # share of the second row in a mixture
SEED = 0


class Asked(NamedTuple):
    """Queries of several kinds, in turn: rows, mixtures of two, differences of two, and any directions.

    A row, and a mixture of it with less of another, does not count as its own neighbour. The neighbours of mixtures lie
    about as far off as those of new pictures; differences lie as far off the rows as the weights of a class do.
    """

    queries: Scores  # [q, D]
    own: Rows  # [q]; -1 where every row counts
    kind: Rows  # [q] of KINDS


def drawn(rows: Floats, live: Rows, counts: tuple[int, int, int, int]) -> Asked:
    """Draw so many queries of each kind, or as many as there are rows [N, D] that are alive [n]."""
    random = np.random.default_rng(SEED)
    several = [min(count, len(live)) for count in counts]
    own = random.choice(live, several[0], replace=False)
    found = as_float32(rows[own])

    def two(count: int) -> tuple[Rows, Rows]:
        one = random.integers(len(own), size=count)
        return one, (one + random.integers(1, len(own), size=count)) % len(own)

    (one, other), (first, second) = two(several[1]), two(several[2])
    share = random.uniform(*MIXED, (several[1], 1)).astype(np.float32)
    mixtures = found[one] * (1 - share) + found[other] * share
    directions = random.standard_normal((several[3], rows.shape[1])).astype(np.float32)
    queries = np.concatenate([found, mixtures, found[first] - found[second], directions])
    every = np.full(several[2] + several[3], -1)
    return Asked(queries, np.concatenate([own, own[one], every]), np.repeat(np.arange(len(several)), several))
