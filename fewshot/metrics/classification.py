"""Metrics of predicted classes, all derived from one confusion matrix an episode. A label below 0 is left out."""

from __future__ import annotations

import torch
from torch import Tensor


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count queries by true class (rows) and predicted class (columns).  [*E, Q], [*E, Q] -> [*E, C, C] int64"""
    batch = labels.shape[:-1]
    cells = classes * classes
    keep = (labels >= 0).reshape(-1)  # [E Q]
    episode = torch.arange(batch.numel(), device=labels.device).unsqueeze(-1)  # [E, 1]
    pair = labels.reshape(-1, labels.shape[-1]) * classes + predicted.reshape(-1, labels.shape[-1])  # [E, Q]
    flat = (episode * cells + pair).reshape(-1)[keep]
    return torch.bincount(flat, minlength=batch.numel() * cells).reshape(*batch, classes, classes)


def accuracy(counts: Tensor) -> Tensor:
    """Share of queries predicted right, from confusion counts.  [*E, C, C] -> [*E]"""
    right = counts.diagonal(dim1=-2, dim2=-1).sum(-1)  # [*E]
    return right / counts.sum((-2, -1))


def recall(counts: Tensor) -> Tensor:
    """Share of each class's queries predicted right; NaN for a class without queries.  [*E, C, C] -> [*E, C]"""
    return counts.diagonal(dim1=-2, dim2=-1) / counts.sum(-1)


def balanced_accuracy(counts: Tensor) -> Tensor:
    """Mean recall of the classes that have queries.  [*E, C, C] -> [*E]"""
    return recall(counts).nanmean(-1)


def macro_f1(counts: Tensor) -> Tensor:
    """Mean over classes of 2 TP / (queries + predictions); a class with neither is left out.  [*E, C, C] -> [*E]"""
    right = counts.diagonal(dim1=-2, dim2=-1)  # [*E, C]
    return (2 * right / (counts.sum(-1) + counts.sum(-2))).nanmean(-1)


def top_k(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Share of queries whose class is among the k best scored.  [*E, Q, C], [*E, Q] -> [*E]"""
    best = logits.topk(min(k, logits.shape[-1]), dim=-1).indices  # [*E, Q, k]
    hit = (best == labels.unsqueeze(-1)).any(-1)  # [*E, Q]
    return hit.sum(-1) / (labels >= 0).sum(-1)
