"""The centres of an index's lists: which of them are nearest to queries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fewshot.arrays import TINY
from fewshot.effort import ANY
from fewshot.scan import FEW_QUERIES, Rows, Scores, best_first, lengths, load_faiss, products

SOME = 4096  # centres added up at a time, which need not lie flat
Found = tuple[Scores, Rows]  # inner products and numbers of centres, best first; -1 where a graph leads to no more


class Centres:
    """The centres of a trained quantizer, numbered as its lists."""

    def __init__(self, quantizer: Any) -> None:
        faiss = load_faiss()
        self._quantizer = faiss.downcast_index(quantizer)
        self._rows: Scores | None = None  # [lists, d], FAISS's own memory
        if isinstance(self._quantizer, faiss.IndexFlatIP):
            shape = self._quantizer.ntotal, self._quantizer.d
            self._rows = faiss.rev_swig_ptr(self._quantizer.get_xb(), shape[0] * shape[1]).reshape(shape)
        self._mean = self._middle()

    def near(self, queries: Scores, least: int = 1) -> Near:
        """Compare queries [Q, d] with the centres, of which the best `least` at least will be asked for.

        Few queries are compared with all centres, if these lie flat: FAISS takes twice as long to keep the best. Of
        many it finds the best sooner.
        """
        if self._rows is not None and len(queries) < FEW_QUERIES:
            return NearAll(queries, self._mean, products(queries, self._rows))
        return Near(queries, self._mean, self._quantizer, self._quantizer.search(queries, least))

    def _middle(self) -> Scores:
        """Return the mean of all centres.  -> [d]"""
        count, total = self._quantizer.ntotal, np.zeros(self._quantizer.d)
        for start in range(0, count, SOME):
            total += self._quantizer.reconstruct_n(start, min(SOME, count - start)).sum(0, dtype=np.float64)
        mean: Scores = (total / max(count, 1)).astype(np.float32)
        return mean


class Near:
    """Queries [Q, d] and the centres found nearest to them [Q, n]; more are looked for where they are asked for."""

    def __init__(self, queries: Scores, mean: Scores, quantizer: Any, found: Found) -> None:
        self._queries, self._mean, self._quantizer, self._found = queries, mean, quantizer, found

    def first(self) -> Scores:
        """Return the inner product with the nearest centre.  -> [Q]"""
        first: Scores = self._found[0][:, 0]
        return first

    def best(self, count: int, which: slice | list[int] = slice(None)) -> Found:
        """Return the nearest centres of some of the queries.  -> [q, count] each"""
        reached, lists = self._found
        if count <= lists.shape[1]:
            return reached[which, :count], lists[which, :count]
        found: Found = self._quantizer.search(self._queries[which], count)
        return found

    def nearness(self, lead: float = ANY, reached: Scores | None = None) -> Scores:
        """Return the inner product with the nearest centre, or the one given, over a query's length.  [Q] -> [Q]

        ANY for those that this centre leads by less than `lead`.
        """
        near, ahead = self._near_and_ahead(self.first() if reached is None else reached)
        told: Scores = np.where(ahead >= lead, near, np.float32(ANY))
        return told

    def lead(self) -> Scores:
        """Return how far the inner product with the nearest centre is above that with the mean of all.  -> [Q]

        Both over a query's length.
        """
        return self._near_and_ahead(self.first())[1]

    def _near_and_ahead(self, reached: Scores) -> tuple[Scores, Scores]:
        length: Scores = np.maximum(lengths(self._queries), TINY)
        average = np.einsum("qd,d->q", self._queries, self._mean)  # threads of NumPy's own would be in FAISS's way
        return reached / length, (reached - average) / length


class NearAll(Near):
    """Queries [Q, d] and their inner products with all centres [Q, lists]."""

    def __init__(self, queries: Scores, mean: Scores, scores: Scores) -> None:
        self._queries, self._mean, self._scores = queries, mean, scores

    def first(self) -> Scores:
        """Return the largest inner product.  -> [Q]"""
        first: Scores = np.maximum.reduce(self._scores, 1)
        return first

    def nearness(self, lead: float = ANY, reached: Scores | None = None) -> Scores:
        """Do the same, one query at a time: for so few that is less work for NumPy."""
        told = []
        for query, score in zip(self._queries, self.first() if reached is None else reached, strict=True):
            length = max(math.sqrt(query.dot(query)), TINY)
            told.append(score / length if score - query.dot(self._mean) >= lead * length else ANY)
        return np.array(told, np.float32)

    def best(self, count: int, which: slice | list[int] = slice(None)) -> Found:
        """Put centres in order, as many as are asked for.  -> [q, count] each"""
        scores = self._scores[which]
        lists = best_first(scores, count)
        return scores[0, lists] if len(scores) == 1 else scores[np.arange(len(scores))[:, None], lists], lists
