"""Calibrated stacking for generalised zero-shot learning. Chao, Changpinyo, Gong, Sha 2016, arXiv:1605.04253."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from fewshot.task import Task

FOLDS = 4  # parts the seen classes are split into; each in turn plays the unseen ones
LARGE = 4096  # with more examples than this, one part has enough to judge by
GAMMA_HELP = "subtracted from the logits of seen classes; none: chosen on held-out seen classes, 0: off"


class BiasedHead(Protocol):
    """A head whose logits end in `+ bias`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def bias(self) -> Tensor | None:
        """Added to the logits.  [*B, C]"""
        ...

    def logits(self, query: Tensor) -> Tensor:
        """Score queries.  [*B, Q, D] -> [*B, Q, C]"""
        ...


H = TypeVar("H", bound=BiasedHead)


def stack(solve: Callable[[Task], H], task: Task, gamma: float | None) -> H:
    """Solve a task and subtract gamma from the scores of its seen classes, which else win nearly always."""
    head, seen = solve(task), task.seen()  # [*B, C]
    if gamma is None:
        offset = choose_gamma(solve, task)  # [*B]
    else:
        offset = torch.full(task.batch_shape, gamma, dtype=task.dtype, device=task.device)
    bias = -offset.unsqueeze(-1) * seen  # [*B, C]
    return dataclasses.replace(head, bias=bias if head.bias is None else head.bias + bias)


def choose_gamma(solve: Callable[[Task], BiasedHead], task: Task) -> Tensor:
    """Choose gamma on the support alone, by a split between classes.  -> [*B]

    The seen classes are split into `FOLDS` parts. Each part in turn loses its examples and so becomes unseen, together
    with a share of the examples of the other classes, which become queries of seen classes; what is left is solved,
    and the lost examples are scored among the seen classes. Over all parts, gamma maximises the harmonic mean of
    seen and unseen accuracy (per-class means). The task's own unseen classes take no part. With more than `LARGE`
    examples one part is judged, not all. Without an unseen class, or when too little is there to judge by (fewer than
    2 seen classes, or single examples), gamma is 0.
    """
    seen = task.seen()  # [*B, C]
    nothing = torch.zeros(task.batch_shape, dtype=task.dtype, device=task.device)
    if bool(seen.all()) or task.labels.shape[-1] < 3:
        return nothing
    folds = FOLDS if task.labels.shape[-1] <= LARGE else 1
    parts = [_judge(solve, task, seen, fold) for fold in range(folds)]
    margin, as_unseen, as_seen, right = (torch.cat(each, -1) for each in zip(*parts, strict=True))  # [*B, folds S]
    labels = task.labels.repeat(*[1] * len(task.batch_shape), folds)  # [*B, folds S]
    gain, loss = (_class_weights(labels, used, task.classes) * right for used in (as_unseen, as_seen))
    usable = (seen & ~seen.all(-1, keepdim=True)).any(-1)  # [*B] leaves out tasks without unseen classes
    return torch.where(usable, best_offset(margin, gain, loss), nothing)


def best_offset(margin: Tensor, gain: Tensor, loss: Tensor) -> Tensor:
    """Offset with the best harmonic mean of what is won below it and kept above it, 0 when none is above 0.

    Sorting the margins gives the whole seen-unseen curve: U(g) = sum of gain where margin < g, S(g) = sum of loss
    where margin > g; both change at the margins only. The middle of the best gap is taken.  [*B, n] x 3 -> [*B]
    """
    counted = (gain + loss) > 0
    margin, order = margin.masked_fill(~counted, torch.inf).sort(-1)  # [*B, n]
    won = gain.gather(-1, order).cumsum(-1)  # [*B, n] U just above each margin
    kept = loss.sum(-1, keepdim=True) - loss.gather(-1, order).cumsum(-1)  # [*B, n] S just above each margin
    harmonic = 2 * won * kept / (won + kept).clamp_min(1e-12)
    harmonic = harmonic[..., :-1]  # [*B, n - 1]
    top = harmonic.amax(-1, keepdim=True)  # [*B, 1]
    best = (harmonic >= top - 1e-5).to(torch.int64).argmax(-1, keepdim=True)  # [*B, 1] rounding must not choose
    middle = (margin.gather(-1, best) + margin.gather(-1, best + 1)) / 2  # [*B, 1]
    return torch.where(top > 1e-5, middle, torch.zeros_like(middle)).squeeze(-1)


