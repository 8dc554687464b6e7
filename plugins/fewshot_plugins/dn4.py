"""DN4: each place of a picture finds its nearest in a class. Li, Wang, Xu, Huo, Gao, Luo 2019, arXiv:1903.12290."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot.arrays import unit
from fewshot.errors import InvalidTask


@dataclass(frozen=True)
class LocalHead:
    """Local descriptors of every example, and what they are compared with."""

    local: Tensor  # [S, P, K] unit descriptors of the examples at P places
    hot: Tensor  # [S, C] one-hot labels, zero for padding
    centre: Tensor  # [1, 1, K]
    side: int
    drift: float
    temperature: float

    def logits(self, query: Tensor) -> Tensor:
        """Score queries, one example after the other to save memory.  [Q, D] -> [Q, C]"""
        asked = descriptors(query, self.side) - self.centre  # [Q, P, K]
        share = torch.linalg.vector_norm(asked, dim=-1)  # [Q, P]
        share = share / share.sum(-1, keepdim=True).clamp_min(1e-12)
        asked, moved = unit(asked), self.drift * squared_distances(self.side, query)  # [P, P]
        best = asked.new_full((len(query), asked.shape[1], self.hot.shape[1]), -torch.inf)  # [Q, P, C]
        for example, hot in zip(self.local, self.hot, strict=True):
            if hot.any():
                label = int(hot.argmax())
                nearest = (asked @ example.mT - moved).amax(-1)  # [Q, P]
                best[..., label] = torch.maximum(best[..., label], nearest)
        scores: Tensor = (share.unsqueeze(-1) * best).sum(-2)  # [Q, C]
        return self.temperature * scores


@dataclass(frozen=True)
class Dn4(Strategy):
    """Score a query by how near its local descriptors are to a class's nearest ones, place by place.

    An embedding [D] holds a map of side x side places with K = D / side^2 numbers each, channel after channel, as
    `lite:stage5` (side 12), `lite:stage6` (side 5) and `lite:stage7` (side 5) make; side 1 takes it whole. With x_p the
    descriptor of place p less the mean of all descriptors of the support, and y_r those of all examples of class k,

        logit_k = t sum_p |x_p| / sum_q |x_q|  max_r (cos(x_p, y_r) - drift |p - r|^2)

    The paper has the sum of cosines to the n nearest. Not in the paper: n = 1, the centre, the weight |x_p|, which is
    small where a place shows what all pictures have, such as paper, and `drift`, the price of a moved place, 0 unless
    given: Omniglot's background alphabets in `lite:stage5` have no use for one (`benchmarks/omniglot_choice.py`).
    """

    name = "dn4"
    batched = False
    paper = "Li, Wang, Xu, Huo, Gao, Luo 2019, arXiv:1903.12290"
    heads = (LocalHead,)
    side: int = option(
        1, "places a side of the map in an embedding: 12 for lite:stage5, 5 for stage6 and stage7", min=1
    )
    drift: float = option(0.0, "price of the squared distance between two places, in cosine", min=0.0)
    temperature: float = option(60.0, "factor on the mean cosine; higher is more confident", min=0.0)

    def fit(self, task: Task) -> LocalHead:
        """Keep the centred descriptors of the examples.  -> local [S, P, K] of P places, hot [S, C], centre [1, 1, K]

        Raises
        ------
        InvalidTask
            when the embedding's size is no multiple of side x side.
        """
        if task.dim % self.side**2:
            wanted = f"embeddings of a multiple of {self.side**2}"
            raise InvalidTask(f"dn4 with side {self.side} wants {wanted} numbers, got {task.dim}")
        real = task.labels >= 0
        found = descriptors(task.support, self.side)  # [S, P, K]
        centre = found[real].mean((0, 1), keepdim=True)  # [1, 1, K]
        return LocalHead(unit(found - centre), task.one_hot(), centre, self.side, self.drift, self.temperature)


def descriptors(x: Tensor, side: int) -> Tensor:
    """Take embeddings apart into places.  [n, D] -> [n, P, K]"""
    return x.reshape(*x.shape[:-1], x.shape[-1] // side**2, side**2).mT


def squared_distances(side: int, like: Tensor) -> Tensor:
    """Squared distance between any two places of a square.  -> [P, P]"""
    row = torch.arange(side, device=like.device, dtype=like.dtype)
    place = torch.cartesian_prod(row, row)  # [P, 2]
    return (place.unsqueeze(1) - place).square().sum(-1)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `dn4`."""
    register(Dn4)
