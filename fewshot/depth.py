"""How deep to look: candidates of approximate codes are re-ranked exactly until hardly any row below them can matter.

A code's score a(x) differs from the exact one s(x). Of the candidates re-ranked so far both are known, and since
candidates were chosen by a, what they tell of s given a is not biased: s is a + m give or take d, the mean and the
deviation of s - a over the worse half of them. As these may be alike, and err alike, the errors of many rows, measured
when the index was built, count half where they are larger. How densely rows lie below the n-th candidate, at a(n), the
candidates tell as well: their number grows by exp(l t) as a falls by t. So with u = (s(k-th best) - a(n) - m) / d, the
density p and the distribution P of a normal variable, and Mills's ratio R(u) = P(-u) / p(u), the n best candidates miss

    integral of n l exp(l t) P(-(u + t / d)) dt  =  n p(u) (R(u - l d) - R(u))

rows, and never more than N - n rows of the chance P(-u) each. When u is so large that this is little enough for the
recall wanted, the search is over; otherwise n grows to where it seems to be. A query unlike the stored rows, a text or
a class's weights or any direction at all, so gets more candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.scan import Floats, Mask, Rows, Scores, best_first, by_score, inner_products, lengths

Ask = Callable[[Scores, int], tuple[Scores, Rows]]  # queries [Q, D], depth -> approximate scores, rows [Q, depth]

DEEPER = 4  # so many times as many candidates are asked for when there were too few
BEGIN = 64  # spread of those that are re-ranked at first
MORE = (2.2, 1.7, 1.3)  # and so many times as many next: what is known of few candidates tells no further
TOGETHER = 2**22  # candidates re-ranked at once, which bounds memory
ALIKE = 1e-6  # of the k-th best score: what is better by less is as good
CAUTION = 1.1  # how many times as large as they look errors are taken to be
LEAST = 1e-6  # share of misses that is aimed at, at least
SMALLEST = np.finfo(np.float32).tiny
QUIET = np.errstate(invalid="ignore", divide="ignore", over="ignore")  # -inf where candidates ran out


class Care(NamedTuple):
    """How sure an answer must be."""

    misses: float  # share of the rows wanted that may be missed, 0 to 1
    caution: float = CAUTION  # how many times as large as they look errors are taken to be
    noise: float = 0.0  # deviation of the errors of queries of length 1, over many rows


def first_depth(k: int, spread: int) -> int:
    """Return how many candidates to ask for first for the k nearest; `spread` is measured when an index is built."""
    return k + max(32, int(spread * k**0.5))


@QUIET
def nearest(
    ask: Ask, rows: Floats, queries: Scores, k: int, *, care: Care, depth: int, most: int, only: Mask | None = None
) -> tuple[Scores, Rows, NDArray[np.bool_]]:
    """Find the k nearest rows of each query, and tell for which queries `most` candidates were enough to be sure.

    [Q, D] -> scores [Q, k], rows [Q, k], sure [Q]. Only rows of `only` [N] count, if it is given.
    """
    shape, sure = (len(queries), k), np.zeros(len(queries), bool)
    if depth > most:
        return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64), sure
    scores, found = np.empty(shape, np.float32), np.empty(shape, np.int64)
    begin, todo = first_depth(k, BEGIN), np.arange(len(queries))
    while len(todo) and depth <= most:
        step = max(TOGETHER // depth, 1)
        for start in range(0, len(todo), step):
            part = todo[start : start + step] if len(todo) < len(queries) else slice(start, start + step)
            candidates = ask(queries[part], depth)  # [q, depth] each
            scores[part], found[part], enough = _reranked(rows, queries[part], *candidates, k, begin, care, only)
            sure[part] = enough | _all_met(candidates[1], depth)
        begin, depth, todo = depth, depth * DEEPER, todo[~sure[todo]]
    found[~np.isfinite(scores)] = -1
    return scores, found, sure


def _reranked(
    rows: Floats, queries: Scores, approximate: Scores, ids: Rows, k: int, begin: int, care: Care, only: Mask | None
) -> tuple[Scores, Rows, NDArray[np.bool_]]:
    """Take the k nearest from as few candidates as will do, or from all.  [q, depth] -> [q, k], [q, k], sure [q]"""
    count, depth = ids.shape
    scores, found, sure = np.empty((count, k), np.float32), np.empty((count, k), np.int64), np.empty(count, bool)
    exact, allowed = np.empty((count, depth), np.float32), k * max(care.misses, LEAST)
    noise = care.noise * lengths(queries)
    todo: list[tuple[slice | Rows, int, int]] = [(slice(None), 0, min(begin, depth))]
    while todo:
        some, done, n = todo.pop()
        exact[some, done:n] = inner_products(queries[some], rows, ids[some, done:n])
        known, which, guessed = exact[some, :n], ids[some, :n], approximate[some]
        scores[some], found[some] = _best(known if only is None else np.where(only[which], known, -np.inf), which, k)
        last = scores[some, -1]
        worst = last + ALIKE * np.abs(last)
        error = errors(guessed, known, noise[some], care.caution)
        sure[some] = enough = worst >= ceiling(guessed, n, error, allowed, len(rows))
        if n < depth and not enough.all():
            steps = [min(int(n * more), depth) for more in MORE]
            needed = np.full(len(worst), steps[0])
            for step in steps[1:]:
                needed[worst >= ceiling(guessed, step, error, allowed, len(rows))] = step
            needed[enough] = n
            which_of = np.arange(count)[some]
            todo += [(which_of[needed == step], n, step) for step in set(steps) if (needed == step).any()]
    return scores, found, sure


@QUIET
def above(
    ask: Ask,
    rows: Floats,
    queries: Scores,
    least: float,
    *,
    care: Care,
    depth: int,
    most: int,
    count: int,
    only: Mask | None = None,
) -> tuple[list[tuple[Scores, Rows]], NDArray[np.bool_]]:
    """Find all rows that score `least` or more, best first, and tell for which queries `most` candidates were enough.

    [Q, D] -> Q pairs of scores and rows, sure [Q]. Only the `count` rows of `only` [N] count, if it is given.
    """
    found: list[tuple[Scores, Rows]] = [(np.zeros(0, np.float32), np.zeros(0, np.int64))] * len(queries)
    sure = np.zeros(len(queries), bool)
    while not sure.all() and depth <= most:
        todo = np.flatnonzero(~sure)
        step = max(TOGETHER // depth, 1)
        for part in (todo[start : start + step] for start in range(0, len(todo), step)):
            approximate, ids = ask(queries[part], depth)  # [q, depth]
            exact = inner_products(queries[part], rows, ids)  # [q, depth]
            kept = (exact >= least) & (ids >= 0)
            if only is not None:
                kept &= only[ids]
            for i, query in enumerate(part):
                found[query] = by_score(exact[i, kept[i]], ids[i, kept[i]])
            noise, n = care.noise * lengths(queries[part]), ids.shape[1]
            error = errors(approximate, exact, noise, care.caution)
            few = ceiling(approximate, n, error, max(care.misses, LEAST), len(rows)) < least
            # nothing at all is found for a query of zeros, and FAISS leaves out rows whose coarse score is the least
            sure[part] = (few | ((ids >= 0).sum(1) >= count)) & (ids[:, 0] >= 0)
        depth *= DEEPER
    return found, sure


def _all_met(ids: Rows, depth: int) -> NDArray[np.bool_]:
    """Tell for which queries there were no further candidates.  [Q, n] -> [Q]"""
    over: NDArray[np.bool_] = (ids[:, -1] < 0) | (ids.shape[1] < depth)
    return over


def errors(
    approximate: Scores, exact: Scores, noise: float | Scores = 0.0, caution: float = CAUTION
) -> tuple[Scores, Scores]:
    """Return mean and deviation of s - a over the worse half of the n candidates whose exact scores are known.

    [Q, n or more], [Q, n], deviation over many rows [Q] -> [Q], [Q]. Where `noise` is larger, the mean of both
    variances counts. The deviation is taken to be `caution` times as large as it looks.
    """
    n = exact.shape[1]
    half = n // 2
    error = exact[:, half:] - approximate[:, half:n]
    mean = np.add.reduce(error, 1) / (n - half)
    error -= mean[:, None]
    variance = np.einsum("qn,qn->q", error, error) / (n - half)
    variance = np.maximum(variance, (variance + noise * noise) / 2)
    return mean, caution * np.sqrt(variance) + SMALLEST


def ceiling(
    approximate: Scores, n: int, error: tuple[Scores, Scores], allowed: float, rows: int
) -> NDArray[np.floating]:
    """Return the score above which no more rows are to be expected beyond n candidates than are allowed.

    [Q, n or more] -> [Q]; `error` is what `errors` returned, `allowed` a number of rows, of so many in all.
    """
    mean, deviation = error
    last = approximate[:, n - 1]
    fall = (approximate[:, max(n // 2, 1) - 1] - last) / deviation
    margin = np.interp(math.log(n / max(n // 2, 1)) / fall, *margins(n, allowed, rows))
    bound: NDArray[np.floating] = last + mean + margin * deviation
    return bound


@lru_cache(256)
def margins(n: int, allowed: float, rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return densities l d, rising, and for each the least u at which n candidates miss no more rows than allowed."""
    density = np.linspace(0, 10, 200)
    low, high = np.zeros_like(density), np.full_like(density, 40)
    while (high - low).max() > 1e-3:
        u = (low + high) / 2
        missed = _normal(u) * np.minimum(n * (_mills(u - density) - _mills(u)), max(rows - n, 0) * _mills(u))
        low, high = np.where(missed > allowed, u, low), np.where(missed > allowed, high, u)
    return density, high


def _normal(x: NDArray[np.float64]) -> NDArray[np.float64]:
    density: NDArray[np.float64] = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    return density


def _mills(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the chance that a normal variable is above x, over its density there."""
    ratio: NDArray[np.float64] = np.sqrt(np.pi / 2) * torch.special.erfcx(torch.from_numpy(x / np.sqrt(2))).numpy()
    return ratio


def _best(scores: Scores, ids: Rows, k: int) -> tuple[Scores, Rows]:
    """Sort the k best of each query.  [Q, n] -> [Q, k], filled with -inf and -1 where n < k"""
    short = k - scores.shape[1]
    if short > 0:
        scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
        ids = np.pad(ids, ((0, 0), (0, short)), constant_values=-1)
    chosen = best_first(scores, k)
    query: int | Rows = 0 if len(scores) == 1 else np.arange(len(scores))[:, None]
    return scores[query, chosen], ids[query, chosen]
