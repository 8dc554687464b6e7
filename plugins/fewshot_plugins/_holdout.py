"""Hold examples out of a task's support, fold by fold, and score them by heads fitted on the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewshot.strategy import Head
from fewshot.task import Task

SAME = 1e-4  # distance of unit-norm embeddings of one picture, embedded twice in different company
ENOUGH = 1000  # held-out examples a task: folds beyond that many are not scored, they would change little


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Scores of held-out examples. Rows that are no example (padding) have the label -1."""

    query: Tensor  # [*B, N, D] the examples
    logits: Tensor  # [*B, N, C, M] of M kinds of head
    labels: Tensor  # [*B, N] true class
    columns: Tensor  # [*B, N, C] bool: classes that kept an example, so that their score means something

    def judged(self) -> Tensor:
        """Examples whose own class kept another one, so that they can be told right or wrong.  [*B, N] bool"""
        own = self.columns.gather(-1, self.labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)  # [*B, N]
        return own & (self.labels >= 0)

    def spread(self) -> Tensor:
        """Standard deviation of the logits around each example's mean, over examples and columns.  [*B, M]"""
        used = (self.columns & (self.labels >= 0).unsqueeze(-1)).unsqueeze(-1)  # [*B, N, C, 1]
        several = used & (used.sum(-2, keepdim=True) > 1)
        count = several.sum(-2, keepdim=True).clamp_min(1)  # [*B, N, 1, 1]
        mean = (self.logits * several).sum(-2, keepdim=True) / count  # [*B, N, 1, M]
        square = ((self.logits - mean).square() * several).sum((-3, -2))  # [*B, M]
        freedom = (several.sum(-2, keepdim=True) - 1).clamp_min(0).sum((-3, -2))  # [*B, 1]
        return (square / freedom.clamp_min(1)).sqrt()


def ranks(task: Task) -> tuple[Tensor, Tensor]:
    """Number the examples within each class, and the classes, whatever order either come in.

    The order is that along a fixed direction of the embedding space, which no reordering of examples or renumbering
    of classes changes.  -> within class [*B, S], of class [*B, C]; classes without examples come last
    """
    place, labels, grouped = _along(task)
    slots = torch.zeros(*task.batch_shape, task.classes + 1, dtype=torch.int64, device=task.device)
    counts = slots.scatter_add(-1, labels, torch.ones_like(labels))  # [*B, C + 1]
    start = counts.cumsum(-1) - counts  # [*B, C + 1]
    position = torch.empty_like(labels).scatter_(
        -1, grouped, torch.arange(labels.shape[-1]).to(labels).expand_as(labels)
    )
    first = torch.full(slots.shape, torch.inf, dtype=torch.float64, device=task.device)
    first = first.scatter_reduce(-1, labels, place, "amin")  # [*B, C + 1]
    return position - start.gather(-1, labels), first[..., :-1].argsort(-1).argsort(-1)


