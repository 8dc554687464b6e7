"""`kmm` against scipy's quadratic programme and skada; `tradaboost` against the paper's listing."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import Ridge

from fewshot import fit, make_task
from fewshot.arrays import unit
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins._weighted import weighted_ridge
from fewshot_plugins.kmm import Kmm, mean_matching, project
from fewshot_plugins.tradaboost import TrAdaBoost


def normal(n: int, dim: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


@pytest.mark.parametrize("dim", [4, 40])
def test_weighted_ridge_is_scikit_learn_s(dim: int) -> None:
    x, y, weight = normal(20, dim, 0), normal(20, 3, 1), normal(20, 1, 2).square().squeeze(-1)
    w, b = weighted_ridge(x, y, weight, 0.3)
    peer = Ridge(alpha=0.3).fit(x.numpy(), y.numpy(), sample_weight=weight.numpy())
    np.testing.assert_allclose(w.numpy(), peer.coef_, atol=1e-9)
    np.testing.assert_allclose(b.numpy(), peer.intercept_, atol=1e-9)


def kernels(x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """K, kappa, and the width: the lower of the two median distances of different items."""
    both = np.concatenate([x, z])
    gaps = np.linalg.norm(both[:, None] - both[None], axis=-1)
    upper = np.sort(gaps[np.triu_indices(len(both), 1)])
    width = upper[(len(upper) - 1) // 2]
    k = np.exp(-(gaps**2) / (2 * width**2))
    return k[: len(x), : len(x)], len(x) / len(z) * k[: len(x), len(x) :].sum(1), width


@pytest.mark.parametrize(("bound", "slack"), [(1000.0, 0.8), (3.0, 0.1)])
def test_mean_matching_solves_the_quadratic_programme(bound: float, slack: float) -> None:
    x, z = normal(20, 3, 0), normal(15, 3, 1, shift=0.7)
    kernel, pull, _ = kernels(x.numpy(), z.numpy())
    sums = [{"type": "ineq", "fun": lambda b, s=s: s * (b.sum() - 20 * (1 - s * slack))} for s in (1, -1)]
    sums[1] = {"type": "ineq", "fun": lambda b: 20 * (1 + slack) - b.sum()}
    found = minimize(lambda b: b @ kernel @ b / 2 - pull @ b, np.ones(20), jac=lambda b: kernel @ b - pull,
                     bounds=[(0, bound)] * 20, constraints=sums, method="SLSQP",
                     options={"ftol": 1e-14, "maxiter": 1000})  # fmt: skip
    got = mean_matching(x, z, bound, slack).numpy()
    assert got.min() >= 0
    assert got.max() <= bound + 1e-9
    assert abs(got.sum() - 20) <= 20 * slack + 1e-6
    assert got @ kernel @ got / 2 - pull @ got == pytest.approx(found.fun, abs=1e-6)


def test_mean_matching_is_as_good_as_skada_s() -> None:
    from skada._reweight import KMMReweightAdapter

    x, z = normal(40, 3, 3).numpy(), normal(30, 3, 4, shift=0.5).numpy()
    kernel, pull, width = kernels(x, z)
    peer = KMMReweightAdapter(kernel="rbf", gamma=1 / (2 * width**2), B=1000.0, eps=0.2, max_iter=2000)
    peer.fit(np.concatenate([x, z]), sample_domain=np.r_[np.ones(40), -2 * np.ones(30)])
    theirs, ours = peer.source_weights_, mean_matching(torch.from_numpy(x), torch.from_numpy(z), 1000.0, 0.2).numpy()
    value = [b @ kernel @ b / 2 - pull @ b for b in (ours, theirs)]
    assert value[0] <= value[1] + 1e-6
    assert value[1] == pytest.approx(value[0], rel=1e-3)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95


def test_projection_is_the_nearest_point() -> None:
    x = normal(8, 1, 0).squeeze(-1) * 2
    got = project(x, 1.5, 5.0, 6.0).numpy()
    found = minimize(lambda b: ((b - x.numpy()) ** 2).sum(), np.full(8, 0.7), bounds=[(0, 1.5)] * 8, method="SLSQP",
                     constraints=[{"type": "ineq", "fun": lambda b: b.sum() - 5},
                                  {"type": "ineq", "fun": lambda b: 6 - b.sum()}], options={"ftol": 1e-15})  # fmt: skip
    np.testing.assert_allclose(got, found.x, atol=1e-5)


def test_kmm_gives_weight_to_the_items_where_the_target_lies() -> None:
    task = toy_task(("source", "support", "unlabeled"))
    query, truth = toy_queries(task, 10)
    assert float((fit(Kmm(), task).logits(query).argmax(-1) == truth).double().mean()) > 0.8
    x = torch.cat([normal(20, 3, 0), normal(20, 3, 1, shift=4.0)])
    weight = mean_matching(x, normal(30, 3, 2, shift=4.0), 1000.0, 0.8)
    assert float(weight[20:].sum() / weight.sum()) > 0.98


def listing(x: np.ndarray, y: np.ndarray, n: int, query: np.ndarray, rounds: int) -> np.ndarray:
    """Algorithm 1 of the paper with 0/1 errors of several classes; the learner is a weighted ridge regression."""
    weight, beta = np.ones(len(x)), 1 / (1 + math.sqrt(2 * math.log(n) / rounds))
    classes, votes = y.max() + 1, np.zeros((len(query), y.max() + 1))
    for t in range(1, rounds + 1):
        p = weight / weight.sum()
        learner = Ridge(alpha=0.1).fit(x, np.eye(classes)[y], sample_weight=p * len(x))
        wrong = learner.predict(x).argmax(1) != y
        error = (weight[n:] * wrong[n:]).sum() / weight[n:].sum()
        factor = np.clip(error, 0.01, 0.49) / (1 - np.clip(error, 0.01, 0.49))
        if t >= math.ceil(rounds / 2):
            votes[np.arange(len(query)), learner.predict(query).argmax(1)] += math.log(1 / factor)
        weight[:n] *= beta ** wrong[:n]
        weight[n:] *= factor ** -wrong[n:].astype(float)
    return votes


def test_tradaboost_follows_the_paper() -> None:
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 5, generator=rng)

    def items(each: int, wrong: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(3).repeat_interleave(each)
        x = unit(centres[labels] + 1.2 * torch.randn(len(labels), 5, generator=rng))
        labels[:wrong] = (labels[:wrong] + 1) % 3
        return x.double(), labels

    (x, y), (z, labels), (query, truth) = items(20, 12), items(8, 0), items(60, 0)
    got = fit(TrAdaBoost(rounds=9), make_task(z, labels, source=x, source_labels=y)).logits(query)
    wanted = listing(torch.cat([x, z]).numpy(), torch.cat([y, labels]).numpy(), 60, query.numpy(), 9)
    np.testing.assert_allclose(got.numpy() / 10, wanted / wanted.sum(1, keepdims=True), atol=1e-9)
    assert (np.unique(wanted / wanted.sum(1, keepdims=True)) % 1 > 0).any()  # the rounds differ
    assert float((got.argmax(-1) == truth).double().mean()) > 0.6
