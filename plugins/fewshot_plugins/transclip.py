"""Transduction for vision-language models (TransCLIP). Zanella, Gerin, Ben Ayed 2024, arXiv:2406.01837."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot_plugins._gaussian import FLOOR, inductive_weights, log_density, start_means, text_weights
from fewshot_plugins._graph import nearest, pull
from fewshot_plugins._guard import SPREAD, AdaptedHead, choose, usable


@dataclass(frozen=True)
class TransClip(Strategy):
    """A Gaussian mixture over the unlabelled items, held near the text's answer and smooth over neighbours.

    With y_i = softmax(scale z_i.t_k) the text's answer, p_ik = N(z_i; mu_k, diag v) with variances v shared by the
    classes, w_ij = max(0, z_i.z_j) for the K nearest neighbours j of i and 0 else, Q the unlabelled items and S the
    support (if any), whose assignments a are their labels, repeat (equations 6 to 10 of the paper; `inner` times the
    first line)

        a_ik <- y_ik^l p_ik exp(sum_j w_ij a_jk) / (its sum over k)                          i in Q
        mu_k <- (g/|S| sum_S a_ik z_i + 1/|Q| sum_Q a_ik z_i) / (g/|S| sum_S a_ik + 1/|Q| sum_Q a_ik)
        v_d  <- (g/|S| sum_S sum_k a_ik (z_id - mu_kd)^2 + 1/|Q| sum_Q sum_k a_ik (z_id - mu_kd)^2) / (g + 1)

    The head is y_ik^l p_ik, which is linear in z because v is shared. Neighbours shape the mixture but not the head.

    The paper chooses g on validation labels, from 0.002 to 0.2. Over three training splits and sign_digits at 1 to 8
    shots 0.2 scores 60.2 % on average, and 0.02, 0.01 and 0.002 59.1, 59.1 and 59.0 % (benchmarks/constants.py).
    """

    name = "transclip"
    needs = frozenset({"text", "unlabeled"})
    uses = frozenset({"support"})
    unseen = True
    speed = "iterative"
    paper = "Zanella, Gerin, Ben Ayed 2024, arXiv:2406.01837"
    heads = (AdaptedHead,)
    scale: float = option(100.0, "factor on the cosine to the text (CLIP's own is 100)", min=0.0)
    trust: float | None = option(
        None, "l, weight of the text's answer; none: 1 without support, 0.5 with (paper)", min=0.0
    )
    gamma: float = option(0.2, "g, weight of the support against the unlabelled items", min=0.0)
    neighbours: int = option(3, "K, nearest neighbours of an item (paper: 3)", min=1)
    steps: int = option(10, "rounds of the three updates (paper: 10)", min=1)
    inner: int = option(5, "updates of the assignments in a round (paper: 5)", min=1)
    guard: bool = option(True, "give the inductive answer when the unlabelled items are too few or too skewed")

    def fit(self, task: Task) -> AdaptedHead:
        """Fit the mixture.  -> weight [*B, C, D], bias [*B, C]"""
        text = text_weights(task)  # [*B, C, D]
        weight, bias = inductive_weights(task, text, self.scale)
        plain = task.unlabeled @ weight.mT + bias.unsqueeze(-2)  # [*B, U, C]
        used = usable(self.name, (plain, SPREAD), per_class=2, guard=self.guard)
        seen = (task.labels >= 0).any(-1)[..., None, None].to(task.dtype)  # [*B, 1, 1]
        trust = 1 - 0.5 * seen if self.trust is None else torch.full_like(seen, self.trust)
        prior = trust * self.scale * (task.unlabeled @ text.mT)  # [*B, U, C]
        mean, variance = self._mixture(task, prior)
        moved = trust * self.scale * text + mean / variance  # [*B, C, D]
        offset = -0.5 * (mean.square() / variance).sum(-1)  # [*B, C]
        return AdaptedHead(choose(used, moved, weight), choose(used, offset, bias), used)

    def _mixture(self, task: Task, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Means [*B, C, D] and shared variances [*B, 1, D], from the text's log answer [*B, U, C]."""
        items, hot = task.unlabeled, task.one_hot()  # [*B, U, D], [*B, S, C]
        known = hot * (self.gamma / hot.sum((-2, -1), keepdim=True).clamp_min(1))  # [*B, S, C]
        rows = torch.cat([task.support, items], -2)  # [*B, S + U, D]
        squares = rows.square()
        positions, cosine = nearest(items, self.neighbours)  # [*B, U, K]
        affinity = cosine.clamp_min(0)
        a = prior.softmax(-1)  # [*B, U, C]
        mean = start_means(task, a)  # [*B, C, D]
        variance = torch.full_like(mean[..., :1, :], 1 / task.dim)  # [*B, 1, D]
        for _ in range(self.steps):
            unary = prior + log_density(items, mean, variance)  # [*B, U, C]
            for _ in range(self.inner):
                a = (unary + pull(a.mT, positions, affinity).mT).softmax(-1)
            share = torch.cat([known, a / items.shape[-2]], -2)  # [*B, S + U, C]
            total = share.sum(-2).unsqueeze(-1)  # [*B, C, 1]
            mean = torch.where(total > 1e-9, share.mT @ rows / total.clamp_min(1e-9), mean)
            # sum_ik a_ik (z_i - mu_k)^2 = sum_i a_i. z_i^2 - sum_k a_.k mu_k^2 once mu_k is the weighted mean
            spread = share.sum(-1, keepdim=True).mT @ squares - (total * mean.square()).sum(-2, keepdim=True)
            variance = (spread / share.sum((-2, -1), keepdim=True)).clamp_min(FLOOR)  # [*B, 1, D]
        return mean, variance


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `transclip`."""
    register(TransClip)
