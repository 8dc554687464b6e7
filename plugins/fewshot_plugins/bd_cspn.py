"""Prototype rectification (BD-CSPN). Liu, Song, Qin 2020, arXiv:1911.10713."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot.arrays import unit
from fewshot_plugins._gram import mean_rows
from fewshot_plugins._guard import SPREAD, AdaptedHead, choose, usable
from fewshot_plugins.prototypical import class_means

SHARPNESS = 2.0


def shift(task: Task) -> Tensor:
    """Cross-class bias xi: the mean of the support minus that of the unlabelled items.  -> [*B, D]"""
    valid = (task.labels >= 0).to(task.dtype)  # [*B, S]
    mean = (valid.unsqueeze(-2) @ task.support).squeeze(-2) / valid.sum(-1, keepdim=True)  # [*B, D]
    return mean - mean_rows(task.unlabeled)


def rectify(task: Task, mean: Tensor, xi: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """Move the class means with the unlabelled items.  -> prototypes [*B, C, D], inductive cosines [*B, U, C]

    Equations 5 and 6 of the paper: x' ranges over the support of class k and the shifted items z + xi nearest to c_k,
    and p_k = sum w x' with w = exp(e cos(x', c_k)) / sum exp(e cos(x', c_k)). The shifted items are never formed:
    cos(z + xi, c) = (z.c + xi.c) / (|c| sqrt(|z|^2 + 2 z.xi + |xi|^2)).
    """
    direction = unit(mean)  # [*B, C, D]
    hot = task.one_hot().mT  # [*B, C, S]
    known = torch.exp(sharpness * (direction @ unit(task.support).mT)) * hot  # [*B, C, S]
    dots = torch.cat([direction, xi.unsqueeze(-2)], -2) @ task.unlabeled.mT  # [*B, C + 1, U]
    plain, along = dots[..., :-1, :], dots[..., -1:, :]  # [*B, C, U], [*B, 1, U]
    length = (1 + 2 * along + xi.square().sum(-1)[..., None, None]).clamp_min(1e-12).sqrt()  # [*B, 1, U]
    cosine = (plain + direction @ xi.unsqueeze(-1)) / length  # [*B, C, U]
    free = torch.exp(sharpness * cosine) * (cosine == cosine.amax(-2, keepdim=True))  # [*B, C, U]
    share = free.sum(-1, keepdim=True)  # [*B, C, 1]
    total = known @ task.support + free @ task.unlabeled + share * xi.unsqueeze(-2)  # [*B, C, D]
    return total / (known.sum(-1, keepdim=True) + share), plain.mT


@dataclass(frozen=True)
class BdCspn(Strategy):
    """Average each class's examples with the unlabelled items nearest to it, shifted to the support's mean.

    With xi the mean of the support minus that of the unlabelled items, c_k the class means and X_k the support of class
    k together with the items z + xi whose nearest class mean by cosine is c_k,

        p_k = sum_{x in X_k} exp(e cos(x, c_k)) x / sum_{x in X_k} exp(e cos(x, c_k))

    (equations 1 to 6 of the paper); a query is scored by the cosine of z + xi to p_k, up to the length of z + xi.
    The paper has e = 10, with which one shot outweighs everything else in embeddings whose cosines are small: `lite` on
    the training splits of Caltech-101 and CIFAR-FS loses up to 3 points by it.
    """

    name = "bd_cspn"
    needs = frozenset({"support", "unlabeled"})
    paper = "Liu, Song, Qin 2020, arXiv:1911.10713"
    heads = (AdaptedHead,)
    sharpness: float = option(SHARPNESS, "factor e on the cosines that weigh items (paper: 10)", min=0.0, max=40.0)
    shifted: bool = option(True, "shift the unlabelled items and the queries to the support's mean")
    scale: float = option(20.0, "factor on the cosine; higher is more confident", min=0.0)
    guard: bool = option(True, "give the inductive answer when the unlabelled items are too few or too skewed")

    def fit(self, task: Task) -> AdaptedHead:
        """Rectify the class means.  -> weight [*B, C, D], bias [*B, C]"""
        mean = class_means(task)  # [*B, C, D]
        xi = shift(task) if self.shifted else torch.zeros_like(mean[..., 0, :])  # [*B, D]
        moved, plain = rectify(task, mean, xi, self.sharpness)
        used = usable(self.name, (plain, SPREAD), per_class=2, guard=self.guard)
        weight = self.scale * unit(choose(used, moved, mean))  # [*B, C, D]
        bias = (weight @ xi.unsqueeze(-1)).squeeze(-1)  # [*B, C]
        return AdaptedHead(weight, choose(used, bias, torch.zeros_like(bias)), used)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `bd_cspn`."""
    register(BdCspn)
