"""Measure the recall of an index against the full comparison, and find the least effort that reaches the one wanted."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from fewshot.scan import Floats, Rows, Scores, as_float32, inner_products, scan

if TYPE_CHECKING:
    from fewshot.index import Index
    from fewshot.index_file import Facts

QUERIES = 300  # stored rows that are looked up
DIFFERENCES = 100  # of two stored rows, which lie as far off them as the weights of a class do
SEED = 0
MANY = 1000  # the second number of neighbours that an effort is found for, unless there are too few rows
NOISE = 60  # queries whose errors are looked at
LEAST_ROWS = 20  # too few to measure anything
EASIER = {10: 4, MANY: 2}  # so much oftener a new picture's nearest, or a class's, are missed than those that are tried
STEP, CAREFUL = 1.125, 8  # factor that raises the caution of `fewshot.depth`, and how far; heavy tails take 5
SPREADS = (
    4,
    8,
    16,
    24,
    32,
    48,
    64,
    96,
    128,
    192,
    256,
    384,
    512,
    768,
    1024,
)  # the least that lets hardly a query look twice
AT_ONCE = 0.97
ALIKE = 1e-6  # of the best score: rounding of equal scores


def tuned(index: Index, recall: float) -> Facts:
    """Return the facts of a new index with the caution, the efforts, the spread, and the recall@10 then measured.

    Queries are rows of the store itself, which do not count as their own neighbours, and differences of two rows.
    The recall told is the mean over all of them; both kinds must reach the recall wanted. Changes the index's facts on
    the way.
    """
    live = np.flatnonzero(index.alive)
    graded = index.most_effort > 1
    if len(live) < LEAST_ROWS:
        return dataclasses.replace(index.facts, efforts=((1, index.most_effort),) if graded else ())
    queries, own = _queries(index, live)
    counts = [10, MANY] if graded and len(live) >= 20 * MANY else [10]
    truth = _without(scan(queries, index.rows, max(counts) + 1, index.alive)[1], own)  # [q, most]
    index.facts = dataclasses.replace(index.facts, noise=index.noise(queries[:: max(len(queries) // NOISE, 1)]))
    _set_spread(index, queries, 1)
    efforts = []
    for k in counts:
        aim = 1 - (1 - recall) / EASIER[k] if graded else recall
        efforts.append((k, _least(index, queries, own, truth[:, :k], aim)))
    _set_spread(index, queries, efforts[0][1])
    told = _recalls(index, queries, own, truth[:, :10], efforts[0][1])[1].mean()
    return dataclasses.replace(
        index.facts, efforts=tuple(efforts) if graded else (), recall=round(float(told), 5), sample=len(queries)
    )


def effort_for(efforts: tuple[tuple[int, int], ...], k: int) -> int:
    """Return the effort for the k nearest, between and beyond those that were measured."""
    if not efforts:
        return 1
    measured, effort = zip(*efforts, strict=True)
    between = np.exp2(np.interp(np.log2(k), np.log2(measured), np.log2(effort)))
    return int(np.ceil(between * max(k / measured[-1], 1)))


def recall_of(queries: Scores, rows: Floats, found: Rows, truth: Rows) -> Scores:
    """Share of the k found that score as much as the true k nearest, for each query.  [Q, k], [Q, k] -> [Q]

    Of rows that are alike any counts.
    """
    exact = inner_products(queries, rows, truth)  # [Q, k]
    least = exact.min(1) - ALIKE * np.abs(exact).max(1)  # [Q]
    share: Scores = (inner_products(queries, rows, found) >= least[:, None]).mean(1, dtype=np.float32)
    return share


def _queries(index: Index, live: Rows) -> tuple[Scores, Rows]:
    """Draw queries [q, D], and tell which row each one is [q], -1 for differences."""
    random = np.random.default_rng(SEED)
    own = np.sort(random.choice(live, min(QUERIES, len(live)), replace=False))
    rows = as_float32(index.rows[own])
    first = random.integers(len(own), size=min(DIFFERENCES, len(own)))
    second = (first + random.integers(1, len(own), size=len(first))) % len(own)  # another one
    return np.concatenate([rows, rows[first] - rows[second]]), np.concatenate([own, np.full(len(first), -1)])


def _set_spread(index: Index, queries: Scores, effort: int) -> None:
    enough = bisect_left(SPREADS[:-1], True, key=lambda spread: index.sure(queries, 10, effort, spread) >= AT_ONCE)
    index.facts = dataclasses.replace(index.facts, spread=SPREADS[enough])


def _least(index: Index, queries: Scores, own: Rows, truth: Rows, wanted: float) -> int:
    """Double the effort until both kinds of query reach the recall wanted, and return it.

    Where all effort does not suffice, the index's caution is raised, unless chance may be the reason: so few queries
    tell a recall to within a standard error. Queries that are then scanned for miss nothing.
    """
    effort = 1
    while True:
        each, searched = _recalls(index, queries, own, truth, effort)
        most = effort >= index.most_effort
        kinds = [(searched if most else each)[which] for which in (own >= 0, own < 0)]
        if all(kind.mean() + most * kind.std() / len(kind) ** 0.5 >= wanted for kind in kinds):
            return effort
        if not most:
            effort = min(2 * effort, index.most_effort)
        elif index.facts.caution < CAREFUL:
            index.facts = dataclasses.replace(index.facts, caution=min(index.facts.caution * STEP, CAREFUL))
            _set_spread(index, queries, effort)
        else:
            return effort


def _recalls(index: Index, queries: Scores, own: Rows, truth: Rows, effort: int) -> tuple[Scores, Scores]:
    """Return each query's recall [q] by candidates alone, and with those scanned for that they do not answer."""
    found, answered = index.approximate(queries, truth.shape[1] + 1, effort)
    each = recall_of(queries, index.rows, _without(found, own)[:, : truth.shape[1]], truth)
    return each, np.where(answered, each, np.float32(1))


def _without(found: Rows, own: Rows) -> Rows:
    """Take each query's own row out.  [Q, k + 1], [Q] -> [Q, k]"""
    last = np.where(found == own[:, None], np.iinfo(np.int64).max, np.arange(found.shape[1]))  # own row goes to the end
    return np.take_along_axis(found, np.argsort(last, axis=1, kind="stable"), 1)[:, :-1]
