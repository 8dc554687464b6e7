"""How much of an index to look into: how many of its lists, or nodes of its graph.

A query like the stored rows has its neighbours in a few lists, those whose centres it is nearest to; one unlike them, a
text, a class's weights or any direction at all, may have them in any. What tells the two apart is the query's nearness:
its inner product with the nearest centre, over its length. Efforts are measured for tiers of nearness when an index is
built, and a query less near than all that were measured is looked for everywhere.

Where all rows have a common direction, a query along it, the mean of all rows say, is near to every centre. Therefore a
query whose nearest centre leads the mean of all centres by less than that of nearly all rows is looked for everywhere.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

ANY = -math.inf  # nearness that every query has
UNSEEN = 0.5  # share of what may be missed that may be missed for lists or nodes not looked into; the rest is for codes


class Tier(NamedTuple):
    """What was measured for queries of some nearness."""

    least: float  # nearness that they have at least
    efforts: tuple[tuple[int, int], ...]  # (k, lists or nodes to look into for the k nearest), k rising


class Look(NamedTuple):
    """What is done for queries of some nearness, -1 to 1 for rows of length 1."""

    least: float
    effort: int


@lru_cache(64)
def looks(tiers: tuple[Tier, ...], k: int, most: int, share: float = 1.0) -> tuple[Look, ...]:
    """Return the efforts for the k nearest among a share of the rows, the nearest queries' first, up to `most`."""
    found = []
    for least, efforts in tiers:
        effort = int(_between(efforts, k) / share)
        if effort >= most:
            break
        found.append(Look(least, effort))
    return (*found, Look(ANY, most))


def _between(efforts: tuple[tuple[int, int], ...], k: int) -> int:
    """Return the effort for the k nearest, between and beyond those that were measured."""
    measured, effort = zip(*efforts, strict=True)
    between = np.exp2(np.interp(np.log2(k), np.log2(measured), np.log2(effort)))
    return int(np.ceil(np.round(between * max(k / measured[-1], 1), 6)))
