"""TrAdaBoost: boosting that forgets misleading source items. Dai, Yang, Xue, Yu 2007, doi:10.1145/1273496.1273521."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import LinearHead, Strategy, Task, hookimpl, option
from fewshot.task import one_hot
from fewshot_plugins._domains import domains
from fewshot_plugins._weighted import weighted_ridge

LEAST, MOST = 0.01, 0.49  # a target error outside is taken as this: none would give an infinite vote, a half none


@dataclass(frozen=True, slots=True)
class BoostedHead:
    """Linear classifiers that vote."""

    rounds: tuple[LinearHead, ...]
    votes: Tensor  # [T] of sum 1
    scale: float

    def logits(self, query: Tensor) -> Tensor:
        """Share of the votes that each class gets, times the scale.  [Q, D] -> [Q, C]"""
        share = torch.zeros(*query.shape[:-1], self.rounds[0].weight.shape[-2], dtype=query.dtype, device=query.device)
        for head, vote in zip(self.rounds, self.votes, strict=True):
            best = head.logits(query).argmax(-1)  # [Q]
            share = share + vote * one_hot(best, share.shape[-1], share.dtype)
        return self.scale * share


def boost(
    x: Tensor, labels: Tensor, near: int, classes: int, rounds: int, lam: float
) -> list[tuple[LinearHead, float]]:
    """Run the rounds and return each one's classifier with its vote log(1 / beta_t).

    With weights w of sum 1: fit; e = weighted share of mistakes on the target; beta_t = e / (1 - e); multiply the
    weights of the target's mistakes by 1 / beta_t, those of the source's by beta = 1 / (1 + sqrt(2 ln N / T)).

    Parameters
    ----------
    x, labels
        the source's N items, then the target's `near` items.  [N + S, D], [N + S]
    """
    n = len(x) - near
    beta = 1 / (1 + math.sqrt(2 * math.log(n) / rounds))
    weight, hot = torch.ones(len(x), dtype=x.dtype, device=x.device), one_hot(labels, classes, x.dtype)
    found = []
    for _ in range(rounds):
        weight = weight / weight.sum()
        head = LinearHead(*weighted_ridge(x, hot, weight * len(x), lam))
        wrong = (head.logits(x).argmax(-1) != labels).to(x.dtype)  # [N + S]
        error = float((weight * wrong)[n:].sum() / weight[n:].sum())
        factor = min(max(error, LEAST), MOST)
        factor = factor / (1 - factor)  # beta_t
        found.append((head, -math.log(factor)))
        weight = weight * torch.cat([beta ** wrong[:n], factor ** -wrong[n:]])
    return found


@dataclass(frozen=True)
class TrAdaBoost(Strategy):
    """Boost on source and support together: what the source gets wrong loses weight, what the target gets wrong gains.

    Round t of T fits a classifier to weighted items, here the ridge regression of `kmm` for any number of classes.
    Its weighted error e_t on the support gives beta_t = e_t / (1 - e_t); target items it gets wrong are multiplied by
    1 / beta_t, source items it gets wrong by beta = 1 / (1 + sqrt(2 ln N / T)). Rounds T / 2 to T vote with
    log(1 / beta_t); logits = scale x share of the votes. The paper has two classes and 100 rounds at most; 20 here. An
    error above 0.49 counts as that, and one below 0.01 too, for a vote must be finite: with few examples it is 0.
    """

    name = "tradaboost"
    needs = frozenset({"support", "source"})
    batched = False
    speed = "iterative"
    paper = "Dai, Yang, Xue, Yu 2007, doi:10.1145/1273496.1273521"
    heads = (BoostedHead,)
    rounds: int = option(20, "rounds T; the second half votes", min=2)
    lam: float = option(0.1, "penalty on the squared weights of each regression", min=1e-6)
    scale: float = option(10.0, "factor on the shares of the votes; higher is more confident", min=0.0)

    def fit(self, task: Task) -> BoostedHead:
        """Boost, and keep the second half of the rounds.  -> votes [T], and T times weight [C, D], bias [C]"""
        both = domains(task, self.name)
        x, labels = torch.cat([both.source, both.support]), torch.cat([both.source_labels, both.labels])
        found = boost(x, labels, len(both.labels), task.classes, self.rounds, self.lam)[
            math.ceil(self.rounds / 2) - 1 :
        ]
        votes = torch.tensor([vote for _, vote in found], dtype=task.dtype, device=task.device)
        heads = tuple(
            LinearHead(head.weight.to(task.dtype), None if head.bias is None else head.bias.to(task.dtype))
            for head, _ in found
        )
        return BoostedHead(heads, votes / votes.sum(), self.scale)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `tradaboost`."""
    register(TrAdaBoost)
