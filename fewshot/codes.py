"""Compressed codes of a store's rows, in FAISS: they name candidates quickly, to be re-ranked exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import InvalidOption
from fewshot.rotation import balanced
from fewshot.scan import BLOCK, Floats, Mask, Rows, Scores, as_float32, few_threads, load_faiss, selector


class Codes:
    """A FAISS index whose entry i is row i of a store; its scores are approximate, what it finds is to be re-ranked."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        leaf = _leaf(inner)
        faiss = load_faiss()
        self.probes = isinstance(leaf, faiss.IndexIVF)  # looks into some of many lists
        self.walks = isinstance(leaf, faiss.IndexHNSW)  # follows a graph
        plain = isinstance(leaf, faiss.IndexFlat | faiss.IndexScalarQuantizer)
        self.selects = self.probes or self.walks or plain  # can leave rows out while it searches
        nodes = 4096 if self.walks and leaf.hnsw.nb_neighbors(0) else 0
        self.most_effort = int(leaf.nlist) if self.probes else nodes if self.walks else 1

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
            if isinstance(_leaf(codes._inner), faiss.IndexIDMap | faiss.IndexRefine):
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
        leaf, faiss = _leaf(self._inner), load_faiss()
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
        leaf = _leaf(self._inner)
        for clustering in (getattr(leaf, "cp", None), getattr(getattr(leaf, "pq", None), "cp", None)):
            if clustering is not None:
                clustering.min_points_per_centroid = 1  # else FAISS warns of small collections on stdout
        _rotate(self._inner, sample)
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

    def candidates(self, queries: Scores, depth: int, effort: int = 1, only: Mask | None = None) -> tuple[Scores, Rows]:
        """Find rows that seem nearest, best first; -1 where no more were met.  [Q, D] -> [Q, depth] each

        `effort` is the number of IVF lists or HNSW nodes to look into, up to `most_effort`. Rows outside `only` [N]
        are left out if the kind `selects`, and may be among the candidates if not.
        """
        sel = selector(only) if only is not None and self.selects else None
        asks = sel is not None or self.probes or self.walks
        parameters = _parameters(self._inner, max(effort, depth) if self.walks else effort, sel) if asks else None
        with few_threads(len(queries)):
            scores, rows = self._inner.search(queries, min(depth, len(self)), params=parameters)
        return scores, rows

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


def _leaf(index: Any) -> Any:
    """Return the index beneath rotations and maps of numbers, which decides what can be asked for."""
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return index


def _rotate(index: Any, sample: Scores) -> None:
    """Set the rotation of an index that begins with OPQ for rows like those of a sample [n, D]."""
    faiss = load_faiss()
    first = faiss.downcast_VectorTransform(index.chain.at(0)) if isinstance(index, faiss.IndexPreTransform) else None
    if isinstance(first, faiss.OPQMatrix):
        faiss.copy_array_to_vector(balanced(sample, first.M, first.d_out).ravel(), first.A)
        first.is_trained = True


def _parameters(index: Any, effort: int, sel: Any) -> Any:
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        inner = _parameters(index.index, effort, sel)
        return inner and faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=effort, sel=sel)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=effort, sel=sel)
    return faiss.SearchParameters(sel=sel) if sel is not None else None