def _judge(solve: Callable[[Task], BiasedHead], task: Task, seen: Tensor, fold: int) -> tuple[Tensor, ...]:
    """Hide one part and score it.  -> margin, hidden with its class, hidden alone, right in its group; [*B, S]

    `margin` is the best score of a seen class minus that of a pseudo-unseen one.
    """
    real = task.labels >= 0  # [*B, S]
    label = task.labels.clamp_min(0)
    class_rank, item_rank, counts = _ranks(task, seen)
    away = seen & (class_rank % FOLDS == fold) & (seen.sum(-1, keepdim=True) > 1)  # [*B, C] pseudo-unseen
    item_away = real & away.gather(-1, label)  # [*B, S]
    several = counts.gather(-1, label) > 1
    item_held = real & ~item_away & several & (item_rank % FOLDS == fold)  # [*B, S]
    head = solve(dataclasses.replace(task, labels=task.labels.masked_fill(item_away | item_held, -1)))
    scores = head.logits(task.support)  # [*B, S, C]
    near = scores.masked_fill(~(seen & ~away).unsqueeze(-2), -torch.inf).max(-1)  # best of the pseudo-seen
    far = scores.masked_fill(~away.unsqueeze(-2), -torch.inf).max(-1)  # best of the pseudo-unseen
    right = torch.where(item_away, far.indices, near.indices) == task.labels
    judged = (item_away | item_held) & away.any(-1, keepdim=True) & (seen & ~away).any(-1, keepdim=True)
    margin = torch.where(judged, near.values - far.values, torch.zeros_like(near.values))
    return margin, item_away & judged, item_held & judged, right


def _ranks(task: Task, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rank the seen classes, and the examples within each class, whatever order they come in.

    Along a fixed direction of the embedding space, so that reordering classes or examples changes no split.
    -> class rank [*B, C], item rank [*B, S], examples of each class [*B, C]
    """
    direction = torch.sin(torch.arange(1, task.dim + 1, dtype=task.dtype, device=task.device))  # [D]
    place = task.support @ direction  # [*B, S]
    hot = task.one_hot()  # [*B, S, C]
    counts = hot.sum(-2)  # [*B, C]
    mean = (hot * place.unsqueeze(-1)).sum(-2) / counts.clamp_min(1)  # [*B, C]
    class_rank = mean.masked_fill(~seen, torch.inf).argsort(-1).argsort(-1)
    first = place.argsort(-1)  # [*B, S]
    order = first.gather(-1, task.labels.gather(-1, first).argsort(dim=-1, stable=True))  # by label, then by place
    padding = (task.labels < 0).sum(-1, keepdim=True)  # [*B, 1] sorted to the front
    start = padding + counts.long().cumsum(-1) - counts.long()  # [*B, C] where each class begins
    position = order.argsort(-1)  # [*B, S]
    return class_rank, position - start.gather(-1, task.labels.clamp_min(0)), counts


def _class_weights(labels: Tensor, used: Tensor, classes: int) -> Tensor:
    """Weights that turn a sum over the used items into a mean of class means.  [*B, n], [*B, n] bool -> [*B, n]"""
    where, marks = labels.clamp_min(0), used.to(torch.float32)  # [*B, n]
    counts = marks.new_zeros(*labels.shape[:-1], classes).scatter_add(-1, where, marks)  # [*B, C]
    total = (counts > 0).sum(-1, keepdim=True).clamp_min(1)  # [*B, 1]
    return marks / (counts.gather(-1, where).clamp_min(1) * total)  # [*B, n]
