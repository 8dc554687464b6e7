"""Leave-one-out influence: how much better or worse the queries fare when one support example is left out."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from fewshot.strategy import Strategy, fit
from fewshot.task import Task

AT_ONCE = 16  # refits solved as one batch


def leave_one_out(strategy: Strategy, task: Task, query: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Refit without each support example in turn and score the queries again.

    The strategy is refitted, nothing is approximated. Query labels serve to judge the examples after the fact; no fit
    sees them.

    Parameters
    ----------
    task:
        one task, without batch dims.
    query, labels:
        [Q, D] and [Q] in [0, C).

    Returns
    -------
    tuple
        [S] harm: mean log-loss (nats) of the queries with all examples minus that without the example, so a positive
        one misleads; and [S] gain: how many more queries are right without it. Both are NaN for the last example of a
        class that the strategy cannot do without.
    """
    size = task.support.shape[0]
    harm, gain = torch.full((2, size), torch.nan, dtype=torch.float64)  # [S] each
    spared = _replaceable(strategy, task).nonzero().flatten()  # [K]
    if not len(spared):
        return harm, gain
    loss, right = _score(fit(strategy, task).logits(query), labels)
    everyone = torch.arange(size)
    for chosen in torch.split(spared, AT_ONCE):
        keep = torch.stack([everyone[everyone != i] for i in chosen])  # [B, S - 1]
        logits = fit(strategy, _batch(task, keep)).logits(query.expand(len(chosen), -1, -1))  # [B, Q, C]
        without, more = _score(logits, labels)  # [B] each
        harm[chosen], gain[chosen] = loss - without, more - right
    return harm, gain


def _replaceable(strategy: Strategy, task: Task) -> Tensor:
    """Which examples may be left out: those whose class keeps one, or all when classes may be empty.  [S] bool"""
    if strategy.unseen or "support" not in strategy.needs:
        return torch.ones(len(task.labels), dtype=torch.bool)
    return task.counts()[task.labels] > 1


def _batch(task: Task, keep: Tensor) -> Task:
    """One task for each row of `keep`, with those support examples.  [B, S - 1]"""
    spread = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    spread = {name: tensor.expand(len(keep), *tensor.shape) for name, tensor in spread.items()}
    return Task(**{**spread, "support": task.support[keep], "labels": task.labels[keep]})


def _score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean log-loss and number of right answers.  [*B, Q, C], [Q] -> [*B], [*B]"""
    truth = labels.expand(logits.shape[:-1])  # [*B, Q]
    log_p = logits.double().log_softmax(-1).gather(-1, truth.unsqueeze(-1)).squeeze(-1)  # [*B, Q]
    return -log_p.mean(-1), (logits.argmax(-1) == truth).sum(-1).double()
