"""The lists of an IVF index: which of them to look into for a query, also where some rows are left out."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from fewshot.arrays import TINY
from fewshot.centres import Centres, Near
from fewshot.effort import ANY, Looks
from fewshot.scan import FEW_QUERIES, Mask, Rows, Scores, load_faiss, selector

WHOLE, UNEVEN = 0.85, 2  # share of a list's rows; how many times as unevenly as by chance rows are spread over lists
TOGETHER, SELECTING = 1024, 256  # queries compared with all lists at a time, and when rows are left out: bounds memory
QUERY_BY_QUERY, LIST_BY_LIST = 11, 0  # orders in which FAISS takes fast-scan lists: the first is faster for few queries


class Lists:
    """Rows of an IVF index in its lists, `count` of these; queries have been turned as its rows were."""

    def __init__(self, leaf: Any) -> None:
        self._leaf = leaf
        self.count = int(leaf.nlist)
        self._centres: Centres | None = None  # once they are needed
        self._fast_scan, self._order = isinstance(leaf, load_faiss().IndexIVFFastScan), -1
        self._list_of = np.zeros(0, np.int64)  # [N] once it is needed
        self._held: tuple[Mask, Rows, Mask] | None = None  # rows that count, and what `_held_by_lists` told of them

    def near(self, queries: Scores, least: int = 1) -> Near:
        """Compare queries [Q, d] with the lists' centres; the best `least` at least will be asked for."""
        if self._centres is None:
            self._centres = Centres(self._leaf.quantizer)
        return self._centres.near(queries, least)

    def search(self, queries: Scores, depth: int, looks: Looks, only: Mask | None) -> tuple[Scores, Rows]:
        """Look into the lists whose centres are nearest, into as many as each query's nearness asks for.

        [Q, d] -> [Q, depth] each; only rows of `only` [N] are found, if it is given.
        """
        parts, step = [], TOGETHER if only is None else SELECTING
        for start in range(0, len(queries), step):
            some = queries[start : start + step]
            near = self.near(some, looks.usual)
            parts.append(
                self._nearest(some, near, depth, looks) if only is None else self._among(some, near, depth, looks, only)
            )
        if len(parts) == 1:
            return parts[0]
        scores, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        return scores, rows

    def reach(self, queries: Scores, rows: Rows) -> Rows:
        """Return how many lists to look into until a row is met.  [Q, d], [Q, n] -> [Q, n]"""
        list_of = self._lists_of_rows()
        met = np.empty(rows.shape, np.int64)
        for i, query in enumerate(queries):
            order = self.near(query[None]).best(self.count)[1][0]
            place = np.full(self.count, self.count)  # also of lists that a graph of centres does not lead to
            place[order[order >= 0]] = 1 + np.flatnonzero(order >= 0)
            met[i] = place[list_of[rows[i]]]
        return met

    def _lists_of_rows(self) -> Rows:
        """Return which list each row is in.  -> [N]"""
        leaf, faiss = self._leaf, load_faiss()
        if len(self._list_of) != leaf.ntotal:
            self._list_of = np.empty(leaf.ntotal, np.int64)
            for i in range(self.count):
                count = leaf.invlists.list_size(i)
                if count:
                    ids = leaf.invlists.get_ids(i)
                    self._list_of[faiss.rev_swig_ptr(ids, count)] = i
                    leaf.invlists.release_ids(i, ids)
        return self._list_of

    def _nearest(self, queries: Scores, near: Near, depth: int, looks: Looks) -> tuple[Scores, Rows]:
        kind = looks.of(near.nearness(looks.lead))  # [Q]
        if kind.count(kind[0]) == len(kind):
            return self._listed(queries, depth, *near.best(looks.steps[kind[0]].effort))
        scores, rows = np.empty((len(queries), depth), np.float32), np.empty((len(queries), depth), np.int64)
        for i in set(kind):
            here = [q for q, its in enumerate(kind) if its == i]
            scores[here], rows[here] = self._listed(queries[here], depth, *near.best(looks.steps[i].effort, here))
        return scores, rows

    def _among(self, queries: Scores, near: Near, depth: int, looks: Looks, only: Mask) -> tuple[Scores, Rows]:
        """Look into lists in the same way, as if there were no rows but those of `only`, not empty.

        These may lie in a few lists, and none in those nearest to a query. So as many of them as a list holds on
        average count as one list. A query's nearness is told when so many were met, and by a list that is nearly whole
        if the rows are spread unevenly: where others lie, the nearest row may be of those that do not count.
        """
        (held, whole), each = self._held_by_lists(only), self._leaf.ntotal / self.count
        reached, lists = near.best(self.count)  # [Q, lists] each
        here = np.where(lists >= 0, held[lists], 0) / each
        met = np.cumsum(here, axis=1)
        told = (met >= np.minimum(1, met[:, -1:])) & whole[lists]
        first = told.argmax(1)[:, None]  # [Q, 1]
        nearness = np.where(told.any(1), near.nearness(looks.lead, np.take_along_axis(reached, first, 1)[:, 0]), ANY)
        effort = looks.efforts[looks.of(nearness)]  # [Q]
        wanted = (here > 0) & (met - here < effort[:, None])
        order = np.argsort(~wanted, axis=1, kind="stable")[:, : max(wanted.sum(1).max(), 1)]
        reached, lists = (np.take_along_axis(a, order, 1) for a in (reached, np.where(wanted, lists, -1)))
        return self._listed(queries, depth, reached, lists, selector(only))

    def _held_by_lists(self, only: Mask) -> tuple[Rows, Mask]:
        """Count the rows of `only` in each list, and tell which lists tell nearness.  [N] -> [lists] each"""
        last = self._held
        if last is None or last[0] is not only:
            list_of = self._lists_of_rows()
            size = np.bincount(list_of, minlength=self.count)
            held = np.bincount(list_of[only], minlength=self.count)
            share = held.sum() / len(only)
            chance = max(share * (1 - share) * len(only), TINY)  # sum of variances if each row counted by chance
            uneven = ((held - share * size) ** 2).sum() > UNEVEN * chance
            self._held = last = only, held, held >= WHOLE * size if uneven else np.ones(self.count, bool)
        return last[1:]

    def _listed(
        self, queries: Scores, depth: int, reached: Scores, lists: Rows, sel: Any = None
    ) -> tuple[Scores, Rows]:
        """Look into given lists, -1 for none, whose centres have given inner products.  [Q, d], [Q, n] -> [Q, depth]"""
        faiss, leaf = load_faiss(), self._leaf
        order = QUERY_BY_QUERY if len(queries) < FEW_QUERIES else LIST_BY_LIST
        if self._fast_scan and order != self._order:
            leaf.implem = self._order = order
        scores, rows = np.empty((len(queries), depth), np.float32), np.empty((len(queries), depth), np.int64)
        given = [np.ascontiguousarray(a) for a in (queries, lists, reached)]  # alive until the search is over
        x, *others = (faiss.swig_ptr(a) for a in (*given, scores, rows))
        several = lists.shape[1]
        parameters = _probing(several) if sel is None else faiss.SearchParametersIVF(nprobe=several, sel=sel)
        leaf.search_preassigned_c(len(queries), x, depth, *others, False, parameters)
        return scores, rows


@lru_cache(64)
def _probing(lists: int) -> Any:
    return load_faiss().SearchParametersIVF(nprobe=lists)
