"""The rows of a store on all GPUs as float16: candidates come from there, exact scores from the store, as on a CPU."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self

import numpy as np
import torch

from fewshot.scan import BLOCK, Floats, Rows, Scores, as_float32, load_faiss

GPU_MOST = 2048  # neighbours that FAISS finds on a GPU
SPARE = 0.8  # share of a GPU's free memory that may be filled


class GpuRows:
    """One flat index a GPU: each with all rows, sharing out the queries, or each with a range of rows."""

    def __init__(self, parts: list[tuple[int, Any]], sharded: bool) -> None:
        self._parts = parts  # first row, index
        self.sharded = sharded

    @classmethod
    def make(cls, rows: Floats, only: int | None = None) -> Self | None:
        """Copy all rows to every GPU if they fit, or else a range to each; None without a GPU, or when they do not fit.

        `only` names one GPU to use. A warning tells of GPUs that are too small.
        """
        there = range(getattr(load_faiss(), "get_num_gpus", lambda: 0)())
        gpus = [gpu for gpu in there if only in (None, gpu)]
        if not gpus or not len(rows):
            return None
        room = [int(SPARE * torch.cuda.mem_get_info(gpu)[0]) // (2 * rows.shape[1]) for gpu in gpus]  # rows
        sharded = min(room) < len(rows)
        if not sharded:
            return cls([(0, _filled(rows, 0, len(rows), gpu)) for gpu in gpus], sharded)
        if sum(room) < len(rows):
            warnings.warn(f"{len(rows):,} rows do not fit into {len(gpus)} GPUs; searching on the CPU", stacklevel=2)
            return None
        ends = np.ceil(np.cumsum(room) * (len(rows) / sum(room))).astype(int).tolist()
        bounds = zip([0, *ends[:-1]], ends, strict=True)
        return cls(
            [(a, _filled(rows, a, min(b, len(rows)), gpu)) for gpu, (a, b) in zip(gpus, bounds, strict=True)], sharded
        )

    def candidates(self, queries: Scores, depth: int) -> tuple[Scores, Rows]:
        """Find the rows nearest in float16, best first.  [Q, D] -> scores, rows [Q, depth]"""
        shares = [queries] * len(self._parts) if self.sharded else np.array_split(queries, len(self._parts))
        with ThreadPoolExecutor(len(self._parts)) as pool:
            answers = list(pool.map(partial(_search, depth), self._parts, shares))
        if not self.sharded:
            return np.concatenate([s for s, _ in answers]), np.concatenate([r for _, r in answers])
        scores = np.concatenate([s for s, _ in answers], 1)
        rows = np.concatenate([r for _, r in answers], 1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def _filled(rows: Floats, start: int, stop: int, gpu: int) -> Any:
    faiss = load_faiss()
    config = faiss.GpuIndexFlatConfig()
    config.device, config.useFloat16 = gpu, True
    index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), rows.shape[1], config)
    for first in range(start, stop, BLOCK):
        index.add(as_float32(rows[first : min(first + BLOCK, stop)]))
    return index


def _search(depth: int, part: tuple[int, Any], queries: Scores) -> tuple[Scores, Rows]:
    first, index = part
    scores, rows = index.search(queries, min(depth, index.ntotal))
    return scores, np.where(rows >= 0, rows + first, -1)
