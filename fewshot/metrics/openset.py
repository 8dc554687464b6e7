"""How well a score tells queries of known classes from queries of unknown ones; higher scores mean "known"."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _above(known: Tensor, unknown: Tensor) -> Tensor:
    """Share of unknown scores below each known one, ties counting half.  [*E, K], [*E, U] -> [*E, K]"""
    ordered = unknown.sort(-1).values.contiguous()
    known = known.contiguous()
    below = torch.searchsorted(ordered, known) + torch.searchsorted(ordered, known, right=True)  # [*E, K]
    return below.double() / (2 * unknown.shape[-1])


def auroc(known: Tensor, unknown: Tensor) -> Tensor:
    """Chance that a known query outscores an unknown one.  [*E, K], [*E, U] -> [*E]"""
    return _above(known, unknown).mean(-1)


def fpr95(known: Tensor, unknown: Tensor) -> Tensor:
    """Share of unknown queries accepted at the threshold that accepts 95 % of known ones.  [*E, K], [*E, U] -> [*E]"""
    wanted = math.ceil(0.95 * known.shape[-1] - 1e-9)
    threshold = known.sort(-1, descending=True).values[..., wanted - 1 : wanted]  # [*E, 1]
    return (unknown >= threshold).double().mean(-1)


def oscr(known: Tensor, correct: Tensor, unknown: Tensor) -> Tensor:
    """Area under correct classification rate against false positive rate.  [*E, K], [*E, K] bool, [*E, U] -> [*E]

    Dhamija, Gunther, Boult 2018, arXiv:1811.04110. As a sum over pairs it is the chance that a known query is
    classified right and outscores an unknown one.
    """
    return (_above(known, unknown) * correct).mean(-1)
