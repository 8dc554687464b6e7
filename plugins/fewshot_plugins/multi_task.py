"""Multi-task features: label sets share a low-rank metric. Argyriou, Evgeniou, Pontil 2008, Machine Learning 73."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import LinearHead, Strategy, Task, hookimpl, make_task, option
from fewshot.errors import MissingInput
from fewshot.task import one_hot
from fewshot.transfer.spectrum import spectrum
from fewshot_plugins._weighted import weighted_ridge
from fewshot_plugins.ridge import Ridge


@dataclass(frozen=True, slots=True)
class Metric:
    """Square root of D = floor I + P diag(extra) P', and its product with rows, without a D x D matrix."""

    floor: float  # root of D outside of the axes
    axes: Tensor  # [D, M] orthonormal
    roots: Tensor  # [M] root of D along them

    def times(self, rows: Tensor) -> Tensor:
        """Rows times D^1/2.  [n, D] -> [n, D]"""
        return self.floor * rows + (rows @ self.axes * (self.roots - self.floor)) @ self.axes.mT


def shared_metric(weights: Tensor, dim: int, epsilon: float) -> Metric:
    """The best metric for weights that are known: (W'W + e I)^1/2 over its trace, times D to have mean 1.

    With e = epsilon times the mean square of the weights' singular values, so that scale does not matter.

    weights [K, D]
    """
    values, vectors = torch.linalg.eigh(weights @ weights.mT)  # [K], [K, K]
    kept = values > 1e-12 * values[-1].clamp_min(1e-300)
    values = values[kept]
    axes = weights.mT @ vectors[:, kept] / values.sqrt()  # [D, M]
    noise = float(epsilon * values.mean()) if len(values) else 1.0
    along, across = (values + noise).sqrt(), noise**0.5  # [M] of D
    trace = float(along.sum()) + (dim - len(along)) * across
    return Metric((across * dim / trace) ** 0.5, axes, (along * dim / trace).sqrt())


def learn_metric(problems: list[tuple[Tensor, Tensor]], lam: float, epsilon: float, rounds: int) -> Metric:
    """Alternate between ridge regressions in the metric and the best metric for their weights.

    Minimises sum_t |Y_t - X_t W_t'|^2 + lam tr(W_t D^-1 W_t') + epsilon terms over W_t and D of fixed trace, which is
    convex; its value at the best D is the squared trace norm of all weights together, which prefers low rank.

    Parameters
    ----------
    problems
        one (items [n, D], one-hot labels [n, C]) a label set.
    """
    dim, problems = problems[0][0].shape[1], [condensed(x, y) for x, y in problems]
    metric = Metric(1.0, problems[0][0].new_zeros(dim, 0), problems[0][0].new_zeros(0))
    for _ in range(rounds):
        found = []
        for x, y in problems:
            ones = torch.ones(len(x), dtype=x.dtype, device=x.device)
            w, _ = weighted_ridge(metric.times(x), y, ones, lam)  # [C, D]
            found.append(metric.times(w))
        metric = shared_metric(torch.cat(found), dim, epsilon)
    return metric


def condensed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """At most 2 D rows with the regression weights of n, in any metric: those depend on x'x and x'y about the means.

    With V the principal axes of the centred x and e their energies, rows sqrt(e) V' have its x'x, and with targets
    V'x'y / sqrt(e) its x'y; beside their mirror images, all over sqrt(2), both have mean 0.

    [n, D], [n, C] -> [2 R, D], [2 R, C]
    """
    if len(x) <= 2 * x.shape[1]:
        return x, y
    left, _ = spectrum(x - x.mean(0))  # [n, R]
    rows = left.mT @ (x - x.mean(0)) / 2**0.5  # [R, D] sqrt(e) V'
    targets = left.mT @ (y - y.mean(0)) / 2**0.5  # [R, C]
    return torch.cat([rows, -rows]), torch.cat([targets, -targets])


@dataclass(frozen=True)
class MultiTask(Strategy):
    """Learn the source's classes and the task's together, each with its own weights over one shared low-rank metric.

    Label sets t (the source's, of any classes, and the task's) have ridge regressions W_t [C_t, D] with penalty
    lam tr(W_t D^-1 W_t'), and D, positive with trace D, is learned with them: D = (W'W + e I)^1/2 normalised, W all
    weights. D^1/2 is the adapter: directions that help any label set are enlarged, the others shrink to a floor that e
    sets. The problem is convex; 10 rounds of alternation come within a percent of its end. The task's own head is
    `ridge`, with its leave-one-out choices, on the adapted examples: logits = W D^1/2 z + b. Without shared structure D
    stays near I, and the answer is that of `ridge` apart.
    """

    name = "multi_task"
    needs = frozenset({"support", "source"})
    batched = False
    speed = "iterative"
    paper = "Argyriou, Evgeniou, Pontil 2008, doi:10.1007/s10994-007-5040-8"
    lam: float = option(30.0, "penalty on the weights in the shared metric", min=1e-6)
    epsilon: float = option(0.1, "floor of the metric, as a share of the mean square of the weights", min=1e-9)
    rounds: int = option(10, "rounds of alternation", min=1)

    def fit(self, task: Task) -> LinearHead:
        """Learn the metric, then the task's head in it.  -> weight [C, D], bias [C]"""
        far, near = task.source_labels >= 0, task.labels >= 0
        kinds, numbers = torch.unique(task.source_labels[far], return_inverse=True)
        if len(kinds) < 2:
            raise MissingInput(f"strategy {self.name!r} wants at least 2 classes in the source, got {len(kinds)}")
        support, labels = task.support[near].double(), task.labels[near]
        problems = [
            (task.source[far].double(), one_hot(numbers, len(kinds), torch.float64)),
            (support, one_hot(labels, task.classes, torch.float64)),
        ]
        metric = learn_metric(problems, self.lam, self.epsilon, self.rounds)
        head = Ridge().fit(make_task(metric.times(support), labels, classes=task.classes))
        assert head.bias is not None
        return LinearHead(metric.times(head.weight).to(task.dtype), head.bias.to(task.dtype))


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `multi_task`."""
    register(MultiTask)
