"""Compressed codes of a store's rows, in FAISS: they name candidates quickly, to be re-ranked exactly."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.arrays import TINY
from fewshot.centres import Centres, Near
from fewshot.effort import ANY, Look
from fewshot.errors import InvalidOption
from fewshot.rotation import balanced
from fewshot.scan import (
    BLOCK,
    FEW_QUERIES,
    Floats,
    Mask,
    Rows,
    Scores,
    as_float32,
    few_threads,
    load_faiss,
    selector,
)

MANY = 8  # an eighth of the lists are so many that they are put in order only for the queries that need them
WHOLE, UNEVEN = 0.85, 2  # share of a list's rows; how many times as unevenly as by chance rows are spread over lists
TOGETHER, SELECTING = 1024, 256  # queries compared with all lists at a time, and when rows are left out: bounds memory
QUERY_BY_QUERY, LIST_BY_LIST = 11, 0  # orders in which FAISS takes fast-scan lists: the first is faster for few queries


class Codes:
    """A FAISS index whose entry i is row i of a store; its scores are approximate, what it finds is to be re-ranked."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._turns, self._leaf = _parts(inner)
        leaf, faiss = self._leaf, load_faiss()
        self.probes = isinstance(leaf, faiss.IndexIVF)  # looks into some of many lists
        self.walks = isinstance(leaf, faiss.IndexHNSW)  # follows a graph
        plain = isinstance(leaf, faiss.IndexFlat | faiss.IndexScalarQuantizer)
        self.selects = self.probes or self.walks or plain  # can leave rows out while it searches
        nodes = 4096 if self.walks and leaf.hnsw.nb_neighbors(0) else 0
        self.most_effort = int(leaf.nlist) if self.probes else nodes if self.walks else 1
        self._centres: Centres | None = None  # once they are needed
        self._fast_scan, self._order = isinstance(leaf, faiss.IndexIVFFastScan), -1
        self._list_of: Rows | None = None  # [N] once it is needed
        self._held: tuple[Mask, Rows, Mask] | None = None  # rows that count, and what `_held_by_lists` told of them

    @classmethod
    def make(cls, factory: str, dim: int) -> Codes:
        """Prepare an empty index from a FAISS factory string.

        Raises
        ------
        InvalidOption
            when FAISS rejects the string, at all or for this number of dimensions.
        """
        faiss = load_faiss()
        try:
            codes = cls(_bare(faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)))
            if not (codes.most_effort and codes.bytes_per_row()):
                raise RuntimeError("without lists or links")
            if isinstance(codes._leaf, faiss.IndexIDMap | faiss.IndexRefine):
                raise RuntimeError("IDMap and Refine must be outermost")
            return codes
        except RuntimeError as error:
            reason = str(error).rsplit(": ", 1)[-1].strip()
            raise InvalidOption(
                f"FAISS rejects the factory string {factory!r} for {dim} dimensions ({reason}); "
                "see the FAISS wiki, or use a kind: auto, exact, fast, ivf, hnsw, pq, sq"
            ) from error

    def __len__(self) -> int:
        """Return the number of rows coded."""
        return int(self._inner.ntotal)

    def bytes_per_row(self) -> float:
        """Memory that each row takes."""
        leaf, faiss = self._leaf, load_faiss()
        if not self.walks:
            return float(self._inner.sa_code_size()) + 8 * self.probes  # an IVF list holds the numbers of its rows
        links = leaf.hnsw.nb_neighbors(0) + 2  # on the ground floor, and those of the few floors above
        return float(faiss.downcast_index(leaf.storage).sa_code_size() + 4 * links + 16)

    def train(self, sample: Scores) -> None:
        """Learn what the codes mean from a sample [n, D].

        The rotation of a factory string that begins with OPQ is found in closed form: in seconds, where FAISS takes
        minutes for as many dimensions, and with smaller errors on embeddings of photographs.

        Raises
        ------
        InvalidOption
            when FAISS needs a larger sample.
        """
        leaf = self._leaf
        for clustering in (getattr(leaf, "cp", None), getattr(getattr(leaf, "pq", None), "cp", None)):
            if clustering is not None:
                clustering.min_points_per_centroid = 1  # else FAISS warns of small collections on stdout
        faiss, first = load_faiss(), self._turns[0] if self._turns else None
        if isinstance(first, faiss.OPQMatrix):
            faiss.copy_array_to_vector(balanced(sample, first.M, first.d_out).ravel(), first.A)
            first.is_trained = True
        try:
            self._inner.train(sample)
        except RuntimeError as error:
            reason = str(error).rsplit(": ", 1)[-1].strip()
            raise InvalidOption(
                f"FAISS cannot train this kind of index on {len(sample)} rows ({reason}); use --kind auto"
            ) from error

    def add(self, rows: Floats) -> None:
        """Code further rows [n, D], block by block."""
        self._list_of = self._held = None
        for start in range(0, len(rows), BLOCK):
            self._inner.add(as_float32(rows[start : start + BLOCK]))

    def candidates(
        self,
        queries: Scores,
        depth: int,
        looks: tuple[Look, ...] = (),
        only: Mask | None = None,
        lead: float = ANY,
    ) -> tuple[Scores, Rows]:
        """Find rows that seem nearest, best first; -1 where no more were met.  [Q, D] -> [Q, depth] each

        `looks` tells how many IVF lists or HNSW nodes to look into, up to `most_effort`; all of them if it is empty,
        and for queries whose nearest list's centre leads the mean of all by less than `lead`. Rows outside `only` [N]
        are left out if the kind `selects`, and may be among the candidates if not.
        """
        depth, looks = min(depth, len(self)), looks or (Look(ANY, self.most_effort),)
        with few_threads(len(queries)):
            if self.probes:
                return self._in_lists(self._turned(queries), depth, looks, only, lead)
            sel = selector(only) if only is not None and self.selects else None
            effort = max(looks[0].effort, depth) if self.walks else 0
            parameters = _parameters(self._inner, effort, sel) if effort or sel is not None else None
            scores, rows = self._inner.search(queries, depth, params=parameters)
        return scores, rows

    def nearness(self, queries: Scores) -> Scores:
        """Return how near queries are to the nearest list's centre.  [Q, D] -> [Q]"""
        return self._near(self._turned(queries)).nearness()

    def lead(self, queries: Scores) -> Scores:
        """Return by how much the nearest list's centre is nearer to queries than the mean of all.  [Q, D] -> [Q]"""
        return self._near(self._turned(queries)).lead()

    def _near(self, queries: Scores, least: int = 1) -> Near:
        if self._centres is None:
            self._centres = Centres(self._leaf.quantizer)
        return self._centres.near(queries, least)

    def reach(self, queries: Scores, rows: Rows) -> Rows:
        """Return how many lists to look into until a row is met.  [Q, D], [Q, n] -> [Q, n]"""
        leaf, list_of = self._leaf, self._lists_of_rows()
        met = np.empty(rows.shape, np.int64)
        for i, query in enumerate(self._turned(queries)):
            order = self._near(query[None]).best(leaf.nlist)[1][0]
            place = np.full(leaf.nlist, leaf.nlist)  # also of lists that a graph of centres does not lead to
            place[order[order >= 0]] = 1 + np.flatnonzero(order >= 0)
            met[i] = place[list_of[rows[i]]]
        return met

    def _lists_of_rows(self) -> Rows:
        """Return which list each row is in.  -> [N]"""
        if self._list_of is None:
            leaf, faiss, list_of = self._leaf, load_faiss(), np.empty(len(self), np.int64)
            for i in range(leaf.nlist):
                count = leaf.invlists.list_size(i)
                if count:
                    ids = leaf.invlists.get_ids(i)
                    list_of[faiss.rev_swig_ptr(ids, count)] = i
                    leaf.invlists.release_ids(i, ids)
            self._list_of = list_of
        return self._list_of

    def _in_lists(
        self, queries: Scores, depth: int, looks: tuple[Look, ...], only: Mask | None, lead: float
    ) -> tuple[Scores, Rows]:
        """Look into the lists whose centres are nearest, into as many as each query's nearness asks for."""
        parts, step = [], TOGETHER if only is None else SELECTING
        least = max(looks[0].effort, *(look.effort for look in looks if look.effort * MANY <= looks[-1].effort), 1)
        for start in range(0, len(queries), step):
            some = queries[start : start + step]
            near = self._near(some, least)
            parts.append(
                self._nearest_lists(some, near, depth, looks, lead)
                if only is None
                else self._among(some, near, depth, looks, only, lead)
            )
        if len(parts) == 1:
            return parts[0]
        scores, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        return scores, rows

    def _nearest_lists(
        self, queries: Scores, near: Near, depth: int, looks: tuple[Look, ...], lead: float
    ) -> tuple[Scores, Rows]:
        kind = np.searchsorted([-look.least for look in looks], -near.nearness(lead)).tolist()  # [Q]
        if kind.count(kind[0]) == len(kind):
            return self._listed(queries, depth, *near.best(looks[kind[0]].effort))
        scores, rows = np.empty((len(queries), depth), np.float32), np.empty((len(queries), depth), np.int64)
        for i in set(kind):
            here = [q for q, its in enumerate(kind) if its == i]
            scores[here], rows[here] = self._listed(queries[here], depth, *near.best(looks[i].effort, here))
        return scores, rows

    def _among(
        self, queries: Scores, near: Near, depth: int, looks: tuple[Look, ...], only: Mask, lead: float
    ) -> tuple[Scores, Rows]:
        """Look into lists in the same way, as if there were no rows but those of `only`, not empty.

        These may lie in a few lists, and none in those nearest to a query. So as many of them as a list holds on
        average count as one list. A query's nearness is told when so many were met, and by a list that is nearly whole
        if the rows are spread unevenly: where others lie, the nearest row may be of those that do not count.
        """
        (held, whole), each = self._held_by_lists(only), len(self) / self._leaf.nlist
        efforts, leasts = np.array([look.effort for look in looks]), [-look.least for look in looks]
        reached, lists = near.best(self._leaf.nlist)  # [Q, lists] each
        here = np.where(lists >= 0, held[lists], 0) / each
        met = np.cumsum(here, axis=1)
        told = (met >= np.minimum(1, met[:, -1:])) & whole[lists]
        first = told.argmax(1)[:, None]  # [Q, 1]
        nearness = np.where(told.any(1), near.nearness(lead, np.take_along_axis(reached, first, 1)[:, 0]), ANY)
        effort = efforts[np.searchsorted(leasts, -nearness)]  # [Q]
        wanted = (here > 0) & (met - here < effort[:, None])
        order = np.argsort(~wanted, axis=1, kind="stable")[:, : max(wanted.sum(1).max(), 1)]
        reached, lists = (np.take_along_axis(a, order, 1) for a in (reached, np.where(wanted, lists, -1)))
        return self._listed(queries, depth, reached, lists, selector(only))

    def _held_by_lists(self, only: Mask) -> tuple[Rows, Mask]:
        """Count the rows of `only` in each list, and tell which lists tell nearness.  [N] -> [lists] each"""
        last = self._held
        if last is None or last[0] is not only:
            lists = self._leaf.nlist
            size = np.bincount(self._lists_of_rows(), minlength=lists)
            held = np.bincount(self._lists_of_rows()[only], minlength=lists)
            share = held.sum() / len(self)
            chance = max(share * (1 - share) * len(self), TINY)  # sum of variances if each row counted by chance
            uneven = ((held - share * size) ** 2).sum() > UNEVEN * chance
            self._held = last = only, held, held >= WHOLE * size if uneven else np.ones(lists, bool)
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

    def _turned(self, queries: Scores) -> Scores:
        """Apply the rotations that come before the lists.  [Q, D] -> [Q, d]"""
        for turn in self._turns:
            queries = turn.apply(queries)
        return queries

    def serialize(self) -> NDArray[np.uint8]:
        """Return the bytes that `load` reads."""
        data: NDArray[np.uint8] = load_faiss().serialize_index(self._inner)
        return data

    @classmethod
    def load(cls, data: NDArray[np.uint8]) -> Codes:
        """Read what `serialize` wrote; damaged bytes make FAISS raise RuntimeError."""
        return cls(load_faiss().deserialize_index(data))


def _bare(index: Any) -> Any:
    """Return the index without what numbers its rows or re-ranks them, which is done here, and for all it finds."""
    faiss = load_faiss()
    while isinstance(index, faiss.IndexIDMap | faiss.IndexRefine):
        inner = index.index if isinstance(index, faiss.IndexIDMap) else index.base_index
        index = faiss.clone_index(inner)  # what is inside goes with its owner
    return index


def _parts(index: Any) -> tuple[list[Any], Any]:
    """Return the rotations that come first, and the index beneath them, which decides what can be asked for."""
    faiss, turns = load_faiss(), []
    index = faiss.downcast_index(index)
    while isinstance(index, faiss.IndexPreTransform):
        turns += [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
        index = faiss.downcast_index(index.index)
    return turns, index


@lru_cache(64)
def _probing(lists: int) -> Any:
    return load_faiss().SearchParametersIVF(nprobe=lists)


def _parameters(index: Any, effort: int, sel: Any) -> Any:
    """Return what tells a kind without lists how many nodes to look into, and which rows to leave out."""
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        inner = _parameters(index.index, effort, sel)
        return inner and faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=effort, sel=sel)
    return faiss.SearchParameters(sel=sel) if sel is not None else None
