"""The index of a store: find the nearest rows, through codes where there are many, always with exact scores."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import numpy as np
from torch import Tensor

from fewshot import depth as deep
from fewshot.arrays import to_numpy
from fewshot.centres import Near
from fewshot.codes import Codes
from fewshot.effort import looks
from fewshot.errors import InvalidOption
from fewshot.gpu_rows import GPU_MOST, GpuRows
from fewshot.index_file import Facts, save
from fewshot.index_plan import Plan, Wanted
from fewshot.index_tuning import MANY, tuned
from fewshot.scan import Floats, Mask, Rows, Scores, as_float32, inner_products, lengths, scan, scan_above
from fewshot.store import Store

FEW = 20  # rows are compared one by one when no more than a 20th of all is allowed
SMALL = 1024  # candidates that may be re-ranked anyway
HALVES = 8  # spread of the scores of rows in half precision, which are nearly exact
DEEPEST = 16  # and when more than a 16th of all would have to be re-ranked


class Index:
    """Rows of a store with the codes that lead to them; `rows` of a result are rows of `Store.embeddings`."""

    def __init__(
        self, rows: Floats, alive: Mask, codes: Codes | None, facts: Facts, gpu: GpuRows | None = None
    ) -> None:
        self.rows = rows  # [N, D] memory-mapped
        self.alive = alive  # [N]
        self.facts = facts
        self._codes = codes
        self._gpu = gpu
        self._count = int(alive.sum())

    @classmethod
    def build(cls, rows: Floats, alive: Mask, chosen: Plan, wanted: Wanted, chunks: int = 0) -> Index:
        """Train codes on a sample, code all rows, and measure; `chosen` says of which kind.

        Raises
        ------
        InvalidOption
            when FAISS cannot train such an index on so few rows.
        """
        asked = dataclasses.astuple(wanted)
        facts = Facts(chosen.kind, chosen.factory, asked, len(rows), len(rows), chunks)
        live = np.flatnonzero(alive)
        if not chosen.factory or not len(live):
            return cls(rows, alive, None, facts)
        codes = Codes.make(chosen.factory, rows.shape[1])
        step = max(len(live) // chosen.sample, 1)
        codes.train(as_float32(rows[live[::step][: chosen.sample]]))
        codes.add(rows)
        index = cls(rows, alive, codes, facts)
        index.facts = tuned(index, wanted.recall)
        return index

    def __len__(self) -> int:
        """Return the number of rows that can be found."""
        return self._count

    @property
    def scans(self) -> bool:
        """Whether so few of the rows are left that each is compared, whatever the kind."""
        return self._count <= len(self.rows) // FEW

    @property
    def device(self) -> str:
        """Where candidates are looked for: `cpu` or `gpu`."""
        return "cpu" if self._gpu is None else "gpu"

    def search(self, queries: Tensor, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        """Find the k rows with the largest inner products, best first.  [Q, D] -> scores [Q, k], rows [Q, k]

        Only rows where `allowed` [N] is true count, if it is given. Where there are fewer than k, scores are -inf and
        rows -1. Scores are exact whatever the kind; an approximate kind may miss a row.

        Raises
        ------
        InvalidOption
            for a k below 1, or queries of another dimension or that are not finite.
        """
        if k < 1:
            raise InvalidOption(f"top must be 1 or more, got {k}")
        return self._find(self._checked(queries), k, self._only(allowed))

    def range_search(self, queries: Tensor, least: float, allowed: Mask | None = None) -> list[tuple[Scores, Rows]]:
        """Find all rows whose inner product is `least` or more, best first.  [Q, D] -> Q pairs of scores and rows

        Raises
        ------
        InvalidOption
            for queries of another dimension or that are not finite, or a `least` that is no number.
        """
        if math.isnan(least):
            raise InvalidOption("the least score must be a number, got nan")
        vectors, only = self._checked(queries), self._only(allowed)
        count = self._count if only is None else int(only.sum())
        if not count or not len(vectors):
            return [(np.zeros(0, np.float32), np.zeros(0, np.int64))] * len(vectors)
        found: list[tuple[Scores, Rows]] = [(np.zeros(0, np.float32), np.zeros(0, np.int64))] * len(vectors)
        unsure = np.arange(len(vectors))
        for k in (10, MANY):
            ask, first, most = self._asking(k, only, count)
            if not most or not len(unsure):
                break
            some, sure = deep.above(
                ask,
                self.rows,
                vectors[unsure],
                least,
                care=self._care,
                depth=first,
                most=most if k == MANY else first,
                count=count,
                only=only,
            )
            if self.most_effort > 1 and self._gpu is None:  # what was looked into has the k best
                sure &= np.array([len(rows) <= k for _, rows in some])
            for i, pair in zip(unsure, some, strict=True):
                found[i] = pair
            unsure = unsure[~sure]
        for i, exact in zip(unsure, scan_above(vectors[unsure], self.rows, least, only), strict=True):
            found[i] = exact
        return found

    def on_gpus(self, only: int | None = None) -> Index:
        """Return this index with its candidates found on all GPUs that FAISS sees, or one; itself when it sees none."""
        gpu = GpuRows.make(self.rows, only)
        return self if gpu is None else Index(self.rows, self.alive, self._codes, self.facts, gpu)

    def grown(self, rows: Floats, alive: Mask, chunks: int) -> Index:
        """Return the index of a store that has got further rows or lost some; the codes there are stay."""
        if self._codes is not None:
            self._codes.add(rows[len(self._codes) :])
        return Index(rows, alive, self._codes, dataclasses.replace(self.facts, rows=len(rows), chunks=chunks))

    def save(self, store: Store, generation: int) -> None:
        """Write the index beside its store, where that is possible."""
        data = np.zeros(0, np.uint8) if self._codes is None else self._codes.serialize()
        save(store.path, generation, data, self.alive, self.facts)

    def _checked(self, queries: Tensor) -> Scores:
        vectors = to_numpy(queries)  # [Q, D]
        if vectors.ndim != 2 or vectors.shape[1] != self.rows.shape[1]:
            raise InvalidOption(
                f"queries have shape {list(vectors.shape)}, but the index has {self.rows.shape[1]} dimensions; "
                "embed them with the index's own encoder"
            )
        if not np.isfinite(vectors).all():
            raise InvalidOption("queries must be numbers, but some are not finite")
        return vectors

    def _only(self, allowed: Mask | None) -> Mask | None:
        """Join a filter with what is alive; None when every row counts."""
        if allowed is None:
            return None if self._count == len(self.alive) else self.alive
        return allowed & self.alive

    def approximate(self, vectors: Scores, k: int) -> tuple[Rows, Mask]:
        """Find the k nearest, and never by a scan.  [Q, D] -> rows [Q, k], [Q]

        Tells also for which queries that is the answer; `search` scans for the others.
        """
        only = self._only(None)
        ask, first, most = self._asking(k, only, len(self))
        found = deep.nearest(ask, self.rows, vectors, k, care=self._care, depth=first, most=most, only=only)
        return found[1], found[2] & (found[1][:, min(k, len(self)) - 1] >= 0)

    def sure(self, vectors: Scores, k: int, spread: int) -> float:
        """Return the share of queries [Q, D] for which a spread gives candidates enough at once."""
        only = self._only(None)
        ask, _, _ = self._asking(k, only, len(self))
        first = deep.first_depth(k, spread)
        return float(
            deep.nearest(ask, self.rows, vectors, k, care=self._care, depth=first, most=first, only=only)[2].mean()
        )

    def noise(self, vectors: Scores) -> float:
        """Return the deviation of the errors of candidates' approximate scores, for queries [Q, D] of length 1."""
        vectors = np.ascontiguousarray(vectors)
        ask, _, most = self._asking(10, self._only(None), len(self))
        approximate, ids = ask(vectors, min(most, MANY))
        error, length = inner_products(vectors, self.rows, ids) - approximate, lengths(vectors)
        full = (ids[:, -1] >= 0) & (length > 0)
        return float(np.median(error[full].std(1) / length[full])) if full.any() else 0.0

    @property
    def has_lists(self) -> bool:
        """Whether candidates are in lists, some of which are looked into; then `near` and `reach` can be told."""
        return self._codes is not None and self._codes.probes

    def near(self, vectors: Scores) -> Near:
        """Compare queries [Q, D] with the centres of the lists."""
        assert self._codes is not None
        return self._codes.near(vectors)

    def reach(self, vectors: Scores, rows: Rows) -> Rows:
        """Return how many lists to look into until a row is met.  [Q, D], [Q, n] -> [Q, n]"""
        assert self._codes is not None
        return self._codes.reach(vectors, rows)

    @property
    def _care(self) -> deep.Care:
        """How sure an answer must be; candidates of a GPU do not come from codes."""
        return self.facts.care if self._gpu is None else self.facts.care._replace(noise=0.0)

    @property
    def most_effort(self) -> int:
        """Return the number of lists, or nodes, that there are to look into; 1 for kinds without any."""
        return 1 if self._codes is None else self._codes.most_effort

    def _find(self, vectors: Scores, k: int, only: Mask | None) -> tuple[Scores, Rows]:
        count = self._count if only is None else int(only.sum())
        if not count or not len(vectors):
            shape = len(vectors), k
            return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
        ask, first, most = self._asking(k, only, count)
        scores, rows, sure = deep.nearest(
            ask, self.rows, vectors, k, care=self._care, depth=first, most=most, only=only
        )
        unsure = ~sure | (rows[:, min(k, count) - 1] < 0)
        if unsure.any():
            scores[unsure], rows[unsure] = scan(vectors[unsure], self.rows, k, only)
        return scores, rows

    def _asking(self, k: int, only: Mask | None, count: int) -> tuple[deep.Ask, int, int]:
        """Return how to ask for candidates, how many at first, and how many at most; 0 when a scan costs less."""
        total, codes, most = len(self.rows), self._codes, max(len(self.rows) // DEEPEST, min(len(self.rows), SMALL))
        if count <= total // FEW:
            return _nothing, k, 0
        if self._gpu is not None:
            return self._gpu.candidates, int(deep.first_depth(k, HALVES) * total / count), min(most, GPU_MOST)
        if codes is None:
            return _nothing, k, 0
        first = min(deep.first_depth(k, self.facts.spread), max(most, 2 * k))
        if codes.selects:
            if codes.walks and only is not None and codes.bunched(only):
                return _nothing, k, 0  # a walk among those left out would not lead to the others
            tiers, whole, share = self.facts.tiers, codes.most_effort, count / total if codes.walks else 1
            if codes.walks and tiers and looks(tiers, k, 2 * whole, share=share).steps[0].effort == 2 * whole:
                return _nothing, k, 0  # that much of a graph is not looked into
            some = looks(tiers, k, whole, self.facts.lead, share)
            return partial(codes.candidates, looks=some, only=only), first, most
        return codes.candidates, int(first * total / count), most


def _nothing(queries: Scores, depth: int) -> tuple[Scores, Rows]:
    return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
