"""TaskRes: a learned residual on the text classifier. Yu et al. 2023, arXiv:2211.10277."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import LinearHead, Strategy, Task, hookimpl, option
from fewshot.arrays import unit
from fewshot_plugins._descent import adamw, batches, cosine_slope, cross_entropy_slope
from fewshot_plugins.zero_shot import phrase_means


@dataclass(frozen=True)
class TaskRes(Strategy):
    """Keep the text classifier t as it is and learn only what the task adds to it.

    w_k = t_k + alpha r_k and logit_k = scale z.w_k / |w_k| (eq. 5 of the paper), with r from 0 by AdamW on the
    cross-entropy of the examples. alpha = 0.5 is the paper's for all data sets but one; the number of steps is that
    of its 200 epochs, with all examples in each step instead of random batches, so the result is the same every time.
    """

    name = "task_res"
    needs = frozenset({"support", "text"})
    speed = "gradient"
    paper = "Yu et al. 2023, arXiv:2211.10277"
    alpha: float = option(0.5, "share of the residual", min=0.0)
    scale: float = option(100.0, "factor on the cosine (CLIP's own is 100)", min=0.0)
    rate: float = option(0.002, "learning rate at the start; it falls along a cosine", min=0.0)
    steps: int = option(200, "steps of AdamW", min=0)

    def fit(self, task: Task) -> LinearHead:
        """Learn the residuals.  -> weight [*B, C, D]"""
        text, take = unit(phrase_means(task)), batches(task)

        def slope(residual: Tensor, step: int) -> Tensor:
            weight = text + self.alpha * residual  # [*B, C, D]
            query, labels = take(step)
            error = cross_entropy_slope(self.scale * query @ unit(weight).mT, labels)  # [*B, n, C]
            return self.alpha * cosine_slope(weight, self.scale * error.mT @ query)

        residual = adamw(torch.zeros_like(text), slope, self.steps, self.rate, decay=0.0, eps=1e-8)
        return LinearHead(self.scale * unit(text + self.alpha * residual))


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `task_res`."""
    register(TaskRes)
