"""Measure the recall of an index against the full comparison, and find the least effort that reaches the one wanted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from fewshot.scan import Floats, Rows, Scores, as_float32, inner_products, scan

if TYPE_CHECKING:
    from fewshot.index import Index
    from fewshot.index_file import Facts

QUERIES = 200  # stored rows that are looked up
DIFFERENCES = 100  # of two stored rows, which lie as far off them as the weights of a class do
SEED = 0
MANY = 1000  # the second number of neighbours that an effort is found for, unless there are too few rows
LEAST_ROWS = 20  # too few to measure anything
EASIER = 4  # so much oftener a new picture's ten nearest are missed than a stored one's: 0.066 to 0.014 at 1 M rows
STEP, CAREFUL = 1.125, 24  # factor that raises the margin of `fewshot.depth`, and how far; heavy tails take 18
SPREADS = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # the least that lets hardly a query look twice
AT_ONCE = 0.99
ALIKE = 1e-6  # of the best score: rounding of equal scores


def tuned(index: Index, recall: float) -> Facts:
    """Return the facts of a new index with the margin, the efforts, the spread, and the recall@10 then measured.

    Queries are rows of the store itself, which do not count as their own neighbours, and differences of two rows.
    The recall told is the mean over all of them; both kinds must reach the recall wanted. Sets the index's margin
    and spread on the way.
    """
    live = np.flatnonzero(index.alive)
    if len(live) < LEAST_ROWS:
        return index.facts
    queries, own = _queries(index, live)
    graded = index.most_effort > 1
    counts = [10, MANY] if graded and len(live) >= 20 * MANY else [10]
    truth = _without(scan(queries, index.rows, max(counts) + 1, index.alive)[1], own)  # [q, most]
    if not graded:
        index.facts = dataclasses.replace(index.facts, spread=_spread(index, queries, 1))
    efforts, measured = [], 0.0
    for k in counts:
        aim = 1 - (1 - recall) / EASIER if k == 10 and graded else recall
        effort, reached = _least(index, queries, own, truth[:, :k], aim)
        efforts.append((k, effort))
        measured = measured or reached
    spread = _spread(index, queries, efforts[0][1])
    return dataclasses.replace(
        index.facts,
        spread=spread,
        efforts=tuple(efforts) if graded else (),
        recall=round(measured, 5),
        sample=len(queries),
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


def _spread(index: Index, queries: Scores, effort: int) -> int:
    return next((s for s in SPREADS if index.sure(queries, 10, effort, s) >= AT_ONCE), SPREADS[-1])


def _least(index: Index, queries: Scores, own: Rows, truth: Rows, wanted: float) -> tuple[int, float]:
    """Double the effort until both kinds of query reach the recall wanted; return it with the recall of all.

    Where all effort does not suffice, the index's margin is raised. Queries that are then scanned for miss nothing, and
    the recall returned is that of a search.
    """
    effort, k = 1, truth.shape[1]
    while True:
        found, answered = index.approximate(queries, k + 1, effort)
        each = recall_of(queries, index.rows, _without(found, own)[:, :k], truth)  # [q]
        searched = np.where(answered, each, 1)
        reached = searched if effort >= index.most_effort else each
        enough = min(reached[own >= 0].mean(), reached[own < 0].mean()) >= wanted
        if enough or (effort >= index.most_effort and index.facts.z >= CAREFUL):
            return effort, float(searched.mean())
        if effort < index.most_effort:
            effort = min(2 * effort, index.most_effort)
        else:
            index.facts = dataclasses.replace(index.facts, z=min(index.facts.z * STEP, CAREFUL))


def _without(found: Rows, own: Rows) -> Rows:
    """Take each query's own row out.  [Q, k + 1], [Q] -> [Q, k]"""
    last = np.where(found == own[:, None], np.iinfo(np.int64).max, np.arange(found.shape[1]))  # own row goes to the end
    return np.take_along_axis(found, np.argsort(last, axis=1, kind="stable"), 1)[:, :-1]
