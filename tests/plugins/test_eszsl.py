"""eszsl against equation 9 of the paper in numpy, in the paper's layout (examples as columns)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from attribute_tasks import attribute_task, stacked, z_scores
from fewshot.errors import MissingInput
from fewshot.strategy import fit
from fewshot_plugins.eszsl import ESZSL


def literal(task, ridge, ridge_attributes):
    """V = (XX' + gI)^-1 X Y S' (SS' + lI)^-1, and from it the weights V s_k, class by class."""
    keep = [i for i, y in enumerate(task.labels.tolist()) if y >= 0]
    seen = sorted({task.labels[i].item() for i in keep})
    X = np.array([task.support[i].tolist() for i in keep]).T  # d x m
    Y = np.array([[1.0 if task.labels[i].item() == k else -1.0 for k in seen] for i in keep])  # m x z
    signatures = np.array(z_scores(task))
    S = signatures[seen].T  # a x z
    left = np.linalg.inv(X @ X.T + ridge * np.eye(len(X)))
    right = np.linalg.inv(S @ S.T + ridge_attributes * np.eye(len(S)))
    V = left @ X @ Y @ S.T @ right  # d x a
    return np.stack([V @ signature for signature in signatures])


@pytest.mark.parametrize("dim", [12, 60])  # more and fewer examples than dims
def test_equals_the_closed_form(dim):
    task, query, _ = attribute_task(dim=dim)
    labels = task.labels.clone()
    labels[[0, 7, 8]] = -1
    task = replace(task, labels=labels)
    got = fit(ESZSL(ridge=0.3, ridge_attributes=0.7, scale=2.0, gamma=0.0), task).logits(query)
    wanted = 2.0 * query.numpy() @ literal(task, 0.3, 0.7).T
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-9)


def test_finds_unseen_classes():
    task, query, truth = attribute_task(seen=12, unseen=4, shots=10, dim=24)
    unseen = truth >= 12
    scores = fit(ESZSL(gamma=0.0), task).logits(query[unseen])[:, 12:]
    assert ((scores.argmax(-1) + 12) == truth[unseen]).double().mean() > 0.6  # chance is 0.25


def test_scale_and_offset_of_attributes_do_not_matter():
    task, query, _ = attribute_task()
    other = replace(task, attributes=100 * task.attributes - 7)
    torch.testing.assert_close(fit(ESZSL(), other).logits(query), fit(ESZSL(), task).logits(query))


@pytest.mark.parametrize("strategy", [ESZSL(), ESZSL(ridge=1e-6, ridge_attributes=1e-6)])
def test_odd_tables_stay_finite(strategy):
    task, query, _ = attribute_task()
    constant = replace(task, attributes=torch.ones_like(task.attributes))
    single = replace(task, attributes=task.attributes[:, :1])
    lonely = replace(task, labels=torch.where(task.labels == 0, 0, -1))  # one seen class
    for odd in (constant, single, lonely):
        assert fit(strategy, odd).logits(query).isfinite().all()


def test_a_batch_may_have_other_seen_classes_in_each_task():
    first, query, _ = attribute_task(seed=1)
    second = replace(first, labels=(first.labels + 3) % 9)  # unseen classes 0, 1, 2 instead of 6, 7, 8
    head = fit(ESZSL(), stacked([first, second]))
    for i, task in enumerate((first, second)):
        torch.testing.assert_close(head.logits(torch.stack([query] * 2))[i], fit(ESZSL(), task).logits(query))


def test_needs_a_seen_class():
    task, _, _ = attribute_task()
    with pytest.raises(MissingInput, match="--support"):
        fit(ESZSL(), replace(task, labels=torch.full_like(task.labels, -1)))
