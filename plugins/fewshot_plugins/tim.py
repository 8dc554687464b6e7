"""Transductive information maximisation (TIM). Boudiaf et al. 2020, arXiv:2008.11297."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot_plugins._gram import Span, span
from fewshot_plugins._guard import EVENNESS, SPREAD, AdaptedHead, choose, usable
from fewshot_plugins._information import descend
from fewshot_plugins.prototypical import class_means


def alternate(space: Span, cross_entropy: float, conditional: float, temperature: float, steps: int) -> Tensor:
    """Minimise the objective by TIM-ADM, alternating closed forms.  -> coefficients of the prototypes [*B, C, n]

    With p_ik = softmax_k(-t/2 |z_i - w_k|^2), auxiliary q and a the weight of the conditional entropy (proposition 1):

        q_ik is proportional to p_ik^(1+a) / (sum_{i in Q} p_ik^(1+a))^(1/2)
        w_k <- [s sum_S (y_ik z_i + p_ik (w_k - z_i)) + r sum_Q (q_ik z_i + p_ik (w_k - z_i))]
               / (s sum_S y_ik + r sum_Q q_ik)

    where s = l / (1+a), l the weight of the cross-entropy, and r = |S| / |Q|. Every w_k stays in the span of the rows.
    """
    hot, support = space.hot, space.hot.shape[-1]
    items = space.items.shape[-2]
    valid = hot.sum(-2, keepdim=True)  # [*B, 1, S]
    s, r = cross_entropy / (1 + conditional), valid.sum(-1, keepdim=True) / items  # float, [*B, 1, 1]
    weight = torch.cat([s * valid, r.expand(*r.shape[:-1], items)], -1)  # [*B, 1, n]
    truth = s * hot  # [*B, C, S]
    fixed = truth.sum(-1, keepdim=True)  # [*B, C, 1]
    tiny = torch.finfo(hot.dtype).tiny
    coeff = space.means.clone()
    for _ in range(steps):
        log_p = space.scores(coeff).mul_(temperature).log_softmax(-2)  # [*B, C, n]
        power = log_p[..., support:].mul(1 + conditional).exp_()  # [*B, C, U]
        q = power.mul_(power.sum(-1, keepdim=True).clamp_min_(tiny).rsqrt_())  # [*B, C, U]
        q.mul_(r / q.sum(-2, keepdim=True))  # r q_ik
        p = log_p.exp_().mul_(weight)  # [*B, C, n] s p_ik or r p_ik
        coeff.mul_(p.sum(-1, keepdim=True)).sub_(p)
        coeff[..., :support] += truth
        coeff[..., support:] += q
        coeff /= fixed + q.sum(-1, keepdim=True)
    return coeff


@dataclass(frozen=True)
class Tim(Strategy):
    """Move the class means so that predictions for the unlabelled items are confident, yet spread over all classes.

    With p_ik = softmax_k(-t/2 |z_i - w_k|^2) and m_k the mean of p_ik over the unlabelled items Q, minimise

        l CE(S) - H(m) + a mean_Q H(p_i),    w_k from the class means

    by alternating closed forms (`solver=adm`) or by Adam on the prototypes (`solver=gd`). H(m) favours equal shares of
    the classes: skewed unlabelled items are where the guard falls back to the class means.
    """

    name = "tim"
    needs = frozenset({"support", "unlabeled"})
    speed = "iterative"
    paper = "Boudiaf et al. 2020, arXiv:2008.11297"
    heads = (AdaptedHead,)
    solver: str = option("adm", "adm: closed-form alternation; gd: Adam on the prototypes", choices=("adm", "gd"))
    steps: int = option(150, "iterations; the paper has 150 for adm and 1000 for gd", min=0)
    cross_entropy: float = option(0.1, "weight l of the support's cross-entropy (paper: 0.1)", min=0.0)
    conditional: float = option(0.1, "weight a of the conditional entropy (paper: 0.1)", min=0.0)
    temperature: float = option(15.0, "factor t on the squared distances (paper: 15)", min=0.0)
    rate: float = option(1e-4, "step size of gd (paper: 1e-4)", min=0.0)
    guard: bool = option(True, "give the inductive answer when the unlabelled items are too few or too skewed")

    def fit(self, task: Task) -> AdaptedHead:
        """Adapt the class means.  -> weight [*B, C, D], bias [*B, C]"""
        mean = class_means(task)  # [*B, C, D]
        space = span(task, task.support, task.unlabeled)
        plain = self._head(mean, None).logits(task.unlabeled)  # [*B, U, C]
        used = usable(self.name, (plain, SPREAD), (space.settle(), EVENNESS), per_class=2, guard=self.guard)
        if self.solver == "adm":
            moved = space.prototypes(
                alternate(space, self.cross_entropy, self.conditional, self.temperature, self.steps)
            )
        else:
            weights = (self.cross_entropy, 1.0, self.conditional)
            moved = descend(task, mean, weights, 1.0, self.temperature, self.rate, self.steps)
        return self._head(choose(used, moved, mean), used)

    def _head(self, prototypes: Tensor, used: Tensor | None) -> AdaptedHead:
        """-t/2 |z - w|^2 without the term -t/2 |z|^2, which is the same for every class."""
        return AdaptedHead(self.temperature * prototypes, -self.temperature / 2 * prototypes.square().sum(-1), used)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `tim`."""
    register(Tim)
