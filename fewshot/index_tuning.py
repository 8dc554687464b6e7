"""Measure the recall of an index against the full comparison, and find the least effort that reaches the one wanted."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from fewshot.effort import ANY, UNSEEN, Tier
from fewshot.index_queries import KINDS, drawn
from fewshot.scan import Floats, Mask, Rows, Scores, inner_products, scan

if TYPE_CHECKING:
    from fewshot.index import Index
    from fewshot.index_file import Facts

TOLD = 300, 300, 100, 0  # of each kind, that the recall is measured with
LISTED = 500, 1000, 250, 250  # whose neighbours' lists are looked up
LESS_NEAR = 0.5, 0.25, 0.1, 0.02  # shares of the rows at which queries are parted by nearness
NO_LEAD = 0.01  # share of the rows that the nearest centre leads by too little
TAIL = 0.02  # share of the nearest rows, in the farthest lists, that tell how far others are
MANY = 1000  # the second number of neighbours that an effort is found for, unless there are too few rows
NOISE = 60  # queries whose errors are looked at
LEAST_ROWS = 20  # too few to measure anything
FARTHER = {10: 1, MANY: 4}  # so much oftener a class's pictures are missed than a picture's neighbours
EASIER = {10: 4, MANY: 2}  # so much oftener a new picture's nearest, or a class's, are missed than those that are tried
STEP, CAREFUL = 1.125, 8  # factor that raises the caution of `fewshot.depth`, and how far; heavy tails take 5
# the least of these that lets hardly a query look twice
SPREADS = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
AT_ONCE = 0.99  # share of queries that do not
ALIKE = 1e-6  # of the best score: rounding of equal scores


def tuned(index: Index, recall: float) -> Facts:
    """Return the facts of a new index with the efforts, the caution, the spread, and the recall@10 then measured.

    Rows and differences must both reach the recall wanted; of mixtures it is told as well. Changes the index's facts on
    the way.
    """
    live = np.flatnonzero(index.alive)
    if len(live) < LEAST_ROWS or index.scans:
        return index.facts
    told = drawn(index.rows, live, TOLD)
    near = _nearest(index, told.queries, told.own, 10)
    queries, own, kind, truth = (a[told.kind != KINDS.index("mixtures")] for a in (*told, near))
    index.facts = dataclasses.replace(index.facts, noise=index.noise(queries[:: max(len(queries) // NOISE, 1)]))
    _set_spread(index, queries)
    while not _reached(_recalls(index, queries, own, truth)[1], kind, recall) and index.facts.caution < CAREFUL:
        index.facts = dataclasses.replace(index.facts, caution=min(index.facts.caution * STEP, CAREFUL))
        _set_spread(index, queries)
    if index.most_effort > 1:  # until now everything was looked into
        if index.has_lists:
            tiers, lead = _lists(index, live, recall)
        else:
            tiers, lead = _nodes(index, queries, own, kind, recall), ANY
        index.facts = dataclasses.replace(index.facts, tiers=tiers, lead=lead)
        _set_spread(index, queries)
    recalls = _recalls(index, told.queries, told.own, near)[1]
    recall_of_kind = {KINDS[i]: round(float(recalls[told.kind == i].mean()), 5) for i in set(told.kind.tolist())}
    return dataclasses.replace(index.facts, recall=recall_of_kind, sample=len(recalls))


def _lists(index: Index, live: Rows, recall: float) -> tuple[tuple[Tier, ...], float]:
    """Find how many lists to look into: as many as hold all but a few of the nearest rows.

    Queries of all four kinds are parted where so many of the rows are less near, and where half of the others are.
    Returns also by how much the nearest centre leads the mean of all for nearly all rows.
    """
    queries, own, kind = drawn(index.rows, live, LISTED)
    near = index.near(queries)
    nearness = near.nearness()
    rows, left = np.sort(nearness[kind == 0]), np.ones(len(queries), bool)
    tiers: list[tuple[float, list[tuple[int, int]], Mask]] = []
    edges = [rows[int(share * len(rows))] for share in LESS_NEAR]
    far = np.sort(nearness[nearness < edges[-1]])
    for least in [*edges, *far[[len(far) // 2, 0]]] if len(far) else edges:
        part = left & (nearness >= least)
        if part.sum() >= LEAST_ROWS:
            tiers.append((float(least), [], part))
            left &= ~part
    for k in _counts(live):
        some = slice(None, None, max(k // 250, 1))
        asked, effort = np.ascontiguousarray(queries[some]), 1
        reach = index.reach(asked, _nearest(index, asked, own[some], k))  # [q, k]
        for _, efforts, part in tiers:
            here = reach[part[some]]
            effort = max(effort, _enough(here, UNSEEN * (1 - recall) / FARTHER[k]) if len(here) else index.most_effort)
            efforts.append((k, effort))
    lead = np.quantile(near.lead()[kind == 0], NO_LEAD)
    return tuple(Tier(least, tuple(efforts)) for least, efforts, _ in tiers), float(lead)


def _enough(reach: Rows, missed: float) -> int:
    """Return how many lists hold all but a share of the nearest rows, if each is in one of so many lists [q, k].

    The last few lists hold rows of a query or two, which chance drew. Numbers of lists are therefore taken to have the
    tail of a power law, whose exponent the rest tell (Hill, "A simple general approach to inference about the tail of
    a distribution", 1975).
    """
    lists = np.sort(reach, axis=None)
    last = lists[-1 - int(max(missed, TAIL) * len(lists)) :]
    slope = np.log(last / last[0]).mean()
    return int(np.ceil(last[0] * max(TAIL / missed, 1) ** slope))


def _nodes(index: Index, queries: Scores, own: Rows, kind: Rows, recall: float) -> tuple[Tier, ...]:
    """Double the effort of a graph until the recall wanted is reached, or all there is."""
    efforts: tuple[tuple[int, int], ...] = ()
    for k in _counts(np.flatnonzero(index.alive)):
        aim, truth, effort = 1 - (1 - recall) / EASIER[k], _nearest(index, queries, own, k), 1
        while True:
            tiers = (Tier(ANY, (*efforts, (k, effort))),)
            index.facts = dataclasses.replace(index.facts, tiers=tiers)
            if effort >= index.most_effort or _reached(_recalls(index, queries, own, truth)[0], kind, aim):
                break
            effort = min(2 * effort, index.most_effort)
        efforts = tiers[0].efforts
    return tiers


def _reached(recalls: Scores, kind: Rows, wanted: float) -> bool:
    """Tell whether queries of each kind reach a recall, to within a standard error: so few tell it no better.  [q]"""
    parts = [recalls[kind == i] for i in set(kind.tolist())]
    return all(part.mean() + part.std() / len(part) ** 0.5 >= wanted for part in parts)


def _counts(live: Rows) -> list[int]:
    """Return the numbers of neighbours that efforts are found for."""
    return [10, MANY] if len(live) >= 20 * MANY else [10]


def _nearest(index: Index, queries: Scores, own: Rows, k: int) -> Rows:
    """Find the true nearest rows of each query, without its own.  [q, D], [q] -> [q, k]"""
    return _without(scan(queries, index.rows, k + 1, None if index.alive.all() else index.alive)[1], own)


def recall_of(queries: Scores, rows: Floats, found: Rows, truth: Rows) -> Scores:
    """Share of the k found that score as much as the true k nearest, for each query.  [Q, k], [Q, k] -> [Q]

    Of rows that are alike any counts.
    """
    exact = inner_products(queries, rows, truth)  # [Q, k]
    least = exact.min(1) - ALIKE * np.abs(exact).max(1)  # [Q]
    share: Scores = (inner_products(queries, rows, found) >= least[:, None]).mean(1, dtype=np.float32)
    return share


def _set_spread(index: Index, queries: Scores) -> None:
    enough = bisect_left(SPREADS[:-1], True, key=lambda spread: index.sure(queries, 10, spread) >= AT_ONCE)
    index.facts = dataclasses.replace(index.facts, spread=SPREADS[enough])


def _recalls(index: Index, queries: Scores, own: Rows, truth: Rows) -> tuple[Scores, Scores]:
    """Return each query's recall [q] by candidates alone, and with those scanned for that they do not answer."""
    found, answered = index.approximate(queries, truth.shape[1] + 1)
    each = recall_of(queries, index.rows, _without(found, own)[:, : truth.shape[1]], truth)
    return each, np.where(answered, each, np.float32(1))


def _without(found: Rows, own: Rows) -> Rows:
    """Take each query's own row out.  [Q, k + 1], [Q] -> [Q, k]"""
    last = np.where(found == own[:, None], np.iinfo(np.int64).max, np.arange(found.shape[1]))  # own row goes to the end
    return np.take_along_axis(found, np.argsort(last, axis=1, kind="stable"), 1)[:, :-1]
