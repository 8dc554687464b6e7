"""Exact inner products with the rows of a store, through FAISS. No other file imports faiss."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]  # rows of a store: float32, or float16
Scores = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

BLOCK = 65536  # rows handled at a time, so that a memory-mapped array is never copied whole
FEW_QUERIES = 8
SORTED = 512  # so many scores are sorted whole sooner than in part
ROUNDING = 1e-5  # by which sums that are added up in another order may differ, for rows and queries of length 1
SINGLE, HALF = 1e-6, 3.2e-3  # by how much the square of a length may fall short of 1; of halves, times sqrt(dimensions)
DENSE, PASSED_OVER = 0.5, 16  # a larger share of rows, and no more queries: passing over rows is cheaper than copying


def scan(queries: Scores, rows: Floats, k: int, only: Mask | None = None) -> tuple[Scores, Rows]:
    """Compare every query with every row, or those of `only` [N].  [Q, D], [N, D] -> scores, rows [Q, k], best first

    Where there are fewer than k, scores are -inf and rows -1.
    """
    best = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
    if only is not None and (len(queries) > PASSED_OVER or only.mean() < DENSE):
        wanted = np.flatnonzero(only)
        for start in range(0, len(wanted), BLOCK):
            part = wanted[start : start + BLOCK]
            scores, places = _block(queries, as_float32(rows[part]), k, None)
            best = _merge(*best, scores, np.where(places >= 0, part[places], -1))
        return _scored(queries, rows, best[1])
    for start in range(0, len(rows), 8 * BLOCK):
        here = slice(start, start + 8 * BLOCK)
        scores, places = _block(queries, as_float32(rows[here]), k, None if only is None else only[here])
        best = _merge(*best, scores, np.where(places >= 0, places + start, -1))
    return _scored(queries, rows, best[1])


def scan_above(queries: Scores, rows: Floats, least: float, only: Mask | None = None) -> list[tuple[Scores, Rows]]:
    """Find every row, or row of `only` [N], that scores `least` or more.  [Q, D], [N, D] -> Q pairs, best first"""
    found: list[list[tuple[Scores, Rows]]] = [[(np.zeros(0, np.float32), np.zeros(0, np.int64))] for _ in queries]
    width, rounding = BLOCK // 8, ROUNDING * lengths(queries)[:, None]
    for start in range(0, len(rows) if len(queries) else 0, width):
        part = as_float32(rows[start : start + width])
        nearly = queries @ part.T >= least - rounding  # [Q, n]
        kept = nearly if only is None else nearly & only[start : start + width]
        for query, pair, keep in zip(queries, found, kept, strict=True):
            if keep.any():
                here = np.flatnonzero(keep)
                score = inner_products(query[None], part, here[None])[0]
                pair.append((score[score >= least], here[score >= least] + start))
    return [by_score(*(np.concatenate(part) for part in zip(*pair, strict=True))) for pair in found]


def of_equals(rows: Floats) -> float:
    """Return the score that a row of length 1 has with its like at least, rounded as its numbers are.  [N, D]"""
    return 1 - (HALF / rows.shape[1] ** 0.5 if rows.dtype == np.float16 else SINGLE)


def by_score(scores: Scores, ids: Rows) -> tuple[Scores, Rows]:
    """Sort one query's rows, best first.  [n], [n] -> the same"""
    order = np.argsort(-scores, kind="stable")
    return scores[order], ids[order]


def inner_products(queries: Scores, rows: Floats, which: Rows) -> Scores:
    """Score chosen rows for each query; -inf where `which` is -1.  [Q, D], [N, D], [Q, n] -> [Q, n]"""
    out = np.empty(which.shape, np.float32)
    if rows.dtype == np.float32 and rows.flags.c_contiguous:
        faiss, which = load_faiss(), np.ascontiguousarray(which)
        pointers = (faiss.swig_ptr(a) for a in (out, queries, rows, which))
        with few_threads(len(queries)):
            faiss.fvec_inner_products_by_idx(*pointers, queries.shape[1], *which.shape)
        return out
    for i, query in enumerate(queries):  # by the same function, so that a score is the same however it was come by
        out[i] = inner_products(query[None], as_float32(rows[which[i]]), np.arange(which.shape[1])[None])
    return np.where(which >= 0, out, -np.inf).astype(np.float32)


