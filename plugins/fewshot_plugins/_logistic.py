"""Logistic regressions that share their examples, solved together. Boehning 1992, Ann. Inst. Stat. Math. 44."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewshot.task import Task
from fewshot_plugins._signatures import from_row_space, row_space

Link = Callable[[Tensor], Tensor]  # scores [*B, S, K] -> probabilities [*B, S, K]


def logistic(x: Tensor, y: Tensor, real: Tensor, link: Link, penalty: float, steps: int) -> tuple[Tensor, Tensor]:
    """Weights and intercepts minimising mean cross-entropy + penalty/2 |w|^2.  -> [*B, K, D], [*B, K]

    `x` [*B, S, D] are the examples, `y` [*B, S, K] their targets in [0, 1], `real` [*B, S] is 0 for padding; `link` is
    the sigmoid for K separate regressions, or a softmax for one of K classes. The intercept is not penalised.

    The Hessian of either loss is nowhere above z' z / 2 (z' z / 4 for the sigmoid), z being x with a column of ones
    (Boehning 1992), so one Cholesky factor of that bound serves all K regressions in all steps; each step goes down
    for certain, and Nesterov's momentum, restarted where it would go up, makes the steps few.
    """
    z, basis = row_space(x * real.unsqueeze(-1))  # [*B, S, R]
    z = torch.cat([z, real.unsqueeze(-1)], -1)  # [*B, S, R + 1]
    n = real.sum(-1).clamp_min(1)[..., None, None]  # [*B, 1, 1]
    ridge = torch.full((z.shape[-1],), penalty, dtype=x.dtype, device=x.device)
    ridge[-1] = 1e-6  # the intercept is free but for this, which keeps the factor regular
    bend = 0.25 if link is torch.sigmoid else 0.5
    factor = torch.linalg.cholesky(bend * z.mT @ z / n + torch.diag(ridge))  # [*B, R + 1, R + 1]
    weight = z.new_zeros(*z.shape[:-2], z.shape[-1], y.shape[-1])  # [*B, R + 1, K]
    ahead, momentum = weight, torch.ones_like(weight[..., :1, :])
    for _ in range(steps):
        slope = z.mT @ (real.unsqueeze(-1) * (link(z @ ahead) - y)) / n + ridge.unsqueeze(-1) * ahead
        move = torch.cholesky_solve(slope, factor)  # [*B, R + 1, K]
        new = ahead - move
        upwards = (slope * (new - weight)).sum(-2, keepdim=True) > 0  # [*B, 1, K]
        grown = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        ahead = new + torch.where(upwards, 0.0, (momentum - 1) / grown) * (new - weight)
        weight, momentum = new, torch.where(upwards, 1.0, grown)
    return from_row_space(weight[..., :-1, :].mT, basis), weight[..., -1, :]


def seen_classifier(task: Task, penalty: float, steps: int) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression over the seen classes.  -> [*B, C, D], [*B, C] with -inf for unseen ones"""
    hot, hidden = task.one_hot(), ~task.seen()  # [*B, S, C], [*B, C]

    def link(scores: Tensor) -> Tensor:
        return scores.masked_fill(hidden.unsqueeze(-2), -torch.inf).softmax(-1)

    weight, intercept = logistic(task.support, hot, hot.sum(-1), link, penalty, steps)
    return weight, intercept.masked_fill(hidden, -torch.inf)


def probabilities(query: Tensor, weight: Tensor, intercept: Tensor) -> Tensor:
    """p(class | query) of a multinomial logistic regression.  [*B, Q, D] -> [*B, Q, C]"""
    return (query @ weight.mT + intercept.unsqueeze(-2)).softmax(-1)
