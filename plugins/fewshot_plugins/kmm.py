"""Kernel mean matching. Huang, Smola, Gretton, Borgwardt, Schoelkopf 2006, NIPS 19."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import LinearHead, Strategy, Task, hookimpl, option
from fewshot.task import one_hot
from fewshot.transfer.gap import median_width, rbf
from fewshot_plugins._domains import domains
from fewshot_plugins._weighted import weighted_ridge

STEPS, ENOUGH = 2000, 1e-10  # steps at most; relative change of the weights that ends the search
BLOCK = 1024  # rows of the source compared with the target at a time


def mean_matching(source: Tensor, target: Tensor, bound: float, slack: float) -> Tensor:
    """Weights of the source's items that bring its mean in feature space nearest to the target's.  -> [N]

    Minimises b'Kb / 2 - k'b, K = k(x_i, x_j), k_i = N / T sum_j k(x_i, z_j), for 0 <= b_i <= bound and
    |sum b - N| <= N slack, with an RBF kernel of the median width of all items; by projected gradients with Nesterov's
    momentum, restarted where a step goes up (O'Donoghue, Candes 2015).
    """
    width = median_width(torch.cat([source, target]))
    kernel, n = rbf(source, source, width), len(source)  # [N, N]
    pull = n / len(target) * torch.cat([rbf(part, target, width).sum(-1) for part in source.split(BLOCK)])  # [N]
    rate = 1 / float(kernel.sum(-1).max())  # no eigenvalue is above the largest sum of a row
    weight = ahead = project(torch.ones_like(pull), bound, n * (1 - slack), n * (1 + slack))
    momentum = 1.0
    for _ in range(STEPS):
        slope = kernel @ ahead - pull
        new = project(ahead - rate * slope, bound, n * (1 - slack), n * (1 + slack))
        change = new - weight
        uphill = float(slope @ change) > 0
        grown = (1 + (1 + 4 * momentum * momentum) ** 0.5) / 2
        ahead, momentum = (new, 1.0) if uphill else (new + (momentum - 1) / grown * change, grown)
        weight = new
        if not uphill and float(change.abs().max()) <= ENOUGH * float(weight.abs().max()):
            break
    return weight


def project(x: Tensor, bound: float, low: float, high: float) -> Tensor:
    """Nearest point of the box [0, bound]^N with a sum in [low, high]: a shift, found by bisection, then clipped."""
    total = float(x.clamp(0, bound).sum())
    if low <= total <= high:
        return x.clamp(0, bound)
    wanted = low if total < low else high
    a, b = float(-x.max()), bound - float(x.min())  # shifts that make everything 0 or everything the bound
    for _ in range(100):
        middle = (a + b) / 2
        a, b = (middle, b) if float((x + middle).clamp(0, bound).sum()) < wanted else (a, middle)
    return (x + b).clamp(0, bound)


@dataclass(frozen=True)
class Kmm(Strategy):
    """Weigh the source's items so that they look like the target's, then regress on them together with the support.

    The weights bring the source's mean in an RBF kernel's feature space nearest to the mean of the target's items,
    labelled and not (`mean_matching`); the paper's bound is 1000 and its slack (sqrt N - 1) / sqrt N. Then a ridge
    regression onto the one-hot classes with those weights, 1 for each example of the support:
    logits = scale (W z + b), W [C, D]. Weights correct a shift of which items occur, not of how a class looks.
    `lam` is the penalty that `ridge` falls back to.
    """

    name = "kmm"
    needs = frozenset({"source"})
    uses = frozenset({"support", "unlabeled"})
    batched = False
    speed = "iterative"
    paper = "Huang, Smola, Gretton, Borgwardt, Schoelkopf 2006, NIPS 19"
    bound: float = option(1000.0, "largest weight of an item", min=1.0)
    slack: float | None = option(None, "how far the mean weight may be from 1; none: the paper's", min=0.0, max=1.0)
    lam: float = option(0.1, "penalty on the squared weights of the regression", min=1e-6)
    scale: float = option(14.0, "factor on the scores; higher is more confident", min=0.0)

    def fit(self, task: Task) -> LinearHead:
        """Find the weights and solve the regression.  -> weight [C, D], bias [C]"""
        both = domains(task, self.name)
        near = torch.ones(len(both.source), dtype=torch.float64, device=task.device)  # [N]
        if len(both.items):
            usual = 1 - len(near) ** -0.5
            near = mean_matching(both.source, both.items, self.bound, usual if self.slack is None else self.slack)
        hot = one_hot(torch.cat([both.source_labels, both.labels]), task.classes, torch.float64)  # [N + S, C]
        rows, weight = torch.cat([both.source, both.support]), torch.cat([near, near.new_ones(len(both.labels))])
        w, b = weighted_ridge(rows, hot, weight, self.lam)
        return LinearHead((self.scale * w).to(task.dtype), (self.scale * b).to(task.dtype))


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `kmm`."""
    register(Kmm)
