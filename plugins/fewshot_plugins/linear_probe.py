"""Linear probe: multinomial logistic regression to its optimum. Radford et al. 2021 (CLIP), arXiv:2103.00020, A.3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot import LinearHead, Strategy, Task, hookimpl, option
from fewshot_plugins._folds import folds
from fewshot_plugins._softmax import softmax_regression

GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # values of C that `folds` tries
DEFAULT_C = 30.0


@dataclass(frozen=True)
class LinearProbe(Strategy):
    """Logistic regression with a squared penalty on the weights, as scikit-learn's LogisticRegression defines it.

    Minimises |W|^2 / 2 + C sum_i -log softmax(W x_i + b)[y_i] over W [C, D] and b [C]; logits = W z + b. The optimum is
    unique but for a constant added to b. A task of few examples is solved in the span of its examples.

    `c` is scikit-learn's C. CLIP searches it on a validation set, which a few-shot task does not have: 30 is within
    0.1 points of the best constant over the five picture sets at 1 to 16 shots (10: -0.3, 100: +0.1, 300: -0.1), and
    `folds` chooses it for each task by cross-validated log-loss on the support. Larger values fit the probabilities
    better and take more steps.

    Over three training splits and sign_digits at 1 to 8 shots C = 30 scores 68.8 % on average and `folds=5` 69.2 %,
    for a regression more of each C and fold, which is why it is not the default; 0.316, CLIP's for ImageNet, 64.3 %
    (benchmarks/constants.py).
    """

    name = "linear_probe"
    speed = "iterative"
    paper = "Radford et al. 2021, arXiv:2103.00020"
    c: float = option(DEFAULT_C, "C: weight of the examples against the penalty on the weights", min=1e-6, max=1e6)
    folds: int = option(0, "choose C by cross-validation over so many parts of the support; 0 takes c", min=0)
    tolerance: float = option(1e-5, "stop within this share of the least objective", min=1e-12, max=1.0)
    max_iter: int = option(500, "most steps", min=1)

    def fit(self, task: Task) -> LinearHead:
        """Solve the regression.  -> weight [*B, C, D], bias [*B, C]"""
        c = task.support.new_full(task.batch_shape, self.c)  # [*B]
        if self.folds > 1:
            c = self._choose(task, c)
        return self._solve(task.support, task.one_hot(), c)

    def _solve(self, x: Tensor, y: Tensor, c: Tensor) -> LinearHead:
        return LinearHead(*softmax_regression(x, y, 1 / c, tolerance=self.tolerance, max_iter=self.max_iter))

    def _choose(self, task: Task, default: Tensor) -> Tensor:
        """Find the C of least log-loss on held-out examples; where none can be held out, `default`.  -> [*B]"""
        part = folds(task, self.folds)  # [*B, S]
        hot, target = task.one_hot(), task.labels.clamp_min(0).unsqueeze(-1)  # [*B, S, C], [*B, S, 1]
        losses = torch.zeros(len(GRID), *task.batch_shape, dtype=task.dtype, device=task.device)  # [G, *B]
        for number in range(self.folds):
            out = part == number  # [*B, S]
            for row, c in enumerate(GRID):
                head = self._solve(task.support, hot * ~out.unsqueeze(-1), torch.full_like(default, c))
                score = F.log_softmax(head.logits(task.support), -1).gather(-1, target).squeeze(-1)  # [*B, S]
                losses[row] -= torch.where(out, score, torch.zeros_like(score)).sum(-1)
        best = default.new_tensor(GRID)[losses.argmin(0)]  # [*B]
        return torch.where((part >= 0).any(-1), best, default)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `linear_probe`."""
    register(LinearProbe)
