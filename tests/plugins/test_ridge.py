"""`ridge` against scikit-learn at equal penalty, and its leave-one-out against fitting without each example."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.linear_model import RidgeClassifier

from fewshot import fit
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins._loo import SCALES, best_scale, repeated
from fewshot_plugins.ridge import PENALTIES, Ridge, best_penalty, left_out, principal


def without_each(task, penalty):
    """Scores of each example by scikit-learn's regression on the others."""
    x, y = task.support.numpy(), task.one_hot().numpy()
    others = [np.arange(len(x)) != i for i in range(len(x))]
    rows = [SklearnRidge(alpha=penalty).fit(x[o], y[o]).predict(x[i : i + 1]) for i, o in enumerate(others)]
    return np.concatenate(rows)


@pytest.mark.parametrize("dim", [6, 40])  # more examples than dims, and fewer
@pytest.mark.parametrize("penalty", [0.05, 2.0])
def test_scores_equal_scikit_learn(dim: int, penalty: float) -> None:
    task = toy_task(dim=dim, shots=4, noise=1.2)
    query, _ = toy_queries(task, per_class=10, noise=1.2)
    logits = fit(Ridge(lam=penalty, scale=1.0), task).logits(query).numpy()
    peer = RidgeClassifier(alpha=penalty).fit(task.support.numpy(), task.labels.numpy())
    np.testing.assert_allclose(2 * logits - 1, peer.decision_function(query.numpy()), atol=1e-9)  # theirs are -1 and 1


@pytest.mark.parametrize("dim", [6, 40])
def test_left_out_scores_equal_fitting_without_each_example(dim: int) -> None:
    task = toy_task(dim=dim, shots=3, noise=1.2)
    got = left_out(principal(task), task.support.new_tensor(0.3))
    np.testing.assert_allclose(got.numpy(), without_each(task, 0.3), atol=1e-9)


def test_penalty_has_the_least_left_out_error() -> None:
    task = toy_task(dim=40, shots=3, noise=2.0)
    errors = [((without_each(task, p) - task.one_hot().numpy()) ** 2).sum() for p in PENALTIES]
    assert float(best_penalty(principal(task), task)) == pytest.approx(PENALTIES[int(np.argmin(errors))])
    assert 0 < int(np.argmin(errors)) < len(PENALTIES) - 1  # not at the edge of the grid


def test_weighted_penalty_has_the_least_weighted_left_out_error() -> None:
    task = toy_task(dim=40, shots=3, noise=2.0)
    x, y = task.support.numpy(), task.one_hot().numpy()
    weight = np.tile([5.0, 5.0, 0.05], 4)
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for i in range(len(x)):
            rest = np.arange(len(x)) != i
            peer = SklearnRidge(alpha=penalty).fit(x[rest], y[rest], sample_weight=weight[rest])
            error += weight[i] * ((peer.predict(x[i : i + 1]) - y[i]) ** 2).sum()
        errors.append(error)
    best = best_penalty(principal(task, torch.from_numpy(weight)), task)
    assert float(best) == pytest.approx(PENALTIES[int(np.argmin(errors))])
    assert float(best) != float(best_penalty(principal(task), task))


def test_scale_has_the_least_left_out_log_loss() -> None:
    task = toy_task(dim=40, shots=3, noise=2.0)
    scores = without_each(task, 0.3)
    losses = []
    for scale in SCALES:
        share = np.exp(scale * scores) / np.exp(scale * scores).sum(1, keepdims=True)
        losses.append(-np.log(share[np.arange(len(share)), task.labels.numpy()]).sum())
    assert float(best_scale(torch.from_numpy(scores), task, 1.0)) == pytest.approx(SCALES[int(np.argmin(losses))])


def test_an_example_alone_in_its_class_cannot_be_left_out() -> None:
    task = toy_task(classes=3, shots=4, ragged=True, seed=3)
    sizes = [int((task.labels == label).sum()) if label >= 0 else 0 for label in task.labels]
    assert repeated(task).tolist() == [size > 1 for size in sizes]
    assert 1 in sizes


def test_one_shot_uses_the_constants() -> None:
    task = toy_task(shots=1)
    query, _ = toy_queries(task)
    constant = fit(Ridge(lam=0.1, scale=14.0), task).logits(query)
    torch.testing.assert_close(fit(Ridge(), task).logits(query), constant)
