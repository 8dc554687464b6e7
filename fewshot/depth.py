"""How deep to look: candidates of approximate codes are re-ranked exactly until nothing below them can matter.

A code's score a(x) differs from the exact one s(x). Of the candidates met so far both are known, and since candidates
were chosen by a, what they tell of s given a is not biased. So with the mean m and deviation d of s - a over the worse
half of the candidates, a row that was not met, whose a is at most that of the last candidate, has

    s  <=  a(last) + m + z d    but for a chance that z makes small.

When the k-th best exact score is above that, or a threshold is, the search is over; otherwise it goes four times as
deep. A query unlike the stored rows, a text or a class's weights, so gets more candidates; one in a direction of no
likeness to any row at all can still end too soon, since its errors are none that z was found with.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fewshot.scan import Floats, Mask, Rows, Scores, by_score, inner_products

Ask = Callable[[Scores, int], tuple[Scores, Rows]]  # queries [Q, D], depth -> approximate scores, rows [Q, depth]

DEEPER = 4
TOGETHER = 2**22  # candidates re-ranked at once, which bounds memory


def margin(recall: float) -> float:
    """Return the z that reaches a recall@10 with codes of 4 dimensions by 4 bits.

    It was measured on embeddings of pictures, texts and classes' weights.
    """
    return float(np.interp(-np.log10(max(1 - recall, 1e-6)), [1, 1.3, 2, 3, 4, 6], [1.5, 2, 2.75, 4.25, 5, 6]))


def first_depth(k: int, spread: int) -> int:
    """Return how many candidates to begin with for the k nearest; `spread` is measured when an index is built."""
    return k + max(32, int(spread * k**0.5))


def nearest(
    ask: Ask, rows: Floats, queries: Scores, k: int, *, z: float, depth: int, most: int, only: Mask | None = None
) -> tuple[Scores, Rows, NDArray[np.bool_]]:
    """Find the k nearest rows of each query, and tell for which queries `most` candidates were enough to be sure.

    [Q, D] -> scores [Q, k], rows [Q, k], sure [Q]. Only rows of `only` [N] count, if it is given.
    """
    scores, found = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
    sure = np.zeros(len(queries), bool)
    while not sure.all() and depth <= most:
        todo = np.flatnonzero(~sure)
        step = max(TOGETHER // depth, 1)
        for part in (todo[start : start + step] for start in range(0, len(todo), step)):
            approximate, ids = ask(queries[part], depth)  # [q, depth]
            exact = inner_products(queries[part], rows, ids)  # [q, depth]
            kept = exact if only is None else np.where(only[ids], exact, -np.inf)
            scores[part], found[part] = _best(kept, ids, k)
            sure[part] = (scores[part, -1] >= ceiling(approximate, exact, z)) | _all_met(ids, depth)
        depth *= DEEPER
    return scores, np.where(np.isfinite(scores), found, -1), sure


def above(
    ask: Ask, rows: Floats, queries: Scores, least: float, *, z: float, depth: int, most: int, only: Mask | None = None
) -> tuple[list[tuple[Scores, Rows]], NDArray[np.bool_]]:
    """Find all rows that score `least` or more, best first, and tell for which queries `most` candidates were enough.

    [Q, D] -> Q pairs of scores and rows, sure [Q]. Only rows of `only` [N] count, if it is given.
    """
    found: list[tuple[Scores, Rows]] = [(np.zeros(0, np.float32), np.zeros(0, np.int64))] * len(queries)
    sure = np.zeros(len(queries), bool)
    while not sure.all() and depth <= most:
        todo = np.flatnonzero(~sure)
        step = max(TOGETHER // depth, 1)
        for part in (todo[start : start + step] for start in range(0, len(todo), step)):
            approximate, ids = ask(queries[part], depth)  # [q, depth]
            exact = inner_products(queries[part], rows, ids)  # [q, depth]
            kept = (exact >= least) if only is None else (exact >= least) & only[ids]
            for i, query in enumerate(part):
                found[query] = by_score(exact[i, kept[i]], ids[i, kept[i]])
            sure[part] = (ceiling(approximate, exact, z) < least) | _all_met(ids, depth)
        depth *= DEEPER
    return found, sure


def _all_met(ids: Rows, depth: int) -> NDArray[np.bool_]:
    """Tell for which queries there were no further candidates.  [Q, n] -> [Q]"""
    over: NDArray[np.bool_] = (ids[:, -1] < 0) | (ids.shape[1] < depth)
    return over


def ceiling(approximate: Scores, exact: Scores, z: float) -> Scores:
    """Return what a row that is not among the candidates can score.  [Q, n], [Q, n] -> [Q]"""
    half = approximate.shape[1] // 2
    with np.errstate(invalid="ignore"):  # -inf - -inf where candidates ran out, which the caller looks at himself
        error = exact[:, half:] - approximate[:, half:]
        mean = error.mean(1)
        error -= mean[:, None]
        bound: Scores = approximate[:, -1] + mean + z * np.sqrt(np.einsum("qn,qn->q", error, error) / error.shape[1])
    return bound


def _best(scores: Scores, ids: Rows, k: int) -> tuple[Scores, Rows]:
    """Sort the k best of each query.  [Q, n] -> [Q, k], filled with -inf and -1 where n < k"""
    query, short = np.arange(len(scores))[:, None], k - scores.shape[1]
    if short > 0:
        scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
        ids = np.pad(ids, ((0, 0), (0, short)), constant_values=-1)
    some = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    chosen = some[query, np.argsort(-scores[query, some], axis=1)]
    return scores[query, chosen], ids[query, chosen]
