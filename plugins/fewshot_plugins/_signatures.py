"""Class signatures: attribute tables of any scale made comparable, by what the seen classes show."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.arrays import unit
from fewshot.task import Task


def seen_mean(values: Tensor, seen: Tensor) -> Tensor:
    """Mean over the seen classes.  [*B, C, A], [*B, C] bool -> [*B, 1, A]"""
    weight = seen.to(values.dtype).unsqueeze(-1)  # [*B, C, 1]
    return (weight * values).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True).clamp_min(1)


def informative(task: Task) -> Tensor:
    """Which attributes differ between seen classes; nothing can be learned about the others.  -> [*B, 1, A] bool"""
    seen = task.seen().unsqueeze(-1)  # [*B, C, 1]
    high = task.attributes.masked_fill(~seen, -torch.inf).amax(-2, keepdim=True)  # [*B, 1, A]
    low = task.attributes.masked_fill(~seen, torch.inf).amin(-2, keepdim=True)  # [*B, 1, A]
    return high > low


def standardise(task: Task) -> Tensor:
    """Signatures as unit vectors of z-scores.  -> [*B, C, A]

    Each attribute is centred and scaled by its mean and deviation over the seen classes, so percentages, counts and
    zeros and ones mix freely; an attribute that is the same for all seen classes becomes 0. Then each class's row is
    scaled to length 1. Unseen classes have no say in the statistics: adding one changes no other class's row.
    """
    seen, useful = task.seen(), informative(task)
    centred = task.attributes - seen_mean(task.attributes, seen)  # [*B, C, A]
    deviation = seen_mean(centred.square(), seen).sqrt()  # [*B, 1, A]
    scaled = centred / torch.where(useful, deviation, torch.ones_like(deviation))
    return unit(torch.where(useful, scaled, torch.zeros_like(scaled)))  # [*B, C, A]


def binarise(task: Task) -> Tensor:
    """Which attributes each class has: 1 above the mean of the seen classes, 0 else.  -> [*B, C, A]

    A table of zeros and ones stays as it is (Lampert et al. threshold the AwA percentages at their mean likewise).
    """
    return (task.attributes > seen_mean(task.attributes, task.seen())).to(task.dtype)


def row_space(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Coordinates of the rows in their own span when that is smaller.  [*B, S, D] -> z [*B, S, R], basis [*B, D, R]

    R = min(S, D) and z = x @ basis. A ridge or logistic solution lies in the span of its examples, so a weight found
    for z gives basis @ weight for x. With S >= D the basis is None, for the identity.
    """
    if x.shape[-2] >= x.shape[-1]:
        return x, None
    basis, triangle = torch.linalg.qr(x.mT)  # [*B, D, S], [*B, S, S]
    return triangle.mT, basis


def from_row_space(weight: Tensor, basis: Tensor | None) -> Tensor:
    """Carry rows found in the coordinates of `row_space` back to embeddings.  [*B, K, R] -> [*B, K, D]"""
    return weight if basis is None else weight @ basis.mT
