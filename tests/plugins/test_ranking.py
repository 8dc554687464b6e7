"""devise and ale against their losses written out example by example, with gradients from autograd."""

import math
from dataclasses import replace

import pytest
import torch

from attribute_tasks import attribute_task, z_scores
from fewshot.strategy import fit
from fewshot_plugins import _ranking
from fewshot_plugins.ale import ALE
from fewshot_plugins.devise import DeViSE

METHODS = {
    "devise": DeViSE(margin=0.1, rate=0.05, epochs=7, scale=1.0, gamma=0.0),
    "weighted": ALE(margin=0.7, rate=0.3, epochs=7, scale=1.0, gamma=0.0),
    "max": ALE(violators="max", margin=0.7, rate=0.3, epochs=7, scale=1.0, gamma=0.0),
}


def loss(method, margin, task, signatures, M):
    """Mean over the examples of the paper's loss at M [A, D]."""
    seen = sorted(set(task.labels.tolist()) - {-1})
    losses = []
    for z, y in zip(task.support, task.labels.tolist(), strict=True):
        if y < 0:
            continue
        own = signatures[y] @ M @ z
        hinges = [h for j in seen if j != y and (h := margin - own + signatures[j] @ M @ z) > 0]
        r = len(hinges)
        if not hinges:
            losses.append(0 * own)
        elif method == "devise":
            losses.append(sum(hinges))
        elif method == "max":
            losses.append(torch.stack(hinges).amax())  # equals share, as they all do at M = 0
        else:
            losses.append(sum(1 / i for i in range(1, r + 1)) / r * sum(hinges))
    return sum(losses) / len(losses)


def train(method, strategy, task, signatures, M):
    speed = torch.zeros_like(M)
    for epoch in range(strategy.epochs):
        M = M.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(method, strategy.margin, task, signatures, M), M)
        speed = 0.9 * speed - strategy.rate * (1 + math.cos(math.pi * epoch / strategy.epochs)) / 2 * slope
        M = M + speed
    return M.detach()


@pytest.mark.parametrize("dim", [12, 40])
@pytest.mark.parametrize("method", METHODS)
def test_equals_descent_on_the_literal_loss(method, dim):
    task, query, _ = attribute_task(dim=dim, shots=3, noise=1.0)
    task = replace(task, labels=torch.where(torch.arange(18) % 7 == 2, -1, task.labels))
    signatures = torch.tensor(z_scores(task), dtype=torch.float64)
    M = train(method, METHODS[method], task, signatures, torch.zeros(8, dim, dtype=torch.float64))
    wanted = query @ (signatures @ M).mT
    torch.testing.assert_close(fit(METHODS[method], task).logits(query), wanted)


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss(method):
    task, _, _ = attribute_task(dim=40, noise=0.5)
    signatures = torch.tensor(z_scores(task), dtype=torch.float64)
    strategy = METHODS[method]
    values = []
    for epochs in (1, 60):
        weight = fit(strategy.replace(epochs=epochs), task).weight  # [C, D] = signatures @ M
        M = torch.linalg.lstsq(signatures, weight).solution
        values.append(loss(method, strategy.margin, task, signatures, M).item())
    assert values[1] < 0.5 * values[0]


def test_odd_tasks_stay_finite():
    task, query, _ = attribute_task()
    constant = replace(task, attributes=torch.ones_like(task.attributes))
    single = replace(task, attributes=task.attributes[:, :1])
    lonely = replace(task, labels=torch.where(task.labels == 0, 0, -1))
    for odd in (constant, single, lonely):
        for strategy in (DeViSE(epochs=9), ALE(epochs=9), ALE(violators="max", epochs=9)):
            assert fit(strategy, odd).logits(query).isfinite().all()


def test_shares_of_a_large_support_hold_every_example_once_whatever_their_order(monkeypatch):
    monkeypatch.setattr(_ranking, "BATCH", 8)
    task, query, _ = attribute_task(dim=12)  # 30 examples, so 4 shares
    shares = _ranking._shares(task, task.support)
    rows = torch.cat([z for z, _, _ in shares])
    assert [len(z) for z, _, _ in shares] == [8, 8, 7, 7]
    assert sorted(rows.tolist()) == sorted(task.support.tolist())
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    mixed = replace(task, support=task.support[order], labels=task.labels[order])
    strategy = DeViSE(epochs=9, gamma=0.0)
    torch.testing.assert_close(fit(strategy, mixed).logits(query), fit(strategy, task).logits(query))
