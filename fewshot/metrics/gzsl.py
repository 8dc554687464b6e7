"""Generalised zero-shot metrics: U, S and H, and the area under the seen-unseen curve."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.metrics.classification import recall


def seen_unseen(counts: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean recall of unseen classes U, of seen classes S, and H = 2US/(U+S).  [*E, C, C], [*E, C] bool -> 3 x [*E]

    Xian, Lampert, Schiele, Akata 2018, arXiv:1707.00600. Classes without queries are left out.
    """
    each = recall(counts)  # [*E, C]
    missing = torch.tensor(torch.nan, device=each.device)
    unseen_mean = torch.where(seen, missing, each).nanmean(-1)  # [*E]
    seen_mean = torch.where(seen, each, missing).nanmean(-1)  # [*E]
    total = unseen_mean + seen_mean
    harmonic = torch.where(total > 0, 2 * unseen_mean * seen_mean / total.clamp_min(1e-12), total)
    return unseen_mean, seen_mean, harmonic


def ausuc(logits: Tensor, labels: Tensor, seen: Tensor) -> Tensor:
    """Area under (U, S) as gamma goes through all reals in `logits - gamma * seen`.  [Q, C], [Q], [C] bool -> []

    Chao, Changpinyo, Gong, Sha 2016, arXiv:1605.04253. A query moves from its best seen class to its best unseen one
    when gamma passes the gap between their scores, so the curve has a step at each gap.
    """
    low = torch.tensor(-torch.inf, device=logits.device)
    best_seen = torch.where(seen, logits, low).max(-1)  # [Q]
    best_unseen = torch.where(seen, low, logits).max(-1)
    count = torch.bincount(labels, minlength=len(seen)).double()  # [C]
    kinds = torch.stack([(count[seen] > 0).sum(), (count[~seen] > 0).sum()]).double()  # classes that have queries
    weight = 1 / (count[labels] * kinds[(~seen[labels]).long()])  # [Q] so that sums are means of recalls
    order = (best_seen.values - best_unseen.values).sort()
    lose = (weight * (best_seen.indices == labels))[order.indices].cumsum(0)  # [Q] what S has lost after each step
    gain = (weight * (best_unseen.indices == labels))[order.indices].cumsum(0)  # [Q] what U has won
    last = torch.cat([order.values[1:] != order.values[:-1], seen.new_ones(1)])  # [Q] equal gaps step together
    zero = lose.new_zeros(1)
    s = lose[-1] - torch.cat([zero, lose[last]])
    u = torch.cat([zero, gain[last]])
    return torch.trapezoid(s, u)
