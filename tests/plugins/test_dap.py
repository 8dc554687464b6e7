"""dap against scikit-learn's logistic regressions and the literal product of equation 2."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from attribute_tasks import attribute_task
from fewshot.strategy import fit
from fewshot_plugins.dap import DAP


def literal(task, query, c, prior):
    """log p(k|x) up to a constant of x, one attribute and one class at a time."""
    keep = task.labels >= 0
    x, y = task.support[keep].numpy(), task.labels[keep].numpy()
    seen = sorted(set(y.tolist()))
    table = task.attributes.numpy()
    scores = np.zeros((len(query), len(table)))
    for m in range(table.shape[1]):
        mean = sum(table[k, m] for k in seen) / len(seen)
        owned = [1 if table[k, m] > mean else 0 for k in range(len(table))]
        model = LogisticRegression(C=c, tol=1e-9, max_iter=10_000)
        model.fit(x, [owned[k] for k in y])
        probability = model.predict_proba(query.numpy())[:, 1]
        share = sum(owned[k] for k in seen) / len(seen) if prior == "seen" else 0.5
        for q, p in enumerate(probability):
            for k, a in enumerate(owned):
                scores[q, k] += math.log(p if a else 1 - p) - math.log(share if a else 1 - share)
    return torch.from_numpy(scores)


@pytest.mark.parametrize("prior", ["seen", "half"])
def test_equals_the_literal_product(prior):
    task, query, _ = attribute_task()
    labels = task.labels.clone()
    labels[[1, 2]] = -1
    task = replace(task, labels=labels)
    got = fit(DAP(c=4.0, prior=prior, scale=1.0, gamma=0.0, steps=500), task).logits(query)
    wanted = literal(task, query, 4.0, prior)
    torch.testing.assert_close(got.softmax(-1), wanted.softmax(-1), atol=1e-5, rtol=1e-4)


def test_a_binary_table_is_taken_as_it_is():
    task, query, _ = attribute_task(seen=8, attributes=10)
    mean = task.attributes[:8].mean(0)
    binary = replace(task, attributes=(task.attributes > mean).double())
    percent = replace(task, attributes=100 * binary.attributes)
    wanted = fit(DAP(gamma=0.0), task).logits(query)
    for table in (binary, percent):
        torch.testing.assert_close(fit(DAP(gamma=0.0), table).logits(query), wanted)


def test_an_attribute_shared_by_all_seen_classes_says_nothing():
    task, query, _ = attribute_task()
    shared = task.attributes.clone()
    shared[:6, 0] = 1.0
    shared[6:, 0] = torch.tensor([0.0, 5.0, -1.0])
    got = fit(DAP(gamma=0.0), replace(task, attributes=shared)).logits(query)
    wanted = fit(DAP(gamma=0.0), replace(task, attributes=task.attributes[:, 1:])).logits(query)
    torch.testing.assert_close(got, wanted)


def test_one_seen_class_stays_finite():
    task, query, _ = attribute_task()
    lonely = replace(task, labels=torch.where(task.labels == 0, 0, -1))
    assert fit(DAP(), lonely).logits(query).isfinite().all()