def products(queries: Scores, rows: Scores) -> Scores:
    """Score all of a few rows for each of a few queries.  [Q, D], [N, D], both contiguous -> [Q, N]"""
    faiss, out = load_faiss(), np.empty((len(queries), len(rows)), np.float32)
    for query, scores in zip(queries, out, strict=True):
        faiss.fvec_inner_products_ny(*map(faiss.swig_ptr, (scores, query, rows)), rows.shape[1], len(rows))
    return out


def lengths(queries: Scores) -> Scores:
    """Return the length of each query.  [Q, D] -> [Q]"""
    squares: Scores = np.einsum("qd,qd->q", queries, queries)  # for one query at a third of the time of linalg.norm
    return np.sqrt(squares)


def best_first(scores: Scores, count: int) -> NDArray[np.intp]:
    """Return where each row's largest scores are, the largest first.  [Q, n] -> [Q, count]"""
    if len(scores) == 1:  # each step less is felt by a lone query
        some = _some_first(-scores[0], count)
        return some[None]
    if scores.shape[1] <= max(SORTED, 4 * count):
        return np.argsort(-scores, axis=1)[:, :count]
    some = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    row = np.arange(len(scores))[:, None]
    return some[row, np.argsort(-scores[row, some], axis=1)]


def _some_first(worse: Scores, count: int) -> NDArray[np.intp]:
    """Return where the least of some numbers are, the least first.  [n] -> [count]"""
    if len(worse) <= max(SORTED, 4 * count):
        return worse.argsort()[:count]
    some = worse.argpartition(count - 1)[:count]
    return some[worse[some].argsort()]


def as_float32(rows: Floats) -> Scores:
    """Return contiguous float32 rows, the same memory where they are that already."""
    return np.ascontiguousarray(rows, np.float32)


class few_threads:  # noqa: N801 - read as a word of the language
    """Let FAISS use one thread for few queries: more only wait for each other, for long on a busy machine."""

    def __init__(self, queries: int) -> None:
        self._faiss = load_faiss()
        self._before = self._faiss.omp_get_max_threads() if queries < FEW_QUERIES else 1

    def __enter__(self) -> None:
        """Use one."""
        if self._before != 1:
            self._faiss.omp_set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        """Use as many as before."""
        if self._before != 1:
            self._faiss.omp_set_num_threads(self._before)


@cache
def load_faiss() -> ModuleType:
    """Import faiss, after torch."""
    import faiss
    import torch  # noqa: F401 - faiss must come second: with both loaded the other way round, OpenMP may crash

    module: ModuleType = faiss
    return module


def _block(queries: Scores, rows: Scores, k: int, only: Mask | None) -> tuple[Scores, Rows]:
    faiss = load_faiss()
    k = min(k, len(rows))
    scores, places = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    x, y, s, p = (faiss.swig_ptr(a) for a in (queries, rows, scores, places))
    sel = None if only is None else selector(only)
    faiss.knn_inner_product(x, y, rows.shape[1], len(queries), len(rows), k, s, p, sel)
    return np.where(places >= 0, scores, -np.inf).astype(np.float32), places


def _scored(queries: Scores, rows: Floats, ids: Rows) -> tuple[Scores, Rows]:
    """Put rows found by matrix products in the order of scores as `inner_products` has them.  [Q, k] -> [Q, k] each"""
    scores = inner_products(queries, rows, ids)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)


def _merge(scores: Scores, rows: Rows, more_scores: Scores, more_rows: Rows) -> tuple[Scores, Rows]:
    """Keep the k best of two sorted lists for each query.  [Q, k], [Q, m] -> [Q, k]"""
    both, which = np.concatenate([scores, more_scores], 1), np.concatenate([rows, more_rows], 1)
    order = np.argsort(-both, axis=1, kind="stable")[:, : scores.shape[1]]
    return np.take_along_axis(both, order, 1), np.take_along_axis(which, order, 1)


def selector(only: Mask) -> Any:
    """Return what makes FAISS leave rows out."""
    return load_faiss().IDSelectorBitmap(np.packbits(only, bitorder="little"))
