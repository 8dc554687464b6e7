"""iap against scikit-learn's multinomial regression and a loop over attributes."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from attribute_tasks import attribute_task
from fewshot.strategy import fit
from fewshot_plugins.iap import IAP


def literal(task, query, c, floor):
    """log of prod_m p(a_m^k | x) / p(a_m^k), with p(a_m | x) = sum_y p(a_m | y) p(y | x)."""
    keep = task.labels >= 0
    x, y = task.support[keep].numpy(), task.labels[keep].numpy()
    model = LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(x, y)
    seen, table = model.classes_.tolist(), task.attributes.tolist()
    scores = []
    for likely in model.predict_proba(query.numpy()).tolist():
        row = [0.0] * len(table)
        for m in range(len(table[0])):
            mean = sum(table[k][m] for k in seen) / len(seen)
            owned = [1 if attributes[m] > mean else 0 for attributes in table]
            share = sum(owned[k] for k in seen) / len(seen)
            p = sum(probability * owned[k] for k, probability in zip(seen, likely, strict=True))
            p = min(max(p, floor), 1 - floor)
            for k, a in enumerate(owned):
                row[k] += math.log(p / share) if a else math.log((1 - p) / (1 - share))
        scores.append(row)
    return torch.tensor(scores, dtype=torch.float64)


@pytest.mark.parametrize("floor", [1e-3, 0.1])
def test_equals_the_literal_product(floor):
    task, query, _ = attribute_task(noise=1.0)
    labels = task.labels.clone()
    labels[[1, 2, 8]] = -1
    task = replace(task, labels=labels)
    got = fit(IAP(c=4.0, floor=floor, scale=1.0, gamma=0.0, tolerance=1e-11), task).logits(query)
    torch.testing.assert_close(got, literal(task, query, 4.0, floor), atol=1e-4, rtol=1e-4)


def test_an_attribute_shared_by_all_seen_classes_says_nothing():
    task, query, _ = attribute_task()
    shared = task.attributes.clone()
    shared[:6, 0] = 1.0
    shared[6:, 0] = torch.tensor([0.0, 5.0, -1.0])
    got = fit(IAP(gamma=0.0), replace(task, attributes=shared)).logits(query)
    wanted = fit(IAP(gamma=0.0), replace(task, attributes=task.attributes[:, 1:])).logits(query)
    torch.testing.assert_close(got, wanted)


def test_one_seen_class_stays_finite():
    task, query, _ = attribute_task()
    lonely = replace(task, labels=torch.where(task.labels == 0, 0, -1))
    assert fit(IAP(), lonely).logits(query).isfinite().all()
