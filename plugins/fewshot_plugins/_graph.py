"""Nearest neighbours among a task's unlabelled items, exact, by cosine; an item is no neighbour of its own."""

from __future__ import annotations

import torch
from torch import Tensor

SAME = 1e-5  # cosines above 1 - SAME are the item itself
CHUNK = 4096  # rows of queries at a time, so that memory grows with U and not with U squared


def nearest(items: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest other items of each item.  [*B, U, D] -> positions, cosines [*B, U, K], K = min(count, U - 1)"""
    count = min(count, items.shape[-2] - 1)
    found = []
    for start in range(0, items.shape[-2], CHUNK):
        cosine = items[..., start : start + CHUNK, :] @ items.mT  # [*B, chunk, U]
        cosine.diagonal(start, -2, -1).fill_(-torch.inf)
        found.append(cosine.topk(count, -1))
    return torch.cat([f.indices for f in found], -2), torch.cat([f.values for f in found], -2)


def nearest_to(query: Tensor, items: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest items of each query, leaving out one that is the query itself.

    An unlabelled item that is asked about again thus has the neighbours it had in `nearest`.

    Returns
    -------
    positions and cosines, both [*B, Q, K] with K = min(count, U - 1).
    """
    count = min(count, items.shape[-2] - 1)
    positions, cosines = [], []
    for part in torch.split(query, CHUNK, -2):
        found = (part @ items.mT).topk(count + 1, -1)  # [*B, chunk, K + 1]
        own = found.values[..., :1] > 1 - SAME  # [*B, chunk, 1]
        positions.append(torch.where(own, found.indices[..., 1:], found.indices[..., :-1]))
        cosines.append(torch.where(own, found.values[..., 1:], found.values[..., :-1]))
    return torch.cat(positions, -2), torch.cat(cosines, -2)


def pull(assigned: Tensor, positions: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum of the neighbours' assignments, weighted or not.  [*B, C, U], [*B, Q, K] -> [*B, C, Q]

    One gather for each of the few neighbours: several times faster than one gather and a sum over them.
    """
    total = torch.zeros_like(assigned[..., :1])  # [*B, C, 1]
    for place in range(positions.shape[-1]):
        index = positions[..., place].unsqueeze(-2).expand(*assigned.shape[:-1], -1)  # [*B, C, Q]
        near = assigned.gather(-1, index)  # [*B, C, Q]
        total = total + (near if weights is None else near * weights[..., place].unsqueeze(-2))
    return total.expand(*total.shape[:-1], positions.shape[-2])
