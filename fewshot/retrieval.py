"""How well an encoder finds more of the same: each item searches all others for its own class."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from fewshot.errors import DataError
from fewshot.features import Features
from fewshot.metrics.interval import Estimate, mean_interval
from fewshot.metrics.retrieval import average_precision, recall_at
from fewshot.provenance import versions

RANKS = (1, 5, 10)
SCORES = 8_000_000  # scores held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Recall and precision of a search among labelled embeddings."""

    dataset: str
    data: str  # hash of the labels
    encoder: str
    fingerprint: str
    split: str
    items: int  # that are searched among
    queries: int  # items whose class has another item
    classes: int
    dim: int
    metrics: dict[str, Estimate]  # "recall@1", ..., "map": means over queries with 95 % half widths
    versions: dict[str, str]
    seconds: float  # of searching and measuring, without embedding

    def to_json(self) -> dict[str, Any]:
        """Return every field as JSON values; NaN becomes null."""
        found = asdict(self)
        for value in found["metrics"].values():
            value["half_width"] = None if math.isnan(value["half_width"]) else value["half_width"]
        return found


def retrieval(features: Features, *, split: str = "", device: torch.device | str = "cpu") -> Retrieval:
    """Search with every item among all others by cosine, as metric learning is judged (Song et al. 2016).

    Parameters
    ----------
    split:
        take only the items of this split; "" takes all.

    Raises
    ------
    DataError
        when the split is not there, or no class has two items.
    """
    rows = np.arange(len(features.labels))
    if split:
        rows = np.flatnonzero(np.asarray(features.splits, dtype=object) == split)
    labels = torch.from_numpy(features.labels[rows])  # [n]
    asking = (labels.bincount(minlength=1)[labels] > 1).nonzero().squeeze(-1) if len(rows) else labels  # [q]
    if not len(asking):
        where = f" in split {split!r}" if split else ""
        raise DataError(f"{features.name!r} has no class with two items{where}, so there is nothing to find again")
    x, labels = features.x[torch.from_numpy(rows)].to(device), labels.to(device)  # [n, D]
    begin = time.perf_counter()
    found = [_search(x, labels, chosen) for chosen in asking.to(device).split(max(1, SCORES // len(rows)))]
    values = torch.cat(found, 1).cpu().numpy()  # [metrics, q]
    names = [*(f"recall@{k}" for k in RANKS), "map"]
    return Retrieval(
        dataset=features.name,
        data=features.data,
        encoder=features.encoder,
        fingerprint=features.fingerprint,
        split=split,
        items=len(rows),
        queries=len(asking),
        classes=len(labels.unique()),
        dim=features.x.shape[1],
        metrics={name: mean_interval(value) for name, value in zip(names, values, strict=True)},
        versions=versions(),
        seconds=time.perf_counter() - begin,
    )


def _search(x: torch.Tensor, labels: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Recall at each rank, and average precision, of the chosen rows.  [n, D], [n], [q] -> [len(RANKS) + 1, q]"""
    scores = x[chosen] @ x.mT  # [q, n]
    relevant = labels[chosen].unsqueeze(-1) == labels  # [q, n]
    itself = torch.arange(len(chosen), device=x.device), chosen
    scores[itself], relevant[itself] = -torch.inf, False  # an item comes last in its own search, and finds nothing
    return torch.stack([*(recall_at(scores, relevant, k) for k in RANKS), average_precision(scores, relevant)])
