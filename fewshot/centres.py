"""The centres of an index's lists: which of them are nearest to queries."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewshot.arrays import TINY
from fewshot.scan import FEW_QUERIES, Rows, Scores, best_first, lengths, load_faiss, products

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

    def near(self, queries: Scores, least: int = 1) -> Near:
        """Compare queries [Q, d] with the centres, of which the best `least` at least will be asked for.

        Few queries are compared with all centres, if these lie flat: FAISS takes twice as long to keep the best. Of
        many it finds the best sooner.
        """
        if self._rows is not None and len(queries) < FEW_QUERIES:
            return NearAll(queries, products(queries, self._rows))
        return Near(queries, self._quantizer, self._quantizer.search(queries, least))


class Near:
    """Queries [Q, d] and the centres found nearest to them [Q, n]; more are looked for where they are asked for."""

    def __init__(self, queries: Scores, quantizer: Any, found: Found) -> None:
        self._queries, self._quantizer, self._found = queries, quantizer, found

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

    def nearness(self, reached: Scores | None = None) -> Scores:
        """Return the inner product with the nearest centre, or the one given, over a query's length.  [Q] -> [Q]"""
        reached = self.first() if reached is None else reached
        near: Scores = (reached / np.maximum(lengths(self._queries), TINY)).astype(np.float32, copy=False)
        return near


class NearAll(Near):
    """Queries [Q, d] and their inner products with all centres [Q, lists]."""

    def __init__(self, queries: Scores, scores: Scores) -> None:
        self._queries, self._scores = queries, scores

    def first(self) -> Scores:
        """Return the largest inner product.  -> [Q]"""
        first: Scores = np.maximum.reduce(self._scores, 1)
        return first

    def best(self, count: int, which: slice | list[int] = slice(None)) -> Found:
        """Put centres in order, as many as are asked for.  -> [q, count] each"""
        scores = self._scores[which]
        lists = best_first(scores, count)
        return scores[np.arange(len(scores))[:, None], lists], lists
