"""FAISS: exact inner-product search over the rows of a store, on CPU or GPU. No other file imports faiss."""

from __future__ import annotations

import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewshot.arrays import to_numpy
from fewshot.errors import InvalidOption
from fewshot.store import Store

BLOCK = 65536  # rows added at a time, so that a memory-mapped array is never copied whole
GPU_MOST = 2048  # neighbours that FAISS finds on a GPU


class FlatIndex:
    """Every stored row compared with every query; `rows` of a result are rows of `Store.embeddings`."""

    def __init__(self, inner: Any, gpu: Any = None) -> None:
        self._cpu = inner  # an IndexIDMap over an IndexFlatIP
        self._gpu = gpu  # the same on GPUs, or None

    @classmethod
    def build(cls, embeddings: NDArray[np.float32], rows: NDArray[np.int64]) -> FlatIndex:
        """Index the given rows of `embeddings` [N, D] under their row numbers."""
        faiss = _faiss()
        inner = faiss.IndexIDMap(faiss.IndexFlatIP(embeddings.shape[1]))
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            inner.add_with_ids(np.ascontiguousarray(embeddings[part], np.float32), part)
        return cls(inner)

    def __len__(self) -> int:
        """Return the number of rows indexed."""
        return int(self._cpu.ntotal)

    @property
    def device(self) -> str:
        """Where unrestricted searches run: `cpu` or `gpu`."""
        return "cpu" if self._gpu is None else "gpu"

    def search(
        self, queries: Tensor, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the k rows with the largest inner products, best first.  [Q, D] -> scores [Q, k], rows [Q, k]

        Only rows where `allowed` [N] is true count, if it is given. Where there are fewer than k, rows are -1.

        Raises
        ------
        InvalidOption
            for a k below 1.
        """
        if k < 1:
            raise InvalidOption(f"top must be 1 or more, got {k}")
        vectors = to_numpy(queries)  # [Q, D]
        if len(self) == 0 or len(vectors) == 0:
            shape = len(vectors), k
            return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
        if allowed is not None:  # FAISS cannot restrict a search on a GPU
            faiss = _faiss()
            bits = np.packbits(allowed, bitorder="little")
            only = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
            scores, rows = self._cpu.search(vectors, k, params=only)
        elif self._gpu is not None and k <= GPU_MOST:
            scores, rows = self._gpu.search(vectors, k)
        else:
            scores, rows = self._cpu.search(vectors, k)
        return scores, rows

    def on_gpus(self) -> FlatIndex:
        """Return this index on all GPUs that FAISS sees, or itself when it sees none."""
        faiss = _faiss()
        if getattr(faiss, "get_num_gpus", lambda: 0)() == 0:
            return self
        return FlatIndex(self._cpu, faiss.index_cpu_to_all_gpus(self._cpu))


def open_index(store: Store, device: str = "auto") -> FlatIndex:
    """Return the index of a store: the saved one if it is of the store's latest change and undamaged, else a new one.

    A new one is saved beside the store where that is possible. `device` "cpu" keeps the search off the GPU.

    Raises
    ------
    FormatError
        when the store's array is damaged, which is looked into whenever the index is built.
    """
    index = _load(store)
    if index is None:
        index = rebuild_index(store)
    return index if device == "cpu" else index.on_gpus()


def rebuild_index(store: Store) -> FlatIndex:
    """Build the index of a store anew and save it beside the store, where that is possible.

    Raises
    ------
    FormatError
        when the store's array is damaged.
    """
    generation, live = store.generation, np.flatnonzero(store.mask())
    index = FlatIndex.build(store.embeddings(verify=True), live)
    _save(index, store.path, generation)
    return index


def _save(index: FlatIndex, folder: Path, generation: int) -> None:
    """Write the index under a name that tells the store's generation and the file's checksum; drop older ones."""
    data = _faiss().serialize_index(index._cpu)  # [bytes] uint8
    target = folder / f"index-{generation}-{_checksum(data)}.faiss"
    part = target.with_suffix(".part")
    try:
        with open(part, "wb") as file:
            file.write(data)
        part.replace(target)
        for other in folder.glob("index-*.faiss"):
            if other != target:
                other.unlink(missing_ok=True)
    except OSError:  # a full disk or a folder that may only be read: the index is a copy, and this search has it
        return


def _load(store: Store) -> FlatIndex | None:
    """Read the saved index, or return None when there is none, or it is of another generation or damaged."""
    file = store.saved_index()
    if file is None:
        return None
    try:
        data = np.fromfile(file, np.uint8)
        if _checksum(data) == file.stem.rsplit("-", 1)[1]:
            return FlatIndex(_faiss().deserialize_index(data))
    except (OSError, RuntimeError):  # RuntimeError is what FAISS raises
        return None
    return None


def _checksum(data: NDArray[np.uint8]) -> str:
    return f"{zlib.crc32(data.data):08x}"


def _faiss() -> ModuleType:
    import faiss
    import torch  # noqa: F401 - faiss must come second: with both loaded the other way round, OpenMP may crash

    module: ModuleType = faiss
    return module
