"""Gaussian mixtures with diagonal covariances, started from text: shared by TransCLIP and StatA."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot import Task
from fewshot.arrays import unit
from fewshot.task import one_hot
from fewshot_plugins.prototypical import class_means
from fewshot_plugins.zero_shot import phrase_means

FLOOR = 1e-6  # least variance of a dim of a unit-norm embedding
CONFIDENT = 8  # unlabelled items a class that its mean starts from


def text_weights(task: Task) -> Tensor:
    """Unit-norm mean of each class's phrases.  -> [*B, C, D]"""
    return unit(phrase_means(task))


def inductive_weights(task: Task, text: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The answer without unlabelled items: text, and prototypes where every class has an example.

    scale (z.t_k - |z - c_k|^2) as a linear head.  -> weight [*B, C, D], bias [*B, C]
    """
    mean = class_means(task)  # [*B, C, D]
    whole = task.seen().all(-1)[..., None, None].to(task.dtype)  # [*B, 1, 1]
    return scale * (text + 2 * whole * mean), -scale * whole.squeeze(-1) * mean.square().sum(-1)


def start_means(task: Task, prior: Tensor) -> Tensor:
    """Class means of the support; of the items the text is surest of, for a class without examples.  -> [*B, C, D]"""
    count = min(CONFIDENT, prior.shape[-2])
    best = prior.topk(count, -2).indices.mT  # [*B, C, K] items
    chosen = one_hot(best, prior.shape[-2], prior.dtype).sum(-2)  # [*B, C, U]
    sure = chosen @ task.unlabeled / count  # [*B, C, D]
    return torch.where(task.seen().unsqueeze(-1), class_means(task), sure)


def log_density(rows: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Compute log N(z_i; mu_k, diag variance_k) without the constant of pi.  [*B, n, D], [*B, C, D] x2 -> [*B, n, C]

    -1/2 (sum_d z^2/v - 2 z mu/v + mu^2/v + log v) as two products, so that no [n, C, D] tensor is formed. `variance`
    may be [*B, 1, D], shared by the classes.
    """
    precision = 1 / variance  # [*B, C or 1, D]
    constant = (mean.square() * precision).sum(-1) + variance.log().sum(-1)  # [*B, C]
    return (rows.square() @ precision.mT) * -0.5 + rows @ (mean * precision).mT - 0.5 * constant.unsqueeze(-2)
