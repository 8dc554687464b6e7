"""One-shot learning with a prior from other classes. Fei-Fei, Fergus, Perona 2006, doi:10.1109/TPAMI.2006.79."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot.task import one_hot
from fewshot_plugins.prototypical import class_means


@dataclass(frozen=True)
class Prior:
    """Normal-inverse-Wishart prior: Sigma ~ IW(scatter, freedom), class mean ~ N(mean, Sigma / strength)."""

    mean: Tensor  # [*B, 1, D]
    strength: Tensor  # [*B, 1, 1] how many examples the prior mean is worth
    scatter: Tensor  # [*B, D, D]
    freedom: Tensor  # [*B, 1, 1]


@dataclass(frozen=True)
class StudentHead:
    """Logarithm of the multivariate Student densities of the classes, less what all have in common."""

    mean: Tensor  # [*B, C, D]
    whiten: Tensor  # [*B, D, D], or one for the whole batch: to coordinates in which the prior's scatter is I
    update: Tensor  # [*B, M, D] u, in those coordinates: the scatter's inverse is I - u'u
    widen: Tensor  # [*B, 1, C] 1 + 1 / k_c: an uncertain mean widens the density
    freedom: Tensor  # [*B, 1, 1]
    scale: float

    def logits(self, query: Tensor) -> Tensor:
        """Score queries.  [*B, Q, D] -> [*B, Q, C]

        log t = -(f + D)/2 log(1 + d^2 / h_c) - D/2 log h_c + const, with d the distance in the metric of the scatter.
        """
        z, m = query @ self.whiten.mT, self.mean @ self.whiten.mT  # [*B, Q, D], [*B, C, D]
        square = squares(z, m) - squares(z @ self.update.mT, m @ self.update.mT)  # [*B, Q, C]
        tail = (self.freedom + query.shape[-1]) / 2 * torch.log1p(square.clamp_min(0) / self.widen)
        return -self.scale * (tail + query.shape[-1] / 2 * self.widen.log())


def squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances between rows.  [*B, Q, D], [*B, C, D] -> [*B, Q, C]"""
    return a.square().sum(-1, keepdim=True) + b.square().sum(-1).unsqueeze(-2) - 2 * a @ b.mT


def learn_prior(task: Task, shrink: float) -> Prior:
    """Moments of the source classes.

    Within-class scatter gives Sigma; the spread of the class means, less what comes from having few examples of each,
    gives the strength: tr(within) / tr(between). `shrink` times the trace over the degrees of freedom is added to
    the diagonal of the scatter, as in `gda`.
    """
    source, labels = shared(task.source), shared(task.source_labels, dims=1)
    hot = one_hot(labels, int(labels.max()) + 1, source.dtype)  # [*B, N, K]
    count = hot.sum(-2)  # [*B, K]
    there = (count > 0).to(source.dtype)  # [*B, K]
    classes = there.sum(-1)[..., None, None].clamp_min(1)  # [*B, 1, 1]
    means = hot.mT @ source / count.clamp_min(1).unsqueeze(-1)  # [*B, K, D]
    mean = there.unsqueeze(-2) @ means / classes  # [*B, 1, D]
    x = hot.sum(-1, keepdim=True) * (source - hot @ means)  # [*B, N, D]
    spare = (count.sum(-1)[..., None, None] - classes).clamp_min(1)  # [*B, 1, 1] degrees of freedom
    within = x.square().sum((-2, -1), keepdim=True) / spare  # [*B, 1, 1] trace
    spread = (there.unsqueeze(-1) * (means - mean)).square().sum((-2, -1), keepdim=True)
    noise = (there / count.clamp_min(1)).sum(-1)[..., None, None] / classes  # [*B, 1, 1] mean of 1 / n
    between = spread / (classes - 1).clamp_min(1) - noise * within
    within = within.clamp_min(1e-6)
    strength = (within / between.clamp_min(1e-6)).clamp(1e-3, 1e3)
    eye = torch.eye(source.shape[-1], dtype=source.dtype, device=source.device)
    return Prior(mean, strength, x.mT @ x + shrink * within * eye, spare + source.shape[-1] + 1)


