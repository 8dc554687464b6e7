"""Label propagation on a graph of items. Zhou, Bousquet, Lal, Weston, Schoelkopf 2003, NIPS 16, 321-328."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot_plugins._graph import SAME
from fewshot_plugins._guard import SPREAD, choose, usable


@dataclass(frozen=True, slots=True)
class GraphHead:
    """A query joins the graph as one more item and takes the labels of those it is tied to."""

    rows: Tensor  # [*B, n, D] support, then unlabelled items
    labels: Tensor  # [*B, n, C] their propagated labels over the root of their degree; zero rows for what not to ask
    support: int  # rows that are support
    gamma: float
    used: Tensor  # [*B] bool; False: the guard fell back to the labels of the support alone

    def logits(self, query: Tensor) -> Tensor:
        """Log of the share of each class in the labels a query receives.  [*B, Q, D] -> [*B, Q, C]"""
        cosine = query @ self.rows.mT  # [*B, Q, n]
        best = cosine[..., self.support :].max(-1, keepdim=True)  # [*B, Q, 1]
        own = torch.where(best.values > 1 - SAME, -torch.inf, best.values)  # an unlabelled item asked about again
        cosine = cosine.scatter(-1, best.indices + self.support, own)
        nearest = cosine.amax(-1, keepdim=True)  # [*B, Q, 1] a factor that shares do not see and that keeps exp > 0
        received = (2 * self.gamma * (cosine - nearest)).exp() @ self.labels  # [*B, Q, C]
        return received.clamp_min(torch.finfo(received.dtype).tiny).log().log_softmax(-1)


def propagate(rows: Tensor, labels: Tensor, valid: Tensor, gamma: float, alpha: float) -> Tensor:
    """Solve F = alpha S F + (1 - alpha) Y and divide each row by the root of its degree.  -> [*B, n, C]

    S = R^-1 W R^-1 with W_ij = exp(-gamma |z_i - z_j|^2), W_ii = 0, and R^2 the diagonal of W's row sums; I - alpha S
    is positive definite, since S has no eigenvalue above 1.

    Parameters
    ----------
    rows
        unit-norm items.  [*B, n, D]
    labels
        Y, one-hot rows for labelled items and zero rows for others.  [*B, n, C]
    valid
        1 for items, 0 for padding, which is tied to nothing.  [*B, n]
    """
    tie = (2 * gamma * (rows @ rows.mT - 1)).exp() * valid.unsqueeze(-1) * valid.unsqueeze(-2)  # [*B, n, n]
    tie.diagonal(0, -2, -1).zero_()
    root = tie.sum(-1).clamp_min(torch.finfo(tie.dtype).tiny).rsqrt()  # [*B, n]
    system = torch.eye(rows.shape[-2], dtype=rows.dtype, device=rows.device) - alpha * (
        root.unsqueeze(-1) * tie * root.unsqueeze(-2)
    )
    factor = torch.linalg.cholesky_ex(system)[0]
    return torch.cholesky_solve((1 - alpha) * labels, factor) * (root * valid).unsqueeze(-1)


def with_source(task: Task) -> Task:
    """Count the source's items of the task's classes as support, so that the graph joins both domains."""
    if not task.source.shape[-2]:
        return task
    labels = torch.where(task.source_labels < task.classes, task.source_labels, -1)  # [*B, N]
    support = torch.cat([task.support, task.source], -2)  # [*B, S + N, D]
    return replace(task, support=support, labels=torch.cat([task.labels, labels], -1))


@dataclass(frozen=True)
class LabelPropagation(Strategy):
    """Let labels flow from the support along ties between similar items, until they settle.

    With W_ij = exp(-gamma |z_i - z_j|^2), W_ii = 0, over the support and the unlabelled items, S = R^-1/2 W R^-1/2 its
    normalisation by the row sums R, and Y the one-hot labels of the support, solve F = alpha S F + (1 - alpha) Y. It is
    what scikit-learn's LabelSpreading iterates to. A query z outside the graph receives
    sum_j W(z, z_j) F_j / sqrt(R_j), which for an unlabelled item in the graph is, up to a factor, its own row of F.
    A `source` joins the graph: its items of the task's classes are labelled like support. gamma and alpha were chosen
    on five sets of pictures; the paper has alpha = 0.99 and a gamma that depends on the data.
    """

    name = "label_propagation"
    needs = frozenset({"support", "unlabeled"})
    uses = frozenset({"source"})
    paper = "Zhou, Bousquet, Lal, Weston, Schoelkopf 2003, NIPS 16, 321-328"
    heads = (GraphHead,)
    alpha: float = option(0.5, "share of its labels that an item takes from its neighbours", min=0.0, max=0.999)
    gamma: float = option(10.0, "how fast ties weaken with the squared distance", min=0.0)
    guard: bool = option(True, "give the inductive answer when the unlabelled items are too few or too skewed")

    def fit(self, task: Task) -> GraphHead:
        """Propagate the labels.  -> labels [*B, S + U, C]"""
        task = with_source(task)
        rows = torch.cat([task.support, task.unlabeled], -2)  # [*B, n, D]
        items = task.unlabeled.shape[-2]
        known = task.one_hot()  # [*B, S, C]
        hot = torch.nn.functional.pad(known, (0, 0, 0, items))  # [*B, n, C]
        valid = torch.nn.functional.pad((task.labels >= 0).to(task.dtype), (0, items), value=1.0)  # [*B, n]
        direct = known / known.sum(-2, keepdim=True)  # [*B, S, C] ties to a class, averaged
        plain = (2 * self.gamma * (task.unlabeled @ task.support.mT - 1)).exp() @ direct  # [*B, U, C]
        used = usable(self.name, (plain, SPREAD), per_class=2, guard=self.guard)
        spread = propagate(rows, hot, valid, self.gamma, self.alpha)  # [*B, n, C]
        alone = torch.nn.functional.pad(direct, (0, 0, 0, items))  # [*B, n, C]
        return GraphHead(rows, choose(used, spread, alone), task.support.shape[-2], self.gamma, used)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `label_propagation`."""
    register(LabelPropagation)
