"""Logistic regressions that share their examples, solved together. Boehning 1992, Ann. Inst. Stat. Math. 44."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewshot.task import Task
from fewshot_plugins._signatures import from_row_space, row_space
from fewshot_plugins._softmax import softmax_regression

Link = Callable[[Tensor], Tensor]  # scores [*B, S, K] -> probabilities [*B, S, K]


def logistic(x: Tensor, y: Tensor, real: Tensor, link: Link, c: float, steps: int) -> tuple[Tensor, Tensor]:
    """Weights and intercepts minimising |w|^2 / 2 + c sum of the cross-entropies.  -> [*B, K, D], [*B, K]

    `x` [*B, S, D] are the examples, `y` [*B, S, K] their targets in [0, 1], `real` [*B, S] is 0 for padding; `link` is
    the sigmoid for K separate regressions, or a softmax for one of K classes. The intercept is not penalised; `c` is
    scikit-learn's C.

    The Hessian of either loss is nowhere above z' z / 2 (z' z / 4 for the sigmoid), z being x with a column of ones
    (Boehning 1992), so one Cholesky factor of that bound serves all K regressions in all steps; each step goes down
    for certain, and Nesterov's momentum, restarted where it would go up, makes the steps few. It ends after `steps`,
    or when a step changes no weight by more than half the digits.
    """
    z, basis = row_space(x * real.unsqueeze(-1))  # [*B, S, R]
    z = torch.cat([z, real.unsqueeze(-1)], -1)  # [*B, S, R + 1]
    ridge = torch.full((z.shape[-1],), 1 / c, dtype=x.dtype, device=x.device)  # [R + 1]
    ridge[-1] = 1e-6  # the intercept is free but for this, which keeps the factor regular
    bend = 0.25 if link is torch.sigmoid else 0.5
    factor = torch.linalg.cholesky(bend * z.mT @ z + torch.diag(ridge))  # [*B, R + 1, R + 1]
    weight = z.new_zeros(*z.shape[:-2], z.shape[-1], y.shape[-1])  # [*B, R + 1, K]
    ahead, momentum = weight, torch.ones_like(weight[..., :1, :])
    for _ in range(steps):
        slope = z.mT @ (real.unsqueeze(-1) * (link(z @ ahead) - y)) + ridge.unsqueeze(-1) * ahead
        new = ahead - torch.cholesky_solve(slope, factor)  # [*B, R + 1, K]
        change = new - weight
        upwards = (slope * change).sum(-2, keepdim=True) > 0  # [*B, 1, K]
        grown = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        ahead = new + torch.where(upwards, 0.0, (momentum - 1) / grown) * change
        weight, momentum = new, torch.where(upwards, 1.0, grown)
        if bool((_largest(change) <= torch.finfo(x.dtype).eps ** 0.5 * _largest(weight)).all()):
            break
    return from_row_space(weight[..., :-1, :].mT, basis), weight[..., -1, :]


def _largest(x: Tensor) -> Tensor:
    return x.abs().amax((-2, -1))  # [*B]


def seen_classifier(task: Task, c: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression over the seen classes.  -> [*B, C, D], [*B, C] with -inf for unseen ones"""
    unseen, penalty = ~task.seen(), task.support.new_full(task.batch_shape, 1 / c)  # [*B, C], [*B]
    weight, bias = softmax_regression(task.support, task.one_hot(), penalty, shut=unseen, tolerance=tolerance)
    return weight, bias.masked_fill(unseen, -torch.inf)


def probabilities(query: Tensor, weight: Tensor, intercept: Tensor) -> Tensor:
    """p(class | query) of a multinomial logistic regression.  [*B, Q, D] -> [*B, Q, C]"""
    return (query @ weight.mT + intercept.unsqueeze(-2)).softmax(-1)
