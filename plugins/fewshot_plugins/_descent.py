"""Descent shared by the gradient strategies: batched over tasks, deterministic, without autograd."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fewshot.arrays import unit
from fewshot.task import Task, one_hot
from fewshot_plugins._holdout import ranks

ROWS = 2048  # examples a step; larger tasks take turns, a balanced share of every class at a time
MOMENTUM = 0.9

Batch = Callable[[int], tuple[Tensor, Tensor]]  # step -> examples [*B, n, D], labels [*B, n]


def batches(task: Task, rows: int = ROWS) -> Batch:
    """Give the examples of each step: all of them, or a share of about `rows` when there are more.

    Shares go by the rank of an example within its class, so neither the order of the examples nor a random state
    changes what is learned.
    """
    total = (task.labels >= 0).sum(-1, keepdim=True)  # [*B, 1]
    shares = (total + rows - 1) // rows  # [*B, 1]
    if task.labels.shape[-1] <= rows or bool((shares <= 1).all()):
        return lambda _: (task.support, task.labels)
    within, of_class = ranks(task)
    share = (within + of_class.gather(-1, task.labels.clamp_min(0))) % shares.clamp_min(1)  # [*B, S]

    def take(step: int) -> tuple[Tensor, Tensor]:
        chosen = (share == step % shares.clamp_min(1)) & (task.labels >= 0)  # [*B, S]
        many = int(chosen.sum(-1).max())
        index = chosen.to(torch.int8).argsort(stable=True, dim=-1, descending=True)[..., :many]  # [*B, n]
        labels = torch.where(chosen, task.labels, -1).gather(-1, index)  # [*B, n]
        return task.support.gather(-2, index.unsqueeze(-1).expand(*index.shape, task.dim)), labels

    return take


def cross_entropy_slope(logits: Tensor, labels: Tensor) -> Tensor:
    """Derivative of the mean cross-entropy by the logits; rows labelled -1 do not count.  -> [*B, n, C]"""
    counts = (labels >= 0).to(logits.dtype).unsqueeze(-1)  # [*B, n, 1]
    error = (logits.softmax(-1) - one_hot(labels, logits.shape[-1], logits.dtype)) * counts  # [*B, n, C]
    return error / counts.sum(-2, keepdim=True).clamp_min(1)


def cosine_slope(weight: Tensor, slope: Tensor) -> Tensor:
    """Derivative by w of a function of u = w / |w| whose derivative by u is `slope`.  [*B, C, D] x 2 -> [*B, C, D]"""
    direction = unit(weight)
    across = slope - direction * (direction * slope).sum(-1, keepdim=True)  # [*B, C, D]
    length: Tensor = torch.linalg.vector_norm(weight, dim=-1, keepdim=True)  # [*B, C, 1]
    return across / length.clamp_min(1e-12)


def cosine_rate(step: int, steps: int, rate: float) -> float:
    """Learning rate that falls from `rate` to 0 along half a cosine."""
    return rate * (1 + math.cos(math.pi * step / steps)) / 2


def adamw(
    start: Tensor, slope: Callable[[Tensor, int], Tensor], steps: int, rate: float, *, decay: float, eps: float
) -> Tensor:
    """AdamW with a cosine schedule. Loshchilov, Hutter 2019, arXiv:1711.05101; `slope(x, step)` is the gradient."""
    x, first, second = start, torch.zeros_like(start), torch.zeros_like(start)
    for step in range(steps):
        gradient, now = slope(x, step), cosine_rate(step, steps, rate)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.square()
        size = (second / (1 - 0.999 ** (step + 1))).sqrt() + eps
        x = x * (1 - now * decay) - now * first / (1 - 0.9 ** (step + 1)) / size
    return x


def sgd(start: Tensor, slope: Callable[[Tensor, int], Tensor], rates: list[float]) -> Tensor:
    """Gradient descent with momentum 0.9, one step for each learning rate."""
    x, velocity = start, torch.zeros_like(start)
    for step, rate in enumerate(rates):
        velocity = MOMENTUM * velocity + slope(x, step)
        x = x - rate * velocity
    return x
