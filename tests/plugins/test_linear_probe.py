"""`linear_probe` against scikit-learn's LogisticRegression at equal penalty; its choice of C against a plain loop."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fewshot import LinearHead, Task, fit
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins._folds import folds
from fewshot_plugins.linear_probe import GRID, LinearProbe


def objective(weight: np.ndarray, bias: np.ndarray, task: Task, c: float) -> float:
    """|W|^2 / 2 + C sum of log-losses, example by example."""
    value = (weight**2).sum() / 2
    for x, label in zip(task.support.double().numpy(), task.labels.tolist(), strict=True):
        if label >= 0:
            scores = weight @ x + bias
            top = scores.max()
            value += c * (top + np.log(np.exp(scores - top).sum()) - scores[label])
    return float(value)


def peer(task: Task, c: float) -> LogisticRegression:
    real = (task.labels >= 0).numpy()
    model = LogisticRegression(C=c, tol=1e-9, max_iter=10_000)
    return model.fit(task.support.double().numpy()[real], task.labels.numpy()[real])


def arrays(head: LinearHead) -> tuple[np.ndarray, np.ndarray]:
    assert head.bias is not None
    return head.weight.double().numpy(), head.bias.double().numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [6, 60])  # more examples than dims, and fewer: the two spaces
@pytest.mark.parametrize("c", [0.01, 1.0, 30.0, 1000.0])
def test_objective_equals_scikit_learn(dim: int, c: float, dtype: torch.dtype) -> None:
    task = toy_task(dim=dim, classes=5, shots=4, noise=1.2, ragged=True, dtype=dtype)
    head = fit(LinearProbe(c=c), task)
    wanted = peer(task, c)
    best = objective(wanted.coef_, wanted.intercept_, task, c)
    assert objective(*arrays(head), task, c) == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("dim", [6, 60])
def test_weights_equal_scikit_learn(dim: int) -> None:
    task = toy_task(dim=dim, classes=3, shots=6, noise=1.2)
    weight, bias = arrays(fit(LinearProbe(c=10.0, tolerance=1e-12), task))
    wanted = peer(task, 10.0)
    np.testing.assert_allclose(weight, wanted.coef_, atol=2e-4)
    np.testing.assert_allclose(bias - bias.mean(), wanted.intercept_ - wanted.intercept_.mean(), atol=2e-4)


def test_one_shot_has_equal_predictions() -> None:
    task = toy_task(classes=5, shots=1, noise=1.2)
    query, _ = toy_queries(task, per_class=20, noise=1.2)
    ours = fit(LinearProbe(c=1.0, tolerance=1e-12), task).logits(query).argmax(-1)
    assert np.array_equal(ours.numpy(), peer(task, 1.0).predict(query.numpy()))


def test_every_step_lowers_the_objective() -> None:
    task = toy_task(dim=8, classes=5, shots=8, noise=3.0)
    heads = [fit(LinearProbe(c=300.0, max_iter=steps, tolerance=1e-12), task) for steps in range(1, 12)]
    values = [objective(*arrays(head), task, 300.0) for head in heads]
    assert all(after < before for before, after in pairwise(values))


def test_folds_deal_each_class_evenly_and_never_hold_out_all_of_it() -> None:
    task = toy_task(classes=4, shots=5, ragged=True, seed=3)
    part = folds(task, 3)
    for k in range(4):
        own = part[task.labels == k].tolist()
        assert own == [-1] if len(own) == 1 else sorted(own) == sorted(i % 3 for i in range(len(own)))
        assert len(own) < 2 or len(set(own)) > 1
    assert (part[task.labels < 0] == -1).all()
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))
    moved = Task(
        **{f: getattr(task, f) for f in Task.__slots__} | {"support": task.support[order], "labels": task.labels[order]}
    )
    assert torch.equal(folds(moved, 3), part[order])


def test_chosen_c_has_the_least_held_out_loss() -> None:
    task = toy_task(dim=30, classes=3, shots=6, noise=2.5)
    part = folds(task, 2)
    losses = [sum(held_out_loss(task, part == fold, c) for fold in range(2)) for c in GRID]
    best = GRID[int(np.argmin(losses))]
    assert GRID[0] < best < GRID[-1]
    query, _ = toy_queries(task)
    chosen = fit(LinearProbe(folds=2), task).logits(query)
    torch.testing.assert_close(chosen, fit(LinearProbe(c=best), task).logits(query))


def held_out_loss(task: Task, out: Tensor, c: float) -> float:
    x, y = task.support.numpy(), task.labels.numpy()
    model = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(x[~out], y[~out])
    return float(-model.predict_log_proba(x[out])[np.arange(int(out.sum())), y[out]].sum())


def test_one_shot_leaves_nothing_to_choose_by() -> None:
    task = toy_task(shots=1)
    query, _ = toy_queries(task)
    torch.testing.assert_close(fit(LinearProbe(folds=3), task).logits(query), fit(LinearProbe(), task).logits(query))
