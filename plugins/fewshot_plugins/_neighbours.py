"""Votes of similar examples: what `knn` and `matching` share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot.task import one_hot

SAME = 1e-6  # similarities this close count as equal
SPREAD = 0.01  # share of the votes given to all classes alike


@dataclass(frozen=True)
class VoteHead:
    """Examples vote for their class with weight exp(similarity / T); all of them, or the k nearest to the query."""

    support: Tensor  # [*B, S, D]
    labels: Tensor  # [*B, S] int64, -1 for padding
    classes: int
    k: int | None
    temperature: float

    def logits(self, query: Tensor) -> Tensor:
        """Logarithm of each class's share of the votes.  [*B, Q, D] -> [*B, Q, C]

        Examples as near as the k-th nearest vote too, so neither copies nor the order of the examples decide. With a
        k, a share of `SPREAD` is added for all classes together, so that one without a vote has a finite logit.
        """
        cosine = query @ self.support.mT  # [*B, Q, S]
        cosine = cosine.masked_fill((self.labels < 0).unsqueeze(-2), -torch.inf)
        weight = torch.softmax(cosine / self.temperature, -1)  # [*B, Q, S]
        if self.k is not None and self.k < cosine.shape[-1]:
            last = cosine.topk(self.k, -1).values[..., -1:]  # [*B, Q, 1]
            weight = weight * (cosine >= last - SAME)
            weight = weight / weight.sum(-1, keepdim=True)
        votes = weight @ one_hot(self.labels, self.classes, query.dtype)  # [*B, Q, C]
        floor = torch.finfo(votes.dtype).tiny if self.k is None else SPREAD / self.classes
        return (votes + floor).log()
