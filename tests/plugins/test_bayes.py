"""`bayes` against the posterior written out in numpy with scipy's Student density, and against what it is for."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_t

from fewshot import Task, fit
from fewshot.arrays import unit
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins.bayes import Bayes
from fewshot_plugins.prototypical import Prototypical


def literal(task: Task, query: np.ndarray, shrink: float) -> np.ndarray:
    """Posterior predictive log densities, class by class."""
    dim = task.dim
    source, support = task.source.numpy(), task.support.numpy()
    groups = [source[task.source_labels.numpy() == k] for k in np.unique(task.source_labels.numpy())]
    m = np.mean([g.mean(0) for g in groups], 0)
    spare = len(source) - len(groups)
    scatter = sum(np.cov(g.T, bias=True) * len(g) for g in groups)
    within = np.trace(scatter) / spare
    between = sum(((g.mean(0) - m) ** 2).sum() for g in groups) / (len(groups) - 1)
    between -= np.mean([1 / len(g) for g in groups]) * within
    k = within / between
    psi, v = scatter + shrink * within * np.eye(dim), spare + dim + 1
    posterior = []
    for c in range(task.classes):
        own = support[task.labels.numpy() == c]
        mean, n = own.mean(0), len(own)
        psi = psi + (own - mean).T @ (own - mean) + k * n / (k + n) * np.outer(mean - m, mean - m)
        v += n
        posterior.append(((k * m + n * mean) / (k + n), k + n))
    f = v - dim + 1
    return np.stack([multivariate_t(mc, psi * (1 + 1 / kc) / f, f).logpdf(query) for mc, kc in posterior], 1)


@pytest.mark.parametrize("dim", [5, 24])  # more rows than dims, and fewer: the two forms of the posterior
def test_logits_are_posterior_predictive_densities(dim: int) -> None:
    task = toy_task({"support", "source"}, dim=dim, classes=3, shots=4, ragged=True)
    query, _ = toy_queries(task)
    got = fit(Bayes(shrink=0.7, scale=1.0), task).logits(query).numpy()
    wanted = literal(task, query.numpy(), 0.7)
    np.testing.assert_allclose(got - got.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True), atol=1e-8)


def test_a_source_expanded_over_the_batch_counts_once_and_gives_the_same() -> None:
    task = toy_task({"support", "source"}, batch=(3,))
    one = task.source[:1], task.source_labels[:1]
    expanded = Task(**fields(task) | {"source": one[0].expand(3, -1, -1), "source_labels": one[1].expand(3, -1)})
    copied = Task(**fields(task) | {"source": one[0].repeat(3, 1, 1), "source_labels": one[1].repeat(3, 1)})
    query, _ = toy_queries(task)
    head = fit(Bayes(), expanded)
    assert head.whiten.shape[0] == 1
    torch.testing.assert_close(head.logits(query), fit(Bayes(), copied).logits(query))


def fields(task: Task) -> dict[str, torch.Tensor]:
    return {name: getattr(task, name) for name in Task.__slots__}


def test_the_source_teaches_which_directions_tell_classes_apart() -> None:
    """Classes differ in the first 6 of 30 dims, items of a class in the rest, which one example cannot tell."""
    rng = torch.Generator().manual_seed(0)

    def items(classes: int, each: int) -> tuple[torch.Tensor, torch.Tensor]:
        centre = torch.cat([torch.randn(classes, 6, generator=rng), torch.zeros(classes, 24)], -1)
        labels = torch.arange(classes).repeat_interleave(each)
        noise = torch.cat([torch.full((6,), 0.1), torch.full((24,), 0.8)])
        return unit(centre[labels] + noise * torch.randn(len(labels), 30, generator=rng)), labels

    source, source_labels = items(20, 20)
    x, labels = items(5, 41)
    first = torch.arange(5) * 41
    rest = torch.ones(len(x), dtype=torch.bool)
    rest[first] = False
    task = Task(**fields(toy_task(classes=5, shots=1, dim=30, dtype=torch.float32)) | {
        "support": x[first], "labels": labels[first], "source": source, "source_labels": source_labels})  # fmt: skip

    def accuracy(strategy) -> float:
        return float((fit(strategy, task).logits(x[rest]).argmax(-1) == labels[rest]).float().mean())

    assert accuracy(Bayes(shrink=0.1)) > accuracy(Prototypical()) + 0.1
