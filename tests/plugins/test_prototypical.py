"""`prototypical` against the formula item by item, scikit-learn and easyfsl."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from easyfsl_peer import easyfsl_scores
from fewshot import fit
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins.prototypical import Prototypical


def test_logits_are_squared_distances_to_class_means() -> None:
    task = toy_task(shots=4, ragged=True)
    query, _ = toy_queries(task)
    logits = fit(Prototypical(temperature=3.0), task).logits(query)
    for q, row in zip(query.tolist(), logits.tolist(), strict=True):
        distances = []
        for k in range(task.classes):
            own = [x for x, label in zip(task.support.tolist(), task.labels.tolist(), strict=True) if label == k]
            mean = [sum(column) / len(own) for column in zip(*own, strict=True)]
            distances.append(-3.0 * sum((a - b) ** 2 for a, b in zip(q, mean, strict=True)))
        shift = row[0] - distances[0]  # |z|^2 is left out: the same for every class
        assert row == pytest.approx([d + shift for d in distances])


@pytest.mark.parametrize("seed", range(3))
def test_predictions_equal_scikit_learn_and_easyfsl(seed: int) -> None:
    task = toy_task(classes=6, shots=3, noise=1.5, seed=seed)
    query, truth = toy_queries(task, per_class=20, noise=1.5, seed=seed)
    ours = fit(Prototypical(), task).logits(query).argmax(-1)
    sklearn = NearestCentroid().fit(task.support.numpy(), task.labels.numpy()).predict(query.numpy())
    assert np.array_equal(ours.numpy(), sklearn)
    assert torch.equal(ours, easyfsl_scores("PrototypicalNetworks", task, query).argmax(-1))
    assert (ours != truth).any()  # hard enough for the comparison to mean something
