"""Mixture of Dirichlets on the text's probabilities (EM-Dirichlet). Martin et al. 2024, arXiv:2405.18437."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot_plugins._gaussian import inductive_weights, text_weights
from fewshot_plugins._guard import SPREAD, choose, usable

LEAST = -34.5  # log of 1e-15, below which a probability counts as that
LARGEST = 1e3  # bound on Dirichlet parameters: a class of one item would have them infinite
NEWTON_STEPS = 10


@dataclass(frozen=True, slots=True)
class DirichletHead:
    """Log density of a Dirichlet a class, at the probabilities that the text gives a query."""

    text: Tensor  # [*B, C, D] the text's logits are query @ text.mT
    exponent: Tensor  # [*B, C, C] Dirichlet parameters minus one, a row a class; zero where not used
    weight: Tensor  # [*B, C, D] the inductive answer; zero where not used
    bias: Tensor  # [*B, C]
    used: Tensor  # [*B] bool; False: the guard fell back to the inductive answer

    def logits(self, query: Tensor) -> Tensor:
        """Score queries.  [*B, Q, D] -> [*B, Q, C]"""
        log_u = log_probabilities(query, self.text)  # [*B, Q, C]
        return log_u @ self.exponent.mT + query @ self.weight.mT + self.bias.unsqueeze(-2)


def log_probabilities(rows: Tensor, text: Tensor) -> Tensor:
    """Return log softmax(rows @ text.mT), not below log 1e-15.  [*B, n, D], [*B, C, D] -> [*B, n, C]"""
    return (rows @ text.mT).log_softmax(-1).clamp_min(LEAST)


def fit_dirichlet(target: Tensor, start: Tensor, steps: int = NEWTON_STEPS) -> Tensor:
    """Parameters of greatest likelihood, by Newton's method.  target, start [*B, C, M] -> [*B, C, M]

    The mean log-likelihood log G(s) - sum_j log G(a_j) + sum_j (a_j - 1) y_j, s = sum_j a_j, is concave with gradient
    g_j = psi(s) - psi(a_j) + y_j and Hessian psi'(s) 1 1^T - diag psi'(a), inverted by Sherman and Morrison's formula
    (Minka 2000, Estimating a Dirichlet distribution). A step changes no parameter by more than a factor of 4.

    Parameters
    ----------
    target
        y, the weighted mean of log u over the items of each class.
    start
        where to begin; positive.
    """
    alpha = start
    for _ in range(steps):
        total = alpha.sum(-1, keepdim=True)  # [*B, C, 1]
        gradient = torch.digamma(total) - torch.digamma(alpha) + target  # [*B, C, M]
        curve = torch.polygamma(1, alpha)  # [*B, C, M]
        inner = (gradient / curve).sum(-1, keepdim=True)  # [*B, C, 1]
        outer = 1 / torch.polygamma(1, total) - (1 / curve).sum(-1, keepdim=True)  # [*B, C, 1] positive
        moved = alpha + (gradient + inner / outer.clamp_min(1e-12)) / curve
        alpha = torch.minimum(torch.maximum(moved, alpha / 4), alpha * 4).clamp(1e-6, LARGEST)
    return alpha


def log_normaliser(alpha: Tensor) -> Tensor:
    """Return log G(sum_j a_j) - sum_j log G(a_j).  [*B, C, M] -> [*B, C]"""
    return torch.lgamma(alpha.sum(-1)) - torch.lgamma(alpha).sum(-1)


@dataclass(frozen=True)
class EmDirichlet(Strategy):
    """Cluster the unlabelled items by the probabilities that the text gives them.

    With u_i = softmax(T z_i.t_k), a Dirichlet of parameters alpha_k for each class and Q the unlabelled items, repeat

        alpha_k <- argmax sum_i a_ik log Dir(u_i; alpha_k)     over the support (a = its labels) and Q
        pi_k    <- mean_Q a_ik
        a_ik    <- Dir(u_i; alpha_k) pi_k^m / (its sum over k)

    from a = u (section 3 of the paper). The power m of the shares favours few classes (a description length): the paper
    has m = C / 5, for batches of some five classes. With more it can lose most classes that the inductive answer finds;
    the guard then falls back to that. The head scores a query by log Dir(u; alpha_k) + m log pi_k.

    T = 30, the paper's, scores 62.5 % on average over three training splits and sign_digits at 1 to 8 shots; 15, 60
    and 200 score 61.4, 62.9 and 63.0 % (benchmarks/constants.py). Most of that is the inductive answer, since with
    `lite` the mixtures lose their classes.
    """

    name = "em_dirichlet"
    needs = frozenset({"text", "unlabeled"})
    uses = frozenset({"support"})
    unseen = True
    speed = "iterative"
    paper = "Martin, Huang, Shakeri, Pesquet, Ben Ayed 2024, arXiv:2405.18437"
    heads = (DirichletHead,)
    temperature: float = option(30.0, "factor T on the cosine to the text (paper: 30)", min=0.0)
    length: float | None = option(None, "m, weight of the description length; none: C / 5 (paper)", min=0.0)
    steps: int = option(20, "rounds of the three updates (paper: 20)", min=1)
    guard: bool = option(True, "give the inductive answer when the unlabelled items are too few or too skewed")

    def fit(self, task: Task) -> DirichletHead:
        """Fit the mixture.  -> text [*B, C, D], exponent [*B, C, C], bias [*B, C]"""
        direction = text_weights(task)  # [*B, C, D]
        weight, bias = inductive_weights(task, direction, 100.0)
        plain = task.unlabeled @ weight.mT + bias.unsqueeze(-2)  # [*B, U, C]
        text = self.temperature * direction
        alpha, share = self._mixture(task, text)
        offset = log_normaliser(alpha) + share  # [*B, C]
        found = log_probabilities(task.unlabeled, text) @ (alpha - 1).mT + offset.unsqueeze(-2)  # [*B, U, C]
        used = usable(self.name, (plain, SPREAD), (found, SPREAD), per_class=2, guard=self.guard)
        none = torch.zeros_like(weight)
        return DirichletHead(
            text=text,
            exponent=choose(used, alpha - 1, torch.zeros_like(alpha)),
            weight=choose(used, none, weight),
            bias=choose(used, offset, bias),
            used=used,
        )

    def _mixture(self, task: Task, text: Tensor) -> tuple[Tensor, Tensor]:
        """Dirichlet parameters [*B, C, C] and m log pi [*B, C]."""
        items, classes = task.unlabeled.shape[-2], task.classes
        length = classes / 5 if self.length is None else self.length
        hot = task.one_hot()  # [*B, S, C]
        log_u = log_probabilities(torch.cat([task.support, task.unlabeled], -2), text)  # [*B, S + U, C]
        free = log_u[..., hot.shape[-2] :, :]  # [*B, U, C]
        a = free.exp()  # [*B, U, C]
        alpha = a.new_ones(*a.shape[:-2], classes, classes)  # [*B, C, C]
        shares = torch.zeros_like(a[..., 0, :])  # [*B, C]
        for _ in range(self.steps):
            every = torch.cat([hot, a], -2)  # [*B, S + U, C]
            mass = every.sum(-2).unsqueeze(-1)  # [*B, C, 1]
            target = every.mT @ log_u / mass.clamp_min(1e-9)  # [*B, C, C]
            alpha = torch.where(mass > 1e-9, fit_dirichlet(target, alpha), alpha)
            shares = length * (a.sum(-2) / items).clamp_min(1e-15).log()  # [*B, C]
            a = (free @ (alpha - 1).mT + (log_normaliser(alpha) + shares).unsqueeze(-2)).softmax(-1)
        return alpha, shares


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `em_dirichlet`."""
    register(EmDirichlet)
