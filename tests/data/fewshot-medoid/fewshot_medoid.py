"""A third-party strategy: nearest medoid, the example with the least total distance to the others of its class."""

from dataclasses import dataclass

import torch

from fewshot import LinearHead, Strategy, hookimpl, option


@dataclass(frozen=True)
class Medoid(Strategy):
    """Score a query by its cosine to the medoid of each class."""

    name = "medoid"
    paper = "Kaufman, Rousseeuw 1987"
    scale: float = option(20.0, "factor on the cosines", min=0.0)

    def fit(self, task):
        member = task.one_hot()  # [*B, S, C]
        closeness = (task.support @ task.support.mT) @ member  # [*B, S, C] summed cosine to each class
        best = closeness.masked_fill(member == 0, -torch.inf).argmax(-2)  # [*B, C]
        index = best.unsqueeze(-1).expand(*best.shape, task.dim)  # [*B, C, D]
        return LinearHead(self.scale * task.support.gather(-2, index))


@hookimpl
def register_strategies(register):
    register(Medoid)
