"""conse against scikit-learn's multinomial regression and a loop over the likeliest classes."""

from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from attribute_tasks import attribute_task, z_scores
from fewshot.strategy import fit
from fewshot_plugins.conse import ConSE


def cosine(a, b):
    def dot(x, y):
        return sum(u * v for u, v in zip(x, y, strict=True))

    return dot(a, b) / (dot(a, a) * dot(b, b)) ** 0.5


@pytest.mark.parametrize("top", [1, 3, 10])  # 10 is more than there are seen classes
def test_equals_the_literal_convex_combination(top):
    task, query, _ = attribute_task(noise=1.0)
    labels = task.labels.clone()
    labels[[1, 2, 8]] = -1
    task = replace(task, labels=labels)
    got = fit(ConSE(top=top, c=4.0, scale=2.0, gamma=0.0, tolerance=1e-11), task).logits(query)
    keep = labels >= 0
    model = LogisticRegression(C=4.0, tol=1e-10, max_iter=20_000)
    model.fit(task.support[keep].numpy(), labels[keep].numpy())
    signatures = z_scores(task)
    for q, likely in enumerate(model.predict_proba(query.numpy()).tolist()):
        best = sorted(zip(likely, model.classes_.tolist(), strict=True), reverse=True)[:top]
        total = sum(p for p, _ in best)
        mixed = [sum(p * signatures[k][m] for p, k in best) / total for m in range(8)]
        for k, signature in enumerate(signatures):
            assert got[q, k].item() == pytest.approx(2 * cosine(mixed, signature), abs=1e-4)


def test_one_seen_class_stays_finite():
    task, query, _ = attribute_task()
    lonely = replace(task, labels=torch.where(task.labels == 0, 0, -1))
    assert fit(ConSE(), lonely).logits(query).isfinite().all()
