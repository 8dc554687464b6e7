"""Prototype rectification, one item after the other: the paper's equations 1 to 6 (Liu, Song, Qin 2020)."""

import math

import torch
from torch import Tensor

from fewshot import Task


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def rectified(task: Task, sharpness: float, shifted: bool = True) -> tuple[Tensor, Tensor]:
    """Prototypes [C, D] and the shift xi [D]."""
    support = [(x, int(k)) for x, k in zip(task.support, task.labels, strict=True) if k >= 0]
    xi = torch.stack([x for x, _ in support]).mean(0) - task.unlabeled.mean(0)
    xi = xi if shifted else torch.zeros_like(xi)
    means = [torch.stack([x for x, k in support if k == c]).mean(0) for c in range(task.classes)]
    members = list(support)
    for z in task.unlabeled:
        scores = [cosine(z + xi, m) for m in means]
        members.append((z + xi, scores.index(max(scores))))
    prototypes = []
    for c, mean in enumerate(means):
        own = [x for x, k in members if k == c]
        weights = [math.exp(sharpness * cosine(x, mean)) for x in own]
        prototypes.append(
            sum((w * x for w, x in zip(weights, own, strict=True)), torch.zeros_like(mean)) / sum(weights)
        )
    return torch.stack(prototypes), xi
