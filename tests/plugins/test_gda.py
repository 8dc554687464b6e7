"""`gda` against scikit-learn's linear discriminants at equal shrinkage, and its factors against what they are for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fewshot import fit
from fewshot.task import without
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins.gda import FACTOR, GDA, discriminants


@pytest.mark.parametrize("dim", [8, 60])  # more examples than dims, and fewer
def test_discriminants_equal_scikit_learn(dim: int) -> None:
    classes, shots = 4, 5
    task = toy_task(dim=dim, classes=classes, shots=shots, noise=1.5)
    query, _ = toy_queries(task, noise=1.5)
    scatter = sum(((x := task.support[task.labels == k]) - x.mean(0)).square().sum() for k in range(classes))
    ridge = float(0.5 * (scatter + 0.5) / (classes * shots - classes + 1))
    ratio = ridge * dim / float(scatter)  # theirs is (1 - s) S + s tr(S) / D I, ours S + ridge I, but for a factor
    uniform = np.full(classes, 1 / classes)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=ratio / (1 + ratio), priors=uniform)
    wanted = theirs.fit(task.support.numpy(), task.labels.numpy()).decision_function(query.numpy())
    wanted = wanted * ridge / (1 + ratio) / (classes * shots)
    weight, bias = discriminants(task, 0.5)
    got = (query @ weight.mT + bias).numpy()
    np.testing.assert_allclose(got - got.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True), atol=1e-9)


def test_one_shot_is_nearest_neighbour() -> None:
    task = toy_task(classes=6, shots=1, noise=1.2)
    query, _ = toy_queries(task, per_class=20, noise=1.2)
    ours = fit(GDA(), task).logits(query).argmax(-1)
    assert torch.equal(ours, torch.cdist(query, task.support).argmin(-1))


def test_logits_are_the_discriminants_times_a_factor_from_held_out_examples() -> None:
    task = toy_task(shots=6, noise=1.5)
    query, _ = toy_queries(task, noise=1.5)
    weight, bias = discriminants(task, 0.5)
    plain = FACTOR * (query @ weight.mT + bias)
    ratio = fit(GDA(), task).logits(query) / plain
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))
    torch.testing.assert_close(fit(GDA(pull=1e9), task).logits(query), plain, rtol=1e-5, atol=1e-5)  # held at 1


def test_text_counts_as_far_as_it_helps() -> None:
    """Phrases that point at the classes raise the accuracy; phrases of the wrong classes are given no weight."""
    task = toy_task({"support", "text"}, classes=8, shots=4, noise=2.5, seed=1)
    task = replace(task, text=toy_task({"text"}, classes=8, seed=1).text)  # less noisy than the examples
    query, truth = toy_queries(task, per_class=30, noise=2.5, seed=1)

    def accuracy(problem):
        return float((fit(GDA(), problem).logits(query).argmax(-1) == truth).double().mean())

    alone = accuracy(without(task, "text"))
    assert accuracy(task) > alone + 0.03
    assert accuracy(replace(task, text=task.text.roll(1, 0))) >= alone - 0.01
