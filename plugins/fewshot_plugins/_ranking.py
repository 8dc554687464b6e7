"""Bilinear compatibility learned with ranking hinge losses, the family of DeViSE, ALE and SJE."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fewshot.task import Task
from fewshot_plugins._signatures import from_row_space, row_space

MOMENTUM = 0.9
BATCH = 1024  # most examples a step
Weigh = Callable[[Tensor], Tensor]  # hinge losses [*B, S, C] -> weight of each violator [*B, S, C]


def all_violators(hinge: Tensor) -> Tensor:
    """Every class that comes within the margin counts 1 (DeViSE).  [*B, S, C] -> [*B, S, C]"""
    return (hinge > 0).to(hinge.dtype)


def worst_violator(hinge: Tensor) -> Tensor:
    """Only the class furthest within the margin counts (SJE); equals share.  [*B, S, C] -> [*B, S, C]"""
    worst = ((hinge > 0) & (hinge == hinge.amax(-1, keepdim=True))).to(hinge.dtype)
    return worst / worst.sum(-1, keepdim=True).clamp_min(1)


def ranked_violators(hinge: Tensor) -> Tensor:
    """Each of r violators counts (1 + 1/2 + ... + 1/r) / r, so that the top of the ranking matters most (ALE)."""
    violators = all_violators(hinge)  # [*B, S, C]
    rank = torch.arange(1, hinge.shape[-1] + 1, dtype=hinge.dtype, device=hinge.device)  # [C]
    harmonic = torch.cat([rank.new_zeros(1), rank.reciprocal().cumsum(0) / rank])  # [C + 1]
    return violators * harmonic[violators.sum(-1, keepdim=True).long()]


def ranking_weights(task: Task, signatures: Tensor, weigh: Weigh, *, margin: float, rate: float, epochs: int) -> Tensor:
    """Class weights M's_k of a bilinear match z.M's_k trained by subgradient descent.

    The hinge of example i against seen class j is margin + z_i.M's_j - z_i.M's_y; the loss is the mean over examples of
    the hinges weighted by `weigh` (held constant in the step). M starts at 0, so nothing is random; momentum 0.9, and
    the rate falls to 0 along a cosine. M stays in the span of examples and signatures, where it is kept. Each of the
    `epochs` steps takes all examples; with more than `BATCH` of them the steps take turns with equal shares.
    signatures [*B, C, A] -> [*B, C, D]
    """
    x, basis = row_space(task.support * (task.labels >= 0).unsqueeze(-1))  # [*B, S, R]
    s, _ = row_space(signatures)  # [*B, C, K], K = min(C, A)
    match = x.new_zeros(*x.shape[:-2], s.shape[-1], x.shape[-1])  # [*B, K, R]
    shares = _shares(task, x)
    speed = match
    for epoch in range(epochs):
        z, own, rival = shares[epoch % len(shares)]  # [*B, n, R], [*B, n, 1], [*B, n, C]
        scores = z @ match.mT @ s.mT  # [*B, n, C]
        hinge = ((margin + scores - scores.gather(-1, own)) * rival).clamp_min_(0)  # [*B, n, C]
        pull = weigh(hinge)  # [*B, n, C]
        pull = pull.scatter_add(-1, own, -pull.sum(-1, keepdim=True))  # [*B, n, C] d loss / d scores
        n = rival.any(-1).sum(-1).clamp_min(1)[..., None, None]  # [*B, 1, 1]
        slope = (pull @ s).mT @ z / n  # [*B, K, R]
        speed = MOMENTUM * speed - rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs)) * slope
        match = match + speed
    return from_row_space(s @ match, basis)  # [*B, C, D]


def _shares(task: Task, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Examples in shares of at most `BATCH`: coordinates, own class, and which seen classes are rivals.

    Shares are dealt in the order along a fixed direction, so that the order of the examples does not matter.
    """
    own, rival = task.labels.clamp_min(0), task.seen().unsqueeze(-2) & (task.one_hot() == 0)  # [*B, S], [*B, S, C]
    rival = rival & (task.labels >= 0).unsqueeze(-1)  # [*B, S, C]
    count = math.ceil(own.shape[-1] / BATCH)
    if count == 1:
        return [(x, own.unsqueeze(-1), rival)]
    direction = torch.sin(torch.arange(1, task.dim + 1, dtype=task.dtype, device=task.device))  # [D]
    order = (task.support @ direction).argsort(-1).unsqueeze(-1)  # [*B, S, 1]
    parts = [order[..., start::count, :] for start in range(count)]  # [*B, n, 1]
    return [(_rows(x, part), _rows(own.unsqueeze(-1), part), _rows(rival, part)) for part in parts]


def _rows(x: Tensor, rows: Tensor) -> Tensor:
    """Pick rows.  [*B, S, K], [*B, n, 1] -> [*B, n, K]"""
    return x.gather(-2, rows.expand(*rows.shape[:-1], x.shape[-1]))
