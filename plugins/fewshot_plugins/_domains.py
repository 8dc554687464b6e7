"""The two domains of one task: a labelled source and a target, without padding, in double precision."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import Task
from fewshot.errors import MissingInput

ANY_SOURCE = "bayes, multi_task or dann"  # strategies that learn from classes which the task does not have


@dataclass(frozen=True, slots=True)
class Domains:
    """Labels count the task's classes; `items` are the labelled target's rows and then the unlabelled ones."""

    source: Tensor  # [N, D] of classes that the task has
    source_labels: Tensor  # [N] in [0, C)
    support: Tensor  # [S, D]
    labels: Tensor  # [S] in [0, C)
    items: Tensor  # [S + U, D]


def domains(task: Task, name: str, *, unseen: bool = False) -> Domains:
    """Take apart a task without batch dims for a strategy that wants source and target to have the same classes.

    `unseen` allows classes that have no example at all.

    Raises
    ------
    MissingInput
        when the source has fewer than two of the task's classes, or a class has an example in neither domain.
    """
    here = (task.source_labels >= 0) & (task.source_labels < task.classes)  # [N]
    source, source_labels = task.source[here].double(), task.source_labels[here]
    real = task.labels >= 0  # [S]
    support, labels = task.support[real].double(), task.labels[real]
    shared = len(torch.unique(source_labels))
    if shared < 2:
        own = len(torch.unique(task.source_labels[task.source_labels >= 0]))
        raise MissingInput(
            f"strategy {name!r} wants at least 2 of the task's classes in the source, which has {own} classes, "
            f"{shared} of them the task's; name them alike in both, or use a strategy for other classes: {ANY_SOURCE}"
        )
    known = torch.cat([source_labels, labels])
    empty = [c for c in range(task.classes) if not bool((known == c).any())]
    if empty and not unseen:
        raise MissingInput(f"strategy {name!r} needs an example of class number {empty[0]}, in source or support")
    return Domains(source, source_labels, support, labels, torch.cat([support, task.unlabeled.double()]))
