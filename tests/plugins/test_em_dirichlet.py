"""`em_dirichlet` against a loop over the paper's equations with scipy's optimiser, and scipy's Dirichlet."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import dirichlet
from torch import Tensor

from fewshot import Task, fit
from fewshot.arrays import unit
from fewshot.testing import toy_task
from fewshot_plugins._guard import GuardWarning
from fewshot_plugins.em_dirichlet import EmDirichlet, fit_dirichlet


def most_likely(u: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Dirichlet parameters of greatest weighted likelihood, by scipy over their logarithms."""

    def loss(log_alpha: np.ndarray) -> float:
        return -float(sum(w * dirichlet.logpdf(x, np.exp(log_alpha)) for w, x in zip(weights, u, strict=True)))

    found = minimize(loss, np.zeros(u.shape[1]), method="BFGS", options={"gtol": 1e-7})
    return np.exp(found.x)


def probabilities(task: Task, rows: Tensor, temperature: float) -> np.ndarray:
    return (temperature * rows @ unit(task.text.mean(1)).T).softmax(-1).numpy()


@pytest.mark.parametrize("inputs", [("text", "unlabeled"), ("support", "text", "unlabeled")])
def test_logits_of_unlabelled_items_are_those_of_the_papers_loop(inputs: tuple[str, ...]) -> None:
    task = toy_task(inputs, classes=3, shots=2, ragged=True, noise=1.0)
    items, support = probabilities(task, task.unlabeled, 5.0), probabilities(task, task.support, 5.0)
    hot = task.one_hot().numpy()
    a = items.copy()
    for _ in range(3):
        every, u = np.concatenate([hot, a]), np.concatenate([support, items])
        alpha = [most_likely(u, every[:, k]) for k in range(3)]
        share = a.mean(0)
        score = np.array([[dirichlet.logpdf(x, alpha[k]) + 3 / 5 * np.log(share[k]) for k in range(3)] for x in items])
        a = np.exp(score - score.max(1, keepdims=True))
        a /= a.sum(1, keepdims=True)
    got = fit(EmDirichlet(temperature=5.0, steps=3), task).logits(task.unlabeled)
    torch.testing.assert_close(got, torch.from_numpy(score), atol=1e-4, rtol=1e-4)


def test_a_mixture_that_loses_its_classes_is_left_for_the_inductive_answer() -> None:
    """With many classes the paper's m = C / 5 draws even items, which the text tells apart, into a few of them."""
    task = toy_task(("text", "unlabeled"), classes=40, dim=64, noise=2.0)
    truth = torch.arange(40).repeat_interleave(6)
    lost = fit(EmDirichlet(guard=False), task).logits(task.unlabeled).argmax(-1)
    assert len(lost.unique()) < 5
    with pytest.warns(GuardWarning, match="seem to lie in few of the 40 classes"):
        head = fit(EmDirichlet(), task)
    assert not bool(head.used)
    assert float((head.logits(task.unlabeled).argmax(-1) == truth).double().mean()) > 0.5


def test_newton_finds_the_parameters_of_a_sample() -> None:
    wanted = np.array([[0.3, 2.0, 5.0], [20.0, 1.0, 8.0]])
    target = []
    for alpha in wanted:
        sample = np.random.default_rng(0).dirichlet(alpha, 200)
        target.append(np.log(sample).mean(0))
    got = fit_dirichlet(torch.tensor(np.array(target)), torch.ones(2, 3).double(), steps=30)
    gradient = torch.digamma(got.sum(-1, keepdim=True)) - torch.digamma(got) + torch.tensor(np.array(target))
    torch.testing.assert_close(gradient, torch.zeros(2, 3).double(), atol=1e-8, rtol=0)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0.3)
