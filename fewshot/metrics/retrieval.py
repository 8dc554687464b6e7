"""Metrics of ranked search results."""

from __future__ import annotations

import torch
from torch import Tensor


def recall_at(scores: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Whether one of the k best scored items is relevant, as in metric learning.  [Q, N], [Q, N] bool -> [Q]"""
    best = scores.topk(min(k, scores.shape[-1]), dim=-1).indices  # [Q, k]
    return relevant.gather(-1, best).any(-1).double()


def average_precision(scores: Tensor, relevant: Tensor) -> Tensor:
    """Mean precision at the ranks of relevant items; NaN where there is none.  [Q, N], [Q, N] bool -> [Q]

    The mean over queries is mAP. Items with equal scores keep their order.
    """
    order = scores.argsort(stable=True, dim=-1, descending=True)  # [Q, N]
    hit = relevant.gather(-1, order).double()  # [Q, N]
    rank = torch.arange(1, scores.shape[-1] + 1, device=scores.device)
    return (hit * hit.cumsum(-1) / rank).sum(-1) / hit.sum(-1)
