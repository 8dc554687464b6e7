"""Parts of the support set for cross-validation."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.task import Task


def folds(task: Task, parts: int) -> Tensor:
    """Deal the examples of each class into `parts`; -1 for padding and for one alone in its class.  -> [*B, S]

    Within a class examples are dealt in the order of the sum of their embedding's elements, so the parts depend on what
    the examples are, and not on where they stand.
    """
    key = task.support.sum(-1)  # [*B, S]
    together = task.labels.unsqueeze(-1) == task.labels.unsqueeze(-2)  # [*B, S, S] of one class
    place = torch.arange(key.shape[-1], device=key.device)
    equal = (key.unsqueeze(-1) == key.unsqueeze(-2)) & (place[:, None] > place)  # copies keep their order
    before = (key.unsqueeze(-1) > key.unsqueeze(-2)) | equal  # [*B, S, S] the second of the pair comes first
    rank = (together & before).sum(-1)  # [*B, S]
    alone = (task.labels < 0) | (together.sum(-1) < 2)  # [*B, S]
    return torch.where(alone, -1, rank % parts)
