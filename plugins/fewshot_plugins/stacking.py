"""Stacked generalisation over ways of transfer. Wolpert 1992, doi:10.1016/S0893-6080(05)80023-1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from fewshot import LinearHead, Strategy, Task, fit, hookimpl, option
from fewshot_plugins._alignment import AlignedHead
from fewshot_plugins._blend import blend_weights
from fewshot_plugins._domains import domains
from fewshot_plugins._folds import folds
from fewshot_plugins._holdout import ENOUGH
from fewshot_plugins.biased_ridge import BiasedRidge
from fewshot_plugins.multi_task import MultiTask
from fewshot_plugins.pooled import Pooled
from fewshot_plugins.ridge import Ridge
from fewshot_plugins.tca import Tca

MEMBERS: dict[str, tuple[type[Strategy], float]] = {  # with the prior weight of each, times 7
    "ridge": (Ridge, 1.0),
    "pooled": (Pooled, 2.0),
    "biased_ridge": (BiasedRidge, 1.0),
    "multi_task": (MultiTask, 1.0),
    "tca": (Tca, 2.0),
}
PULLS = (100.0, 30.0, 10.0, 3.0, 1.0)  # examples that the prior may be worth, the strongest first: it wins a tie
PARTS = 5  # folds of the examples, and groups that the pull is judged by
LEAST = -30.0  # log-probabilities below are taken as this


@dataclass(frozen=True, slots=True)
class BlendedHead:
    """A weighted sum of log-probabilities of several classifiers."""

    heads: tuple[LinearHead | AlignedHead, ...]  # M
    weights: Tensor  # [M]

    def logits(self, query: Tensor) -> Tensor:
        """Score queries.  [Q, D] -> [Q, C]"""
        each = [head.logits(query).log_softmax(-1).clamp_min(LEAST) for head in self.heads]
        return torch.stack(each, -1) @ self.weights


@dataclass(frozen=True)
class Stacking(Strategy):
    """Weigh the target alone, source and target pooled, and three ways between by how they do on held-out examples.

    Members: `ridge` (the target alone), `pooled`, `biased_ridge`, `multi_task` and `tca`. Each is fitted to four fifths
    of the examples of each class and scores the others, in turn, until 1,000 are scored. The logits are sum_m w_m log
    p_m, the weights w >= 0 minimising the log-loss of those held-out scores plus pull / 2 |w - prior|^2; the prior
    leans to the source, whose worth few examples cannot show (`pooled` and `tca` 2/7, the others 1/7). The pull is the
    one, of 1 to 100 examples, whose weights, learned from four fifths of the held-out scores, have the least log-loss
    on the other fifth. So a source that misleads gets no weight, even at few shots. With one shot a class nothing can
    be held out: the prior.

    Members, prior and pulls were chosen on the pairs of benchmarks/transfer.py and transfer_development.py.
    """

    name = "stacking"
    needs = frozenset({"support", "source"})
    batched = False
    speed = "iterative"
    heads: ClassVar[tuple[type, ...]] = (BlendedHead, LinearHead, AlignedHead)
    members: ClassVar[tuple[str, ...]] = tuple(MEMBERS)
    paper = "Wolpert 1992, doi:10.1016/S0893-6080(05)80023-1"
    pull: float | None = option(None, "examples that the prior weights are worth; none chooses it", min=1e-3)

    def fit(self, task: Task) -> BlendedHead:
        """Score held-out examples by every member, weigh the members, fit them to all.  -> weights [M]"""
        domains(task, self.name)
        part = enough(folds(task, PARTS))  # [S]
        held = torch.zeros(len(task.labels), task.classes, len(MEMBERS), dtype=torch.float64, device=task.device)
        for k in part[part >= 0].unique():
            rest = replace(task, labels=task.labels.masked_fill(part == k, -1))
            for m, (cls, _) in enumerate(MEMBERS.values()):
                held[part == k, :, m] = fit(cls(), rest).logits(task.support[part == k]).double().log_softmax(-1)
        weights = self.weigh(held[part >= 0], task.labels[part >= 0])
        heads = tuple(cast(LinearHead | AlignedHead, fit(cls(), task)) for cls, _ in MEMBERS.values())
        return BlendedHead(heads, weights.to(task.dtype))

    def weigh(self, log_p: Tensor, labels: Tensor) -> Tensor:
        """Weights of the members from log-probabilities of items they were not fitted to.  [n, C, M], [n] -> [M]"""
        log_p = log_p.double().clamp_min(LEAST)
        prior = log_p.new_tensor([weight for _, weight in MEMBERS.values()])
        prior = prior / prior.sum()  # [M]
        group = log_p.sum((1, 2)).argsort().argsort() % PARTS  # [n] by what the items are, not by where they stand
        if self.pull is not None:
            return blend_weights(log_p, labels, prior, self.pull)
        losses = dict.fromkeys(PULLS, 0.0)
        for pull in PULLS:
            for g in group.unique():
                w = blend_weights(log_p, labels.masked_fill(group == g, -1), prior, pull)  # [M]
                scores = (log_p[group == g] @ w).log_softmax(-1)  # [n / PARTS, C]
                losses[pull] -= float(scores.gather(-1, labels[group == g].unsqueeze(-1)).sum())
        return blend_weights(log_p, labels, prior, min(PULLS, key=losses.__getitem__))


def enough(part: Tensor) -> Tensor:
    """Keep the first folds that hold `ENOUGH` examples together; in the others nothing is held out.  [S] -> [S]"""
    counts = torch.bincount(part + 1, minlength=PARTS + 1)[1:]  # [PARTS]
    spare = counts.cumsum(0) - counts >= ENOUGH
    return torch.where((part >= 0) & spare[part.clamp_min(0)], -1, part)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `stacking`."""
    register(Stacking)
