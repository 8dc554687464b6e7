"""Leave-one-out choices on the support set: no label outside of it is used."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.task import Task

SCALES = tuple(2.0 ** (i / 2) for i in range(2, 13))  # 2 to 64: factors tried on scores to make them logits


def repeated(task: Task) -> Tensor:
    """Which examples can be left out: those whose class has another.  -> [*B, S] bool"""
    hot = task.one_hot()  # [*B, S, C]
    return (hot * hot.sum(-2, keepdim=True)).sum(-1) > 1


def best_scale(scores: Tensor, task: Task, default: float) -> Tensor:
    """Find the factor on leave-one-out scores that gives the least log-loss.  [*B, S, C] -> [*B]

    `scores` of an example are those of the classifier fitted without it. A task with no such example, as with
    one shot a class, gets `default`.
    """
    test = repeated(task)  # [*B, S]
    target = task.labels.clamp_min(0).unsqueeze(-1)  # [*B, S, 1]
    losses = torch.stack([_loss(scale * scores, target, test) for scale in SCALES], -1)  # [*B, L]
    scale = scores.new_tensor(SCALES)[losses.argmin(-1)]  # [*B]
    return torch.where(test.any(-1), scale, scale.new_tensor(default))


def _loss(logits: Tensor, target: Tensor, test: Tensor) -> Tensor:
    picked = F.log_softmax(logits, -1).gather(-1, target).squeeze(-1)  # [*B, S]
    return -torch.where(test, picked, torch.zeros_like(picked)).sum(-1)