def _along(task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """Place of each example along a fixed direction, labels with C for padding, positions by class, then by place."""
    direction = torch.sin(torch.arange(1, task.dim + 1, dtype=torch.float64, device=task.device).square())  # [D]
    place = (task.support.double() * direction).sum(-1)  # [*B, S]
    labels = torch.where(task.labels < 0, task.classes, task.labels)  # padding becomes a class of its own
    along = place.argsort(-1)  # [*B, S]
    return place, labels, along.gather(-1, labels.gather(-1, along).argsort(stable=True, dim=-1))


def without_copies(task: Task) -> Task:
    """Return the task with every copy of an example but one made padding, within each class.

    A copy in another fold would tell the answer of the example that is held out. Copies lie `SAME` apart at most.
    """
    _, labels, grouped = _along(task)
    label = labels.gather(-1, grouped)  # [*B, S]
    rows = task.support.gather(-2, grouped.unsqueeze(-1).expand(*grouped.shape, task.dim))  # [*B, S, D]
    near = (rows[..., 1:, :] - rows[..., :-1, :]).square().sum(-1) <= SAME**2  # [*B, S - 1] to the one before
    copy = torch.zeros_like(labels, dtype=torch.bool)  # [*B, S]
    copy[..., 1:] = near & (label[..., 1:] == label[..., :-1])
    return replace(task, labels=task.labels.masked_fill(torch.zeros_like(copy).scatter(-1, grouped, copy), -1))


def shot_folds(task: Task, folds: int) -> Tensor:
    """Number of the fold that holds each example out: one example of each class at a time, as far as `folds` allows.

    All classes lose equally many examples (one or none more), so the rest is as balanced as the task was; leaving out
    one example alone would handicap its own class, badly so at two shots. With a single example a class, half of the
    classes are held out at a time. -1: never held out (padding, or beyond `ENOUGH`).  -> [*B, S]
    """
    within, of_class = ranks(task)
    counts = task.counts()  # [*B, C]
    most = (counts.sum(-1, keepdim=True) / ENOUGH).clamp_min(folds)  # [*B, 1] no fold need hold more than enough
    number = counts.amax(-1, keepdim=True).clamp_min(2).minimum(most).to(torch.int64)  # [*B, 1]
    label = task.labels.clamp_min(0)
    fold = (within + of_class.gather(-1, label)) % number  # [*B, S]
    scored = (ENOUGH * number / counts.sum(-1, keepdim=True).clamp_min(1)).ceil()  # [*B, 1] folds that make enough
    return torch.where((task.labels >= 0) & (fold < scored), fold, -1)


def judge_some(task: Task) -> tuple[Tensor, Tensor]:
    """Pick examples to leave out one by one: those whose class has another, about `ENOUGH` of them at most.

    -> positions in the support [*B, n], labels [*B, n] with -1 for positions that are not to be judged
    """
    within, _ = ranks(task)
    counts = task.counts()  # [*B, C]
    most = (ENOUGH / task.seen().sum(-1, keepdim=True).clamp_min(1)).ceil()  # [*B, 1] examples of a class
    several = counts.gather(-1, task.labels.clamp_min(0)) > 1  # [*B, S]
    chosen = (task.labels >= 0) & several & (within < most)  # [*B, S]
    many = max(1, int(chosen.sum(-1).max()) if chosen.numel() else 1)
    index = chosen.to(torch.int8).argsort(stable=True, dim=-1, descending=True)[..., :many]  # [*B, n] chosen first
    return index, torch.where(chosen, task.labels, -1).gather(-1, index)


def class_folds(task: Task) -> Tensor:
    """As `shot_folds`, but all the examples of one half of the classes are held out, then those of the other.

    What is left of a class keeps its number of shots, so heads have the size they have on the whole.  -> [*B, S]
    """
    half = ranks(task)[1] % 2  # [*B, C]
    return torch.where(task.labels >= 0, half.gather(-1, task.labels.clamp_min(0)), -1)


def hold_out(fits: Callable[[Task], Sequence[Head]], task: Task, fold: Tensor) -> HeldOut:
    """Fit on all but each fold in turn, and score the fold.

    `fits` returns M heads for a task; it must bear classes whose examples are all held out, whose scores are not used.
    """
    parts = []
    for number in range(int(fold.max()) + 1 if fold.numel() else 0):
        held = fold == number  # [*B, S]
        rest = replace(task, labels=task.labels.masked_fill(held, -1))
        many = int(held.sum(-1).max())
        index = held.to(torch.int8).argsort(stable=True, dim=-1, descending=True)[..., :many]  # [*B, n] held-out first
        labels = torch.where(held, task.labels, -1).gather(-1, index)  # [*B, n]
        query = task.support.gather(-2, index.unsqueeze(-1).expand(*index.shape, task.dim))  # [*B, n, D]
        logits = torch.stack([head.logits(query) for head in fits(rest)], -1)  # [*B, n, C, M]
        parts.append((query, logits, labels, rest.seen().unsqueeze(-2).expand(logits.shape[:-1])))
    query, logits, labels, columns = (torch.cat(each, len(task.batch_shape)) for each in zip(*parts, strict=True))
    return HeldOut(query, logits, labels, columns)
