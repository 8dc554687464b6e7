"""Phrases as classifiers and as examples, against the formulas written out."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Ridge as PeerRidge

from fewshot import make_task
from fewshot.arrays import unit
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins._phrases import as_examples, centred_text, ridge_with_phrases, worth

BOTH = ("support", "text")


def test_text_is_centred_half_way():
    task = toy_task(BOTH, classes=3)
    mean = sum(task.support[task.labels == c].mean(0) for c in range(3)) / 3
    text = unit(unit(task.text).mean(-2))
    query, _ = toy_queries(task)
    torch.testing.assert_close(centred_text(task).logits(query), (query - mean / 2) @ text.mT)


def test_worth_is_the_factor_of_least_log_loss():
    task = toy_task(BOTH, classes=6, shots=2, dim=12, noise=2.0)
    z = centred_text(task).logits(task.support).numpy()
    z /= np.sqrt(((z - z.mean(1, keepdims=True)) ** 2).sum() / (12 * 5))

    def loss(w):
        return (
            sum(np.log(np.exp(w * (row - row[y])).sum()) for row, y in zip(z, task.labels, strict=True)) + (w - 1) ** 2
        )

    assert float(worth(task)) == pytest.approx(minimize_scalar(loss, (0.1, 1)).x, abs=1e-3)


def test_useless_phrases_are_worth_next_to_nothing():
    task = toy_task(BOTH, classes=10, shots=4, dim=32)
    noise = torch.randn(8, 10, 32, generator=torch.Generator().manual_seed(0)).double()
    useless = [float(worth(make_task(task.support, task.labels, text=unit(text)))) for text in noise]
    assert sum(useless) / 8 < 0.4
    assert float(worth(task)) > 1.5


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.5, 2.0, 1.0, 0.1)])
def test_ridge_with_phrases_is_sklearns_on_the_stacked_rows(weights):
    task = toy_task(BOTH, classes=4, shots=3, dim=8, noise=2.0)
    mean = task.support.mean(0)
    text = unit(unit(task.text).mean(-2))
    share = min(1.0, max(0.0, 2 * float(worth(task)) - 1))
    rows = mean + 0.6 * share * (task.support - mean).norm(dim=-1).mean() * unit(text - text.mean(0))
    torch.testing.assert_close(as_examples(task), rows)
    weight = torch.tensor(weights, dtype=torch.float64)[task.labels]
    x, y = torch.cat([task.support, rows]), torch.cat([task.one_hot(), torch.eye(4)])
    peer = PeerRidge(alpha=0.2).fit(x, y, sample_weight=[*weight.tolist(), 1, 1, 1, 1])
    query, _ = toy_queries(task)
    wanted = torch.from_numpy(peer.predict(query))
    torch.testing.assert_close(ridge_with_phrases(task, weight).logits(query), wanted, rtol=1e-6, atol=1e-6)


def test_one_class_with_one_phrase():
    task = toy_task(BOTH, classes=1, shots=1)
    assert bool(ridge_with_phrases(task, torch.ones(1).double()).weight.isfinite().all())
