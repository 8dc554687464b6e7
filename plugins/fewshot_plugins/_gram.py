"""Prototypes as combinations of a task's own rows, so that iterations need only the rows' inner products."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewshot import Task
from fewshot.arrays import TINY, unit


@dataclass(frozen=True, slots=True)
class Span:
    """The rows z_i of the support and the unlabelled items, and prototypes c_k = sum_i A_ki z_i in their span.

    Squared distances of prototypes to rows are |z_i|^2 - 2 (A G)_ki + (A G A^T)_kk with G the rows' inner products, so
    a method that moves prototypes within the span can loop on A, [C, n], and never touch D. Items lie along the last
    dim: with few classes, products and softmaxes in this layout are several times faster than in the other.
    """

    support: Tensor  # [*B, S, D]
    items: Tensor  # [*B, U, D]
    gram: Tensor | None  # [*B, n, n], n = S + U; None where n is so large that products with the rows are cheaper
    hot: Tensor  # [*B, C, S] one-hot labels, zero columns for padding
    means: Tensor  # [*B, C, n] the coefficients of the class means
    origin: Tensor | None = None  # [*B, 2, D] taken from the support and from the items, where they are centred
    length: Tensor | None = None  # [*B, 1, n] of the rows before they were scaled to 1

    def scores(self, coeff: Tensor) -> Tensor:
        """Half of |z_i|^2 - |z_i - c_k|^2, that is z_i.c_k - |c_k|^2 / 2.  [*B, C, n] -> [*B, C, n]"""
        if self.gram is None:
            prototypes = self.prototypes(coeff)  # [*B, C, D]
            dots = torch.cat([prototypes @ self.support.mT, prototypes @ self.items.mT], -1)  # [*B, C, n]
        else:
            dots = coeff @ self.gram  # [*B, C, n]
        half = (coeff * dots).sum(-1, keepdim=True).mul_(0.5)  # [*B, C, 1]
        return dots.sub_(half)

    def prototypes(self, coeff: Tensor) -> Tensor:
        """The prototypes themselves.  [*B, C, n] -> [*B, C, D]"""
        known = self.hot.shape[-1]
        if self.origin is None or self.length is None:
            return coeff[..., :known] @ self.support + coeff[..., known:] @ self.items
        coeff = coeff / self.length
        first, second = coeff[..., :known], coeff[..., known:]  # [*B, C, S], [*B, C, U]
        sums = torch.stack([first.sum(-1), second.sum(-1)], -1)  # [*B, C, 2]
        return first @ self.support + second @ self.items - sums @ self.origin

    def settle(self, steps: int = 5, temperature: float = 10.0) -> Tensor:
        """Scores of the unlabelled items after a few steps of soft k-means from the class means.  -> [*B, U, C]

        k-means knows no class shares, so it shows them better than the class means do: the guard looks at it.
        """
        known = self.hot.shape[-1]
        coeff, assigned = self.means, self.means.new_zeros(self.means.shape)  # [*B, C, n] each
        assigned[..., :known] = self.hot
        for _ in range(steps):
            scores = self.scores(coeff)[..., known:]  # [*B, C, U]
            assigned[..., known:] = scores.mul_(2 * temperature).softmax(-2)
            coeff = assigned / assigned.sum(-1, keepdim=True)
        return self.scores(coeff)[..., known:].mT


def span(task: Task, support: Tensor, items: Tensor) -> Span:
    """The span of support and unlabelled rows, transformed or as they are.  [*B, S, D], [*B, U, D]"""
    known, count = support.shape[-2], support.shape[-2] + items.shape[-2]
    hot = task.one_hot().mT.contiguous()  # [*B, C, S]
    means = hot.new_zeros(*hot.shape[:-1], count)  # [*B, C, n]
    means[..., :known] = hot / hot.sum(-1, keepdim=True)
    if count > 2 * support.shape[-1]:
        return Span(support, items, None, hot, means)
    gram = items.new_empty(*items.shape[:-2], count, count)  # [*B, n, n]
    gram[..., :known, :known] = support @ support.mT
    gram[..., known:, known:] = items @ items.mT
    gram[..., :known, known:] = support @ items.mT
    gram[..., known:, :known] = gram[..., :known, known:].mT
    return Span(support, items, gram, hot, means)


def centred(space: Span, middle: Tensor, centre: Tensor) -> Span:
    """The span of the rows (z - m) / |z - m| with m the middle of the support or the centre of the items.

    With a Gram matrix at hand the new one needs no product of rows:
    (z_i - m)(z_j - m') = z_i z_j - z_i m' - m z_j + m m'.

    Parameters
    ----------
    middle, centre
        m of the support and of the unlabelled items.  [*B, D] each
    """
    if space.gram is None:
        support, items = unit(space.support - middle.unsqueeze(-2)), unit(space.items - centre.unsqueeze(-2))
        return replace(space, support=support, items=items)
    known, count = space.hot.shape[-1], space.gram.shape[-1]
    origin = torch.stack([middle, centre], -2)  # [*B, 2, D]
    cross = torch.cat([origin @ space.support.mT, origin @ space.items.mT], -1)  # [*B, 2, n]
    split = [known, count - known]
    near, own = _spread(cross, split), _spread(_spread(origin @ origin.mT, split).mT, split)  # [*B, n, n] each
    gram = space.gram - near - near.mT + own
    length = gram.diagonal(0, -2, -1).clamp_min(TINY).sqrt()  # [*B, n]
    gram = gram / length.unsqueeze(-1) / length.unsqueeze(-2)
    return replace(space, gram=gram, origin=origin, length=length.unsqueeze(-2))


def _spread(pair: Tensor, split: list[int]) -> Tensor:
    """Repeat the first of two rows for each support row and the second for each item.  [*B, 2, m] -> [*B, n, m]"""
    parts = [x.unsqueeze(-2).expand(*x.shape[:-1], count, -1) for x, count in zip(pair.unbind(-2), split, strict=True)]
    return torch.cat(parts, -2)
