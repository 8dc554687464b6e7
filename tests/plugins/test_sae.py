"""sae against scipy's Sylvester solver in the paper's layout (examples as columns)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import solve_sylvester

from attribute_tasks import attribute_task, z_scores
from fewshot.strategy import fit
from fewshot_plugins.sae import SAE, sylvester


def literal(task, balance):
    """W of S S' W + W lambda X X' = (1 + lambda) S X', one column an example."""
    keep = [i for i, y in enumerate(task.labels.tolist()) if y >= 0]
    signatures = np.array(z_scores(task))
    X = np.array([task.support[i].tolist() for i in keep]).T  # d x n
    S = np.array([signatures[task.labels[i].item()] for i in keep]).T  # a x n
    # with fewer seen classes than attributes S S' is singular, and with few examples X X' too: the ridge makes the
    # solution unique for scipy and is too small to show in the comparison
    A = S @ S.T + 1e-8 * np.eye(len(S))
    return solve_sylvester(A, balance * X @ X.T, (1 + balance) * S @ X.T), signatures


def cosine(a, b):
    return a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)


@pytest.mark.parametrize("dim", [12, 60])
@pytest.mark.parametrize("balance", [0.2, 5.0])
def test_both_directions_equal_scipy(dim, balance):
    task, query, _ = attribute_task(dim=dim)
    labels = task.labels.clone()
    labels[[0, 9]] = -1
    task = replace(task, labels=labels)
    W, signatures = literal(task, balance)
    for compare in ("features", "attributes"):
        strategy = SAE(balance=balance, compare=compare, scale=3.0, gamma=0.0)
        got = fit(strategy, task).logits(query)
        for q, z in enumerate(query.numpy()):
            for k, s in enumerate(signatures):
                wanted = 3 * (cosine(z, W.T @ s) if compare == "features" else cosine(W @ z, s))
                assert got[q, k].item() == pytest.approx(wanted, abs=1e-5)


def test_sylvester_solves_singular_problems():
    rng = torch.Generator().manual_seed(0)
    s = torch.randn(2, 5, 8, generator=rng, dtype=torch.float64)  # rank 5 of 8
    x = torch.randn(2, 5, 9, generator=rng, dtype=torch.float64)
    a, b, c = s.mT @ s, x.mT @ x, s.mT @ x
    w = sylvester(a, b, c)
    torch.testing.assert_close(a @ w + w @ b, c)


def test_odd_tasks_stay_finite():
    task, query, _ = attribute_task()
    constant = replace(task, attributes=torch.ones_like(task.attributes))
    lonely = replace(task, labels=torch.where(task.labels == 0, 0, -1))
    for odd in (constant, lonely):
        for compare in ("features", "attributes"):
            assert fit(SAE(compare=compare), odd).logits(query).isfinite().all()
