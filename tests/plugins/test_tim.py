"""`tim` and `alpha_tim` against loops over the papers' equations, autograd with torch's Adam, and easyfsl."""

import pytest
import torch
from torch import Tensor

from easyfsl_peer import easyfsl_scores
from fewshot import Task, fit
from fewshot.testing import toy_task
from fewshot_plugins.alpha_tim import AlphaTim
from fewshot_plugins.tim import Tim

INPUTS = ("support", "unlabeled")


def known(task: Task) -> tuple[Tensor, Tensor]:
    keep = task.labels >= 0
    return task.support[keep], task.labels[keep]


def class_means(task: Task) -> Tensor:
    support, labels = known(task)
    return torch.stack([support[labels == k].mean(0) for k in range(task.classes)])


def probability(z: Tensor, w: Tensor, temperature: float) -> Tensor:
    return torch.stack([-temperature / 2 * (z - c).square().sum() for c in w]).softmax(0)


def literal_adm(task: Task, steps: int, ce: float = 0.1, cond: float = 0.1, temperature: float = 15.0) -> Tensor:
    """Proposition 1 of the paper, one item and one class after the other.  -> prototypes [C, D]"""
    (support, labels), items, classes = known(task), task.unlabeled, task.classes
    w = class_means(task)
    for _ in range(steps):
        p = torch.stack([probability(z, w, temperature) for z in items])
        ps = torch.stack([probability(z, w, temperature) for z in support])
        q = p ** (1 + cond) / (p ** (1 + cond)).sum(0).sqrt()
        q = q / q.sum(1, keepdim=True)
        moved = torch.zeros_like(w)
        for k in range(classes):
            top, bottom = torch.zeros_like(w[0]), 0.0
            for z, label, pi in zip(support, labels, ps, strict=True):
                y = float(label == k)
                top = top + ce / (1 + cond) * (y * z + pi[k] * (w[k] - z))
                bottom = bottom + ce / (1 + cond) * y
            for z, qi, pi in zip(items, q, p, strict=True):
                top = top + len(support) / len(items) * (qi[k] * z + pi[k] * (w[k] - z))
                bottom = bottom + len(support) / len(items) * qi[k]
            moved[k] = top / bottom
        w = moved
    return w


def entropy(p: Tensor, alpha: float) -> Tensor:
    return -(p * p.log()).sum(-1) if alpha == 1 else (1 - (p**alpha).sum(-1)) / (alpha - 1)


def autograd(task: Task, weights: tuple[float, float, float], alpha: float, rate: float, steps: int) -> Tensor:
    """The objective through autograd and torch.optim.Adam.  -> prototypes [C, D]"""
    support, labels = known(task)
    w = class_means(task).clone().requires_grad_()
    adam = torch.optim.Adam([w], lr=rate)
    for _ in range(steps):
        p = (-7.5 * torch.cdist(task.unlabeled, w).square()).softmax(-1)
        ce = torch.nn.functional.cross_entropy(-7.5 * torch.cdist(support, w).square(), labels)
        loss = weights[0] * ce - weights[1] * entropy(p.mean(0), alpha) + weights[2] * entropy(p, alpha).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return w.detach()


def test_adm_follows_proposition_one() -> None:
    task = toy_task(INPUTS, shots=3, ragged=True, noise=1.0)
    head = fit(Tim(steps=7), task)
    torch.testing.assert_close(head.weight / 15, literal_adm(task, 7))


def test_adm_is_the_same_where_rows_outnumber_dims() -> None:
    """With more than 2 D rows no Gram matrix is formed."""
    task = toy_task(INPUTS, shots=3, dim=8, noise=1.0)
    assert task.support.shape[0] + task.unlabeled.shape[0] > 16
    torch.testing.assert_close(fit(Tim(steps=5), task).weight / 15, literal_adm(task, 5))


@pytest.mark.parametrize("shots", [1, 3])
def test_gradient_is_that_of_autograd(shots: int) -> None:
    task = toy_task(INPUTS, shots=shots, ragged=True, noise=1.0)
    head = fit(Tim(solver="gd", steps=20, rate=1e-3), task)
    torch.testing.assert_close(head.weight / 15, autograd(task, (0.1, 1.0, 0.1), 1.0, 1e-3, 20))


@pytest.mark.parametrize("alpha", [1.0, 2.0, 5.0])
def test_alpha_gradient_is_that_of_autograd(alpha: float) -> None:
    task = toy_task(INPUTS, shots=2, ragged=True, noise=1.0)
    head = fit(AlphaTim(alpha=alpha, steps=20), task)
    torch.testing.assert_close(head.weight / 15, autograd(task, (1.0, 1.0, 1.0), alpha, 1e-3, 20))


def test_predictions_equal_easyfsl() -> None:
    """easyfsl scores by cosine: the paper's distance at one shot, but for how far the prototypes' lengths drift."""
    task = toy_task(INPUTS, classes=6, shots=1, noise=1.0)
    options = {"temperature": 15.0, "cross_entropy_weight": 0.1, "fine_tuning_lr": 1e-3}
    theirs = easyfsl_scores("TIM", task, task.unlabeled, **options)
    ours = fit(Tim(solver="gd", steps=50, rate=1e-3), task).logits(task.unlabeled)
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))
    assert not torch.equal(ours.argmax(-1), (task.unlabeled @ task.support.mT).argmax(-1))  # the items did matter


def test_both_solvers_lower_the_objective() -> None:
    task = toy_task(INPUTS, shots=2, noise=1.0)

    def objective(w: Tensor) -> float:
        support, labels = known(task)
        p = (-7.5 * torch.cdist(task.unlabeled, w).square()).softmax(-1)
        ce = torch.nn.functional.cross_entropy(-7.5 * torch.cdist(support, w).square(), labels)
        return float(0.1 * ce - entropy(p.mean(0), 1) + 0.1 * entropy(p, 1).mean())

    start = objective(class_means(task))
    for strategy in (Tim(), Tim(solver="gd", steps=100, rate=1e-3)):
        assert objective(fit(strategy, task).weight / 15) < start - 0.003
