"""Compressed codes of a store's rows, in FAISS: they name candidates quickly, to be re-ranked exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.centres import Near
from fewshot.effort import Looks, everywhere
from fewshot.errors import InvalidOption
from fewshot.lists import Lists
from fewshot.rotation import balanced
from fewshot.scan import BLOCK, Floats, Mask, Rows, Scores, as_float32, few_threads, load_faiss, selector

NEARLY_ALL, SAMPLE, BUNCHED = 0.95, 500, 2 / 3  # share of rows; nodes looked at; share of the neighbours by chance


class Codes:
    """A FAISS index whose entry i is row i of a store; its scores are approximate, what it finds is to be re-ranked."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._turns, self._leaf = _parts(inner)
        leaf, faiss = self._leaf, load_faiss()
        self._lists = Lists(leaf) if isinstance(leaf, faiss.IndexIVF) else None
        self.probes = self._lists is not None  # looks into some of many lists
        self.walks = isinstance(leaf, faiss.IndexHNSW)  # follows a graph
        plain = isinstance(leaf, faiss.IndexFlat | faiss.IndexScalarQuantizer)
        self.selects = self.probes or self.walks or plain  # can leave rows out while it searches
        nodes = 4096 if self.walks and leaf.hnsw.nb_neighbors(0) else 0
        self.most_effort = self._lists.count if self._lists else nodes if self.walks else 1

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
        for start in range(0, len(rows), BLOCK):
            self._inner.add(as_float32(rows[start : start + BLOCK]))

    def candidates(
        self, queries: Scores, depth: int, looks: Looks | None = None, only: Mask | None = None
    ) -> tuple[Scores, Rows]:
        """Find rows that seem nearest, best first; -1 where no more were met.  [Q, D] -> [Q, depth] each

        `looks` tells how many IVF lists or HNSW nodes to look into; all of them if it is not given. Rows outside
        `only` [N] are left out if the kind `selects`, and may be among the candidates if not.
        """
        depth, looks = min(depth, len(self)), looks or everywhere(self.most_effort)
        with few_threads(len(queries)):
            if self._lists:
                return self._lists.search(self._turned(queries), depth, looks, only)
            sel = selector(only) if only is not None and self.selects else None
            effort = max(looks.steps[0].effort, depth) if self.walks else 0
            parameters = _parameters(self._inner, effort, sel) if effort or sel is not None else None
            scores, rows = self._inner.search(queries, depth, params=parameters)
        return scores, rows

    def near(self, queries: Scores) -> Near:
        """Compare queries [Q, D] with the centres of the lists."""
        assert self._lists is not None
        return self._lists.near(self._turned(queries))

    def reach(self, queries: Scores, rows: Rows) -> Rows:
        """Return how many lists to look into until a row is met.  [Q, D], [Q, n] -> [Q, n]"""
        assert self._lists is not None
        return self._lists.reach(self._turned(queries), rows)

    def bunched(self, only: Mask) -> bool:
        """Tell whether the rows that a graph's search leaves out lie among their like, where a walk sees no others.

        Of `only` [N], the rows that count, the neighbours of those left out are fewer then than by chance.
        """
        left, share = np.flatnonzero(~only), only.mean()
        if not self.walks or share > NEARLY_ALL:
            return False
        faiss, graph = load_faiss(), self._leaf.hnsw
        neighbours, first = (faiss.rev_swig_ptr(a.data(), a.size()) for a in (graph.neighbors, graph.offsets))
        some = first[left[:: max(len(left) // SAMPLE, 1)]].astype(np.int64)
        met = neighbours[some[:, None] + np.arange(graph.nb_neighbors(0))]
        return bool(only[met[met >= 0]].mean() < BUNCHED * share)

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
