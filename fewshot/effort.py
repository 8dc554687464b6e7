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
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ANY = -math.inf  # nearness that every query has
MANY = 8  # an eighth of the lists are so many that they are put in order only for the queries that need them
UNSEEN = 0.5  # share of what may be missed that may be missed for lists or nodes not looked into; the rest is for codes


class Tier(NamedTuple):
    """What was measured for queries of some nearness."""

    least: float  # nearness that they have at least
    efforts: tuple[tuple[int, int], ...]  # (k, lists or nodes to look into for the k nearest), k rising


class Look(NamedTuple):
    """What is done for queries of some nearness, -1 to 1 for rows of length 1."""

    least: float
    effort: int


@dataclass(frozen=True)
class Looks:
    """What is done for queries of any nearness: the nearest queries' first, and last everything there is."""

    steps: tuple[Look, ...]
    lead: float = ANY  # queries whose nearest centre leads the mean of all by less are looked for everywhere

    def of(self, nearness: NDArray[np.floating]) -> list[int]:
        """Return which step queries are due.  [Q] -> Q numbers"""
        return [bisect_left(self._leasts, -near) for near in nearness.tolist()]

    @cached_property
    def efforts(self) -> NDArray[np.int64]:
        """Efforts of the steps."""
        return np.array([step.effort for step in self.steps])

    @cached_property
    def usual(self) -> int:
        """The most that is often asked for; more is so much that it is found out for those queries only."""
        some = self.efforts[self.efforts * MANY <= self.efforts[-1]]
        return int(max(self.efforts[0], *some, 1))

    @cached_property
    def _leasts(self) -> list[float]:
        return [-step.least for step in self.steps]


@lru_cache(64)
def looks(tiers: tuple[Tier, ...], k: int, most: int, lead: float = ANY, share: float = 1.0) -> Looks:
    """Return the efforts for the k nearest among a share of the rows, each up to `most`."""
    found = []
    for least, efforts in tiers:
        effort = int(_between(efforts, k) / share)
        if effort >= most:
            break
        found.append(Look(least, effort))
    return Looks((*found, Look(ANY, most)), lead)


@lru_cache(64)
def everywhere(most: int) -> Looks:
    """Return the same effort for all queries."""
    return Looks((Look(ANY, most),))


def _between(efforts: tuple[tuple[int, int], ...], k: int) -> int:
    """Return the effort for the k nearest, between and beyond those that were measured."""
    measured, effort = zip(*efforts, strict=True)
    between = np.exp2(np.interp(np.log2(k), np.log2(measured), np.log2(effort)))
    return int(np.ceil(np.round(between * max(k / measured[-1], 1), 6)))
