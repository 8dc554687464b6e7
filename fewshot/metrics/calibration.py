"""Metrics of predicted probabilities: log-loss, Brier score, and calibration error through reliability bins."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BINS = 15  # Guo, Pleiss, Sun, Weinberger 2017, arXiv:1706.04599
LEAST = math.log(torch.finfo(torch.float32).tiny)  # -87.3, log of the least probability that `nll` knows


def nll(log_probability: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats; labels below 0 are left out.  [*E, Q, C], [*E, Q] -> [*E]

    A class that was ruled out costs 87.3 nats where it was the right one, so that means stay finite.
    """
    known = labels >= 0  # [*E, Q]
    picked = log_probability.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1).clamp_min(LEAST)  # [*E, Q]
    return -(picked * known).sum(-1) / known.sum(-1)


def brier(probability: Tensor, labels: Tensor) -> Tensor:
    """Mean squared distance to the one-hot label, summed over classes, in [0, 2].  [*E, Q, C], [*E, Q] -> [*E]

    |p - e_y|^2 = |p|^2 - 2 p_y + 1 (Brier 1950).
    """
    known = labels >= 0  # [*E, Q]
    picked = probability.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)  # [*E, Q]
    distance = probability.square().sum(-1) - 2 * picked + 1  # [*E, Q]
    return (distance * known).sum(-1) / known.sum(-1)


def reliability(
    confidence: Tensor, correct: Tensor, bins: int = BINS, *, group: Tensor | None = None, groups: int = 1
) -> Tensor:
    """Sort predictions into equal bins (lo, hi] of confidence.  [n] in [0, 1], [n] bool -> [groups, 3, bins] float64

    The rows are: predictions in the bin, sum of their confidences, number that were right. `group` ([n], from 0) makes
    a table for each group; tables of several sets of predictions add up.
    """
    place = (confidence.double() * bins).ceil().long().sub(1).clamp(0, bins - 1)  # [n]
    if group is not None:
        place = place + group * bins
    weights = (None, confidence.double(), correct.double())
    rows = [place.bincount(w, minlength=groups * bins).double() for w in weights]  # 3 x [groups * bins]
    return torch.stack(rows).reshape(3, groups, bins).transpose(0, 1)


def ece(table: Tensor) -> Tensor:
    """Expected calibration error: mean gap of confidence and accuracy, weighted by count.  [*G, 3, bins] -> [*G]"""
    count, confidence, correct = table.unbind(-2)  # [*G, bins]
    return (confidence - correct).abs().sum(-1) / count.sum(-1)
