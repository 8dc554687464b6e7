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
from fewshot_plugins.bayes import Bayes, StudentHead
from fewshot_plugins.biased_ridge import BiasedRidge
from fewshot_plugins.jda import Jda
from fewshot_plugins.multi_task import MultiTask
from fewshot_plugins.pooled import Pooled
from fewshot_plugins.tca import Tca

MEMBERS: dict[str, tuple[type[Strategy], float]] = {  # with the prior weight of each, times 7
    "pooled": (Pooled, 2.0),
    "tca": (Tca, 2.0),
    "jda": (Jda, 2.0),
    "multi_task": (MultiTask, 1.0),
    "biased_ridge": (BiasedRidge, 0.0),
    "bayes": (Bayes, 0.0),
}
PULL = 1.0  # examples that the prior is worth to weights that are learned
PARTS = 5  # folds of the examples, and groups that learned weights are judged by
MOST = 3.0  # how far the log-probability of a class may lie below that of the likeliest


@dataclass(frozen=True, slots=True)
class BlendedHead:
    """A weighted sum of log-probabilities of several classifiers."""

    heads: tuple[LinearHead | AlignedHead | StudentHead, ...]  # M
    weights: Tensor  # [M]

    def logits(self, query: Tensor) -> Tensor:
        """Score queries.  [Q, D] -> [Q, C]"""
        return blended(torch.stack([head.logits(query) for head in self.heads], -1), self.weights)


@dataclass(frozen=True)
class Stacking(Strategy):
    """Weigh five ways of transfer, and the target alone through one of them, by how they do on held-out examples.

    Logits are sum_m w_m log p_m over members that learn from source and target together (`pooled`, `tca`, `jda`), that
    take from the source a direction or a metric only (`biased_ridge`, `multi_task`, `bayes`), each log p_m at most 3
    below that of its likeliest class, so that no member outvotes the others by being sure of itself. The weights are
    those of a prior that trusts the source (2/7 for each of the first three, 1/7 for `multi_task`), unless held-out
    examples contradict it: each member is fitted to four fifths of the examples of each class and scores the others, in
    turn, until 1,000 are scored. Learned weights w >= 0 minimise the log-loss of these scores plus |w - prior|^2 / 2;
    they are taken where, learned from four fifths of the scores, they have less log-loss on the other fifth than the
    prior has, by more than one standard error over the examples. Few examples seldom do, unless the source misleads:
    then it gets no weight. With one shot a class nothing can be held out: the prior. Members without weight are not
    fitted again.

    Members, prior, the bound of 3 and the rule were chosen on the pairs of benchmarks/transfer.py and
    transfer_development.py.
    """

    name = "stacking"
    needs = frozenset({"support", "source"})
    batched = False
    speed = "iterative"
    heads: ClassVar[tuple[type, ...]] = (BlendedHead, LinearHead, AlignedHead, StudentHead)
    members: ClassVar[tuple[str, ...]] = tuple(MEMBERS)
    paper = "Wolpert 1992, doi:10.1016/S0893-6080(05)80023-1"
    pull: float | None = option(
        None, "examples that the prior is worth to learned weights, always taken then; none decides", min=1e-3
    )

    def fit(self, task: Task) -> BlendedHead:
        """Score held-out examples by every member, weigh the members, fit those with weight to all.  -> weights [M]"""
        domains(task, self.name)
        part = enough(folds(task, PARTS))  # [S]
        held = torch.zeros(len(task.labels), task.classes, len(MEMBERS), dtype=torch.float64, device=task.device)
        for k in part[part >= 0].unique():
            rest = replace(task, labels=task.labels.masked_fill(part == k, -1))
            for m, (cls, _) in enumerate(MEMBERS.values()):
                held[part == k, :, m] = fit(cls(), rest).logits(task.support[part == k]).double()
        weights = self.weigh(held[part >= 0], task.labels[part >= 0])
        used = weights > 0 if bool((weights > 0).any()) else weights >= 0  # [M]
        fitted = [fit(cls(), task) for (cls, _), one in zip(MEMBERS.values(), used, strict=True) if one]
        return BlendedHead(cast(tuple[LinearHead, ...], tuple(fitted)), weights[used].to(task.dtype))

    def weigh(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Weights of the members from their logits for items they were not fitted to.  [n, C, M], [n] -> [M]"""
        log_p = bounded(scores.double())
        prior = log_p.new_tensor([weight for _, weight in MEMBERS.values()])
        prior = prior / prior.sum()  # [M]
        if self.pull is not None:
            return blend_weights(log_p, labels, prior, self.pull)
        if len(labels) < 2:
            return prior
        group = log_p.sum((1, 2)).argsort().argsort() % PARTS  # [n] by what the items are, not by where they stand
        saved = torch.zeros(len(labels), dtype=torch.float64, device=log_p.device)  # [n] log-loss of prior less learned
        for g in group.unique():
            learned = blend_weights(log_p, labels.masked_fill(group == g, -1), prior, PULL)  # [M]
            here, own = log_p[group == g], labels[group == g]  # [n / PARTS, C, M], [n / PARTS]
            saved[group == g] = log_loss(here @ prior, own) - log_loss(here @ learned, own)
        certain = saved.mean() > saved.std() / len(saved) ** 0.5
        return blend_weights(log_p, labels, prior, PULL) if bool(certain) else prior

    def blend(self, scores: Tensor, weights: Tensor) -> Tensor:
        """Logits of all members together.  [n, C, M], [M] -> [n, C]"""
        return blended(scores, weights)


def bounded(scores: Tensor) -> Tensor:
    """Log-probabilities, none more than `MOST` below the likeliest class's.  [n, C, M] -> [n, C, M]"""
    log_p = scores.log_softmax(-2)
    return torch.maximum(log_p, log_p.amax(-2, keepdim=True) - MOST)


def blended(scores: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bounded log-probabilities.  [n, C, M], [M] -> [n, C]"""
    return bounded(scores) @ weights


def log_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the log-probability of each label.  [n, C], [n] -> [n]"""
    return -logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def enough(part: Tensor) -> Tensor:
    """Keep the first folds that hold `ENOUGH` examples together; in the others nothing is held out.  [S] -> [S]"""
    counts = torch.bincount(part + 1, minlength=PARTS + 1)[1:]  # [PARTS]
    spare = counts.cumsum(0) - counts >= ENOUGH
    return torch.where((part >= 0) & spare[part.clamp_min(0)], -1, part)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `stacking`."""
    register(Stacking)