def shared(tensor: Tensor, dims: int = 2) -> Tensor:
    """Keep one of the copies where a source is expanded over the batch, so that it is summed up once only."""
    for dim in range(tensor.ndim - dims):
        if tensor.stride(dim) == 0:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def posterior_metric(scatter: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates in which the inverse of scatter + rows' rows is I - u'u.  -> whiten [*B, D, D], u [*B, M, D]

    The prior's scatter is factored once for a whole batch that shares it. In its coordinates the examples r add r'r to
    I, and (I + r'r)^-1 = I - r'(I + r r')^-1 r (Woodbury); with more rows than dims I + r'r is factored instead, and u
    is empty.
    """
    eye = torch.eye(scatter.shape[-1], dtype=scatter.dtype, device=scatter.device)
    whiten = inverse_factor(scatter)
    r = rows @ whiten.mT  # [*B, M, D]
    if r.shape[-2] >= r.shape[-1]:
        return inverse_factor(eye + r.mT @ r) @ whiten, r[..., :0, :]
    small = torch.eye(r.shape[-2], dtype=r.dtype, device=r.device)
    return whiten, inverse_factor(small + r @ r.mT) @ r


def inverse_factor(matrix: Tensor) -> Tensor:
    """Inverse of the Cholesky factor.  [*B, R, R] -> [*B, R, R]"""
    factor = torch.linalg.cholesky(matrix)
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    inverse: Tensor = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
    return inverse


@dataclass(frozen=True)
class Bayes(Strategy):
    """Classify by posterior predictive densities under a prior learned from the classes of `source`.

    Classes are normal with means mu_c and one covariance Sigma. Conjugate prior from the source: Sigma ~ IW(Psi, v),
    mu_c ~ N(m, Sigma / k). After n_c examples of class c with mean x_c and scatter S_c:

        k_c = k + n_c,  m_c = (k m + n_c x_c) / k_c,  v' = v + sum n_c,
        Psi' = Psi + sum_c [S_c + k n_c / k_c (x_c - m)(x_c - m)'],

    and a new item of class c has a Student density with f = v' - D + 1 degrees of freedom, location m_c and scale
    matrix Psi' (1 + 1 / k_c) / f. This is the paper's idea with one part and no shape, with one covariance for all
    classes since each has few examples, and in closed form since the prior is conjugate. logit_c = scale log density;
    `scale` is far below 1 because an embedding's elements are not normal and log densities add up over all of them.

    Over the five picture sets at 1, 4 and 16 shots, with the training classes of another set as source (of the same
    set for cifar_fs), `shrink` 2 scores 70.4 % on average (0.1: 69.3 %, 0.5: 70.3 %, 8: 69.9 %; nearest means: 68.6 %).
    """

    name = "bayes"
    needs = frozenset({"support", "source"})
    paper = "Fei-Fei, Fergus, Perona 2006, doi:10.1109/TPAMI.2006.79"
    heads = (StudentHead,)
    shrink: float = option(2.0, "factor on the trace that is added to the diagonal of the source's scatter", min=1e-4)
    scale: float = option(0.05, "factor on the log densities; higher is more confident", min=0.0)

    def fit(self, task: Task) -> StudentHead:
        """Learn the prior, then the posterior.  -> mean [*B, C, D], whiten [*B, D, D], update [*B, M, D] ..."""
        prior = learn_prior(task, self.shrink)
        hot, count = task.one_hot(), task.counts().unsqueeze(-1)  # [*B, S, C], [*B, C, 1]
        mean = class_means(task)  # [*B, C, D]
        strength = prior.strength + count  # [*B, C, 1]
        x = hot.sum(-1, keepdim=True) * (task.support - hot @ mean)  # [*B, S, D]
        away = (prior.strength * count / strength).sqrt() * (mean - prior.mean)  # [*B, C, D]
        whiten, update = posterior_metric(prior.scatter, torch.cat([x, away], -2))
        posterior = (prior.strength * prior.mean + count * mean) / strength  # [*B, C, D]
        freedom = prior.freedom + count.sum(-2, keepdim=True) - task.dim + 1  # [*B, 1, 1]
        return StudentHead(posterior, whiten, update, (1 + 1 / strength).mT, freedom, self.scale)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `bayes`."""
    register(Bayes)
