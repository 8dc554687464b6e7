"""`knn` and `matching` against scikit-learn and the sums written out."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from fewshot import fit, make_task
from fewshot.arrays import unit
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins.knn import KNN
from fewshot_plugins.matching import Matching


@pytest.mark.parametrize("k", [1, 4, 7, 24])
def test_probabilities_equal_scikit_learn(k: int) -> None:
    task = toy_task(classes=4, shots=6, noise=1.2)
    query, _ = toy_queries(task, per_class=10, noise=1.2)
    probability = fit(KNN(k=k, temperature=0.1), task).logits(query).softmax(-1)
    peer = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.1))
    wanted = peer.fit(task.support.numpy(), task.labels.numpy()).predict_proba(query.numpy())
    np.testing.assert_allclose(probability.numpy(), (wanted + 0.01 / 4) / 1.01, atol=1e-9)


def test_more_neighbours_than_examples_lets_all_vote() -> None:
    task = toy_task(shots=2)
    query, _ = toy_queries(task)
    torch.testing.assert_close(fit(KNN(k=500), task).logits(query), fit(KNN(k=8), task).logits(query))


def test_examples_that_tie_with_the_last_all_vote() -> None:
    """Two copies of one picture in two classes: with k = 1 both vote, whichever comes first."""
    copies = unit(torch.tensor([[1.0, 0.2, 0.0], [1.0, 0.2, 0.0], [0.0, 1.0, 0.0]]))
    logits = fit(KNN(k=1), make_task(copies, torch.tensor([0, 1, 2]))).logits(copies[:1])
    assert logits[0, 0] == logits[0, 1] > logits[0, 2]


def test_matching_is_the_softmax_over_all_cosines_summed_by_class() -> None:
    task = toy_task(shots=4, ragged=True)
    query, _ = toy_queries(task)
    logits = fit(Matching(temperature=0.2), task).logits(query)
    real = [(x, label) for x, label in zip(task.support.tolist(), task.labels.tolist(), strict=True) if label >= 0]
    for z, row in zip(query.tolist(), logits.tolist(), strict=True):
        attention = [math.exp(sum(a * b for a, b in zip(z, x, strict=True)) / 0.2) for x, _ in real]
        for k, logit in enumerate(row):
            share = sum(a for a, (_, label) in zip(attention, real, strict=True) if label == k) / sum(attention)
            assert math.exp(logit) == pytest.approx(share)
