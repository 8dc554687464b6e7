"""Bilinear compatibility learned with ranking hinge losses, the family of DeViSE, ALE and SJE."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fewshot.task import Task
from fewshot_plugins._signatures import from_row_space, row_space

MOMENTUM = 0.9
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
    """Class weights M's_k of a bilinear match z.M's_k trained by subgradient descent on the whole support.

    The hinge of example i against seen class j is margin + z_i.M's_j - z_i.M's_y; the loss is the mean over examples of
    the hinges weighted by `weigh` (held constant in the step). M starts at 0, so nothing is random; momentum 0.9, and
    the rate falls to 0 along a cosine. M stays in the span of examples and signatures, where it is kept.
    signatures [*B, C, A] -> [*B, C, D]
    """
    hot = task.one_hot()  # [*B, S, C]
    real, rival = hot.sum(-1, keepdim=True), task.seen().unsqueeze(-2) & (hot == 0)  # [*B, S, 1], [*B, S, C]
    x, basis = row_space(task.support * real)  # [*B, S, R]
    s, _ = row_space(signatures)  # [*B, C, K], K = min(C, A)
    n = real.sum(-2, keepdim=True).clamp_min(1)  # [*B, 1, 1]
    match = x.new_zeros(*x.shape[:-2], s.shape[-1], x.shape[-1])  # [*B, K, R]
    speed = match
    for epoch in range(epochs):
        scores = x @ match.mT @ s.mT  # [*B, S, C]
        hinge = (margin + scores - (hot * scores).sum(-1, keepdim=True)) * rival * real  # [*B, S, C]
        pull = weigh(hinge.clamp_min(0))  # [*B, S, C]
        pull = pull - hot * pull.sum(-1, keepdim=True)  # [*B, S, C] d loss / d scores
        slope = (pull @ s).mT @ x / n  # [*B, K, R]
        speed = MOMENTUM * speed - rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs)) * slope
        match = match + speed
    return from_row_space(s @ match, basis)  # [*B, C, D]
