"""Prototypes as combinations of a task's own rows, so that iterations need only the rows' inner products."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import Task


@dataclass(frozen=True, slots=True)
class Span:
    """The rows z_i of the support and the unlabelled items, and prototypes c_k = sum_i A_ki z_i in their span.

    Squared distances of prototypes to rows are |z_i|^2 - 2 (A G)_ki + (A G A^T)_kk with G the rows' inner products, so
    a method that moves prototypes within the span can loop on A, [C, n], and never touch D. Items lie along the last
    dim: with few classes, products and softmaxes in this layout are several times faster than in the other.
    """

    rows: Tensor  # [*B, n, D] with n = S + U
    gram: Tensor | None  # [*B, n, n]; None where n is so large that two products with the rows are cheaper
    hot: Tensor  # [*B, C, S] one-hot labels, zero columns for padding
    means: Tensor  # [*B, C, n] the coefficients of the class means

    def scores(self, coeff: Tensor) -> Tensor:
        """Half of |z_i|^2 - |z_i - c_k|^2, that is z_i.c_k - |c_k|^2 / 2.  [*B, C, n] -> [*B, C, n]"""
        dots = self.prototypes(coeff) @ self.rows.mT if self.gram is None else coeff @ self.gram  # [*B, C, n]
        half = (coeff * dots).sum(-1, keepdim=True).mul_(0.5)  # [*B, C, 1]
        return dots.sub_(half)

    def prototypes(self, coeff: Tensor) -> Tensor:
        """The prototypes themselves.  [*B, C, n] -> [*B, C, D]"""
        return coeff @ self.rows

    def settle(self, steps: int = 5, temperature: float = 10.0) -> Tensor:
        """Scores of the unlabelled items after a few steps of soft k-means from the class means.  -> [*B, U, C]

        k-means knows no class shares, so it shows them better than the class means do: the guard looks at it.
        """
        support = self.hot.shape[-1]
        coeff, assigned = self.means, self.means.new_zeros(self.means.shape)  # [*B, C, n] each
        assigned[..., :support] = self.hot
        for _ in range(steps):
            scores = self.scores(coeff)[..., support:]  # [*B, C, U]
            assigned[..., support:] = scores.mul_(2 * temperature).softmax(-2)
            coeff = assigned / assigned.sum(-1, keepdim=True)
        return self.scores(coeff)[..., support:].mT


def span(task: Task, support: Tensor, unlabeled: Tensor) -> Span:
    """The span of support and unlabelled rows, transformed or as they are.  [*B, S, D], [*B, U, D]"""
    rows = torch.cat([support, unlabeled], -2)  # [*B, n, D]
    gram = rows @ rows.mT if rows.shape[-2] <= 2 * rows.shape[-1] else None
    hot = task.one_hot().mT.contiguous()  # [*B, C, S]
    means = hot.new_zeros(*hot.shape[:-1], rows.shape[-2])  # [*B, C, n]
    means[..., : hot.shape[-1]] = hot / hot.sum(-1, keepdim=True)
    return Span(rows, gram, hot, means)
