"""Shared logistic regressions against scikit-learn."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from fewshot_plugins._logistic import logistic

softmax = partial(torch.softmax, dim=-1)


def examples(rows=30, dim=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(rows, dim, generator=rng, dtype=torch.float64), dim=-1)
    return x, torch.randint(0, 3, (rows,), generator=rng)


@pytest.mark.parametrize("dim", [6, 50])
@pytest.mark.parametrize("c", [0.3, 30.0])
def test_softmax_finds_the_optimum_of_scikit_learn(dim, c):
    x, y = examples(dim=dim)
    hot = torch.eye(3, dtype=x.dtype)[y]
    weight, bias = logistic(x, hot, torch.ones(len(x), dtype=x.dtype), softmax, c, 500)
    model = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x.numpy(), y.numpy())
    wanted = model.predict_proba(x.numpy())
    np.testing.assert_allclose(softmax(x @ weight.mT + bias).numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("dim", [6, 50])
def test_sigmoid_finds_the_optimum_of_scikit_learn_and_ignores_padding(dim):
    x, y = examples(dim=dim)
    targets = torch.stack([y == 0, y == 2], -1).to(x.dtype)
    real = torch.ones(len(x), dtype=x.dtype)
    real[:5] = 0
    weight, bias = logistic(x, targets, real, torch.sigmoid, 4.0, 500)
    for k in range(2):
        model = LogisticRegression(C=4.0, tol=1e-10, max_iter=10_000)
        model.fit(x[5:].numpy(), targets[5:, k].numpy())
        np.testing.assert_allclose(weight[k].numpy(), model.coef_[0], atol=1e-4)
        np.testing.assert_allclose(bias[k].item(), model.intercept_[0], atol=1e-4)


def test_a_batch_equals_a_loop():
    tasks = [examples(seed=s) for s in range(3)]
    x = torch.stack([t[0] for t in tasks])
    hot = torch.eye(3, dtype=x.dtype)[torch.stack([t[1] for t in tasks])]
    real = torch.ones(3, 30, dtype=x.dtype)
    weight, bias = logistic(x, hot, real, softmax, 4.0, 50)
    for i in range(3):
        one = logistic(x[i], hot[i], real[i], softmax, 4.0, 50)
        torch.testing.assert_close(weight[i], one[0])
        torch.testing.assert_close(bias[i], one[1])
