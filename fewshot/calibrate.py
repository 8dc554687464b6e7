"""Leave-one-out temperature scaling: probabilities of any strategy made honest with the examples alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewshot.strategy import Head, Strategy, fit
from fewshot.task import Task, one_hot

FOLDS = 5
SPAN = 12.0  # the factor lies within e^-12 and e^12
STEPS = 40  # halvings of that span, down to the precision of float32


@dataclass(frozen=True, slots=True)
class ScaledHead:
    """A head whose logits are multiplied by a factor, one for each task of a batch."""

    head: Head
    factor: Tensor  # [*B] above 0

    def logits(self, query: Tensor) -> Tensor:
        """Score queries.  [*B, Q, D] -> [*B, Q, C]"""
        return self.factor[..., None, None] * self.head.logits(query)


def fit_calibrated(strategy: Strategy, task: Task, folds: int = FOLDS) -> ScaledHead:
    """Solve a task, and scale the head by what held-out examples say of its confidence.

    The examples are left out in up to `folds` parts, the same number of each class at a time; a class's only example
    stays. The factor is that of `held_out_factor` on their logits by heads fitted on the rest; 1 where no class has two
    examples. Which class is the likeliest does not change.

    Raises
    ------
    MissingInput, InvalidTask
        as `fewshot.strategy.fit` does.
    """
    head = fit(strategy, task)
    fold = example_folds(task, folds)  # [*B, S]
    scored = []
    for number in range(int(fold.max()) + 1 if fold.numel() else 0):
        rest = replace(task, labels=task.labels.masked_fill(fold == number, -1))
        scored.append((fit(strategy, rest).logits(task.support), torch.where(fold == number, task.labels, -1)))
    if not scored:
        return ScaledHead(head, task.support.new_ones(task.batch_shape))
    logits, labels = (torch.cat(part, len(task.batch_shape)) for part in zip(*scored, strict=True))
    return ScaledHead(head, held_out_factor(logits, labels))


def example_folds(task: Task, folds: int) -> Tensor:
    """Number of the fold that leaves each example out; -1 for padding and for a class's only example.  -> [*B, S]

    No fold empties a class: one with n examples spreads them over min(n, folds) folds.
    """
    hot = task.one_hot()  # [*B, S, C]
    count = (hot * hot.sum(-2, keepdim=True)).sum(-1)  # [*B, S] examples of one's class
    place = (hot * hot.cumsum(-2)).sum(-1) - 1  # [*B, S] how many of the class came before
    return torch.where(count > 1, place % count.clamp(1, folds), -1).to(torch.int64)


def held_out_factor(logits: Tensor, labels: Tensor) -> Tensor:
    """Factor on the logits with the least cross-entropy (Guo, Pleiss, Sun, Weinberger 2017, arXiv:1706.04599).

    [*B, n, C], [*B, n] with -1 for rows that do not count -> [*B], 1 where none counts.

    The target of the right class is (n + 1) / (n + 2), the rest is spread over the others (Platt 1999), so that a few
    examples that are all right do not ask for boundless confidence. The loss is convex in the factor, and its
    derivative, the sum of z (p - target), is zero at the minimum, which is found by bisection.
    """
    known = (labels >= 0).unsqueeze(-1)  # [*B, n, 1]
    number = known.sum((-2, -1))[..., None, None]  # [*B, 1, 1]
    sure = (number + 1) / (number + 2)  # [*B, 1, 1]
    right = one_hot(labels, logits.shape[-1], logits.dtype)  # [*B, n, C]
    target = torch.where(right > 0, sure, (1 - sure) / max(1, logits.shape[-1] - 1))  # [*B, n, C]
    z = torch.where(known, logits - logits.amax(-1, keepdim=True), 0.0)  # [*B, n, C]
    low = torch.full_like(z[..., 0, 0], -SPAN)
    high = -low
    for _ in range(STEPS):
        middle = (low + high) / 2  # [*B] log of the factor
        gap = (z * middle.exp()[..., None, None]).softmax(-1) - target  # [*B, n, C]
        over = (z * gap * known).sum((-2, -1)) > 0  # [*B]
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return torch.where(number[..., 0, 0] > 0, ((low + high) / 2).exp(), 1.0)
