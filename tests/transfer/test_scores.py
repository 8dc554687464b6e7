"""Transferability scores against literal transcriptions of their definitions and scikit-learn's Ledoit-Wolf."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf
from sklearn.linear_model import Ridge

from fewshot.arrays import unit
from fewshot.transfer.scores import PENALTIES, h_score, leep, left_out_scores, logme, loo_ridge, nce


def items(n: int, dim: int, classes: int = 3, noise: float = 0.8) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(n + dim)
    centres = torch.randn(classes, dim, generator=rng)
    labels = torch.arange(n) % classes
    return unit(centres[labels] + noise * torch.randn(n, dim, generator=rng)).double(), labels


@pytest.mark.parametrize(("n", "dim"), [(30, 8), (24, 60)])
def test_logme_is_the_greatest_evidence_of_the_gaussian_model(n: int, dim: int) -> None:
    """The evidence is the density of y under N(0, I / beta + F F' / alpha); scipy finds its maximum by itself."""
    x, labels = items(n, dim)

    def surprise(logs: np.ndarray, y: np.ndarray) -> float:
        cov = np.eye(n) * np.exp(-logs[1]) + x.numpy() @ x.numpy().T * np.exp(-logs[0])
        return -multivariate_normal(np.zeros(n), cov).logpdf(y)

    found = []
    for c in range(3):
        y = (labels == c).double().numpy()
        found.append(
            -minimize(surprise, np.zeros(2), (y,), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}).fun
        )
    assert logme(x, labels) == pytest.approx(np.mean(found) / n, abs=1e-6)


def test_logme_of_the_authors_form_where_items_outnumber_dims() -> None:
    """Algorithm 3 of the paper, one class at a time; its evidence is exact for n > D."""
    x, labels = items(40, 6)
    f = x.numpy()
    vectors, sigma, _ = np.linalg.svd(f.T @ f)
    total = 0.0
    for c in range(3):
        y = (labels.numpy() == c).astype(float)
        alpha = beta = 1.0
        for _ in range(500):
            lam = alpha + beta * sigma
            m = beta * vectors @ ((vectors.T @ (f.T @ y)) / lam)
            gamma = (beta * sigma / lam).sum()
            alpha, beta = gamma / (m @ m), (len(y) - gamma) / ((f @ m - y) @ (f @ m - y))
        lam = alpha + beta * sigma
        m = beta * vectors @ ((vectors.T @ (f.T @ y)) / lam)
        n, d = f.shape
        evidence = n / 2 * np.log(beta) + d / 2 * np.log(alpha) - n / 2 * np.log(2 * np.pi)
        evidence -= beta / 2 * ((f @ m - y) @ (f @ m - y)) + alpha / 2 * (m @ m) + np.log(lam).sum() / 2
        total += evidence / n / 3
    assert logme(x, labels) == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize(("n", "dim"), [(60, 10), (24, 60)])
def test_h_score_against_the_dense_formula(n: int, dim: int) -> None:
    x, labels = items(n, dim)
    f = x.numpy() - x.numpy().mean(0)
    covariance, share = sklearn_ledoit_wolf(f, assume_centered=True)
    g = np.stack([f[labels.numpy() == c].mean(0) for c in labels.tolist()])
    assert share > 0
    wanted = np.trace(np.linalg.inv(covariance) @ ((1 - share) * (g.T @ g / n)))
    assert h_score(x, labels) == pytest.approx(wanted, rel=1e-8)


def test_leep_and_nce_literally() -> None:
    rng = np.random.default_rng(0)
    theta, labels = rng.dirichlet(np.ones(4), 50), rng.integers(0, 3, 50)
    joint = np.zeros((3, 4))
    for row, y in zip(theta, labels, strict=True):
        joint[y] += row / 50
    expected = [
        np.log(sum(joint[y, z] / joint[:, z].sum() * row[z] for z in range(4)))
        for row, y in zip(theta, labels, strict=True)
    ]
    assert leep(torch.from_numpy(theta), torch.from_numpy(labels)) == pytest.approx(np.mean(expected))

    hard, total = theta.argmax(1), 0.0
    for z in range(4):
        for y in range(3):
            both = np.mean((hard == z) & (labels == y))
            total += both * np.log(both / np.mean(hard == z)) if both else 0.0
    assert nce(torch.from_numpy(hard), torch.from_numpy(labels)) == pytest.approx(total)


def test_a_source_that_calls_classes_apart_has_the_best_leep_and_nce() -> None:
    labels = torch.arange(12) % 3
    assert nce((labels + 1) % 3, labels) == pytest.approx(0, abs=1e-12)
    assert leep(torch.eye(3)[labels], labels) == pytest.approx(0, abs=1e-12)
    assert nce(torch.zeros(12, dtype=torch.int64), labels) == pytest.approx(-np.log(3))


@pytest.mark.parametrize(("n", "dim"), [(30, 8), (24, 60)])
def test_left_out_scores_are_those_of_regressions_without_the_item(n: int, dim: int) -> None:
    x, labels = items(n, dim, noise=1.5)
    hot = np.eye(3)[labels.numpy()]
    tried = []
    for penalty in PENALTIES:
        rows = []
        for i in range(n):
            keep = np.arange(n) != i
            rows.append(Ridge(alpha=penalty).fit(x.numpy()[keep], hot[keep]).predict(x.numpy()[i : i + 1])[0])
        tried.append(np.stack(rows))
    best = min(tried, key=lambda scores: ((scores - hot) ** 2).sum())
    np.testing.assert_allclose(left_out_scores(x, labels).numpy(), best, atol=1e-7)
    assert loo_ridge(x, labels) == (best.argmax(1) == labels.numpy()).mean()


def test_scores_fall_as_the_labels_are_mixed_up() -> None:
    x, labels = items(60, 20, noise=0.5)
    mixed = labels[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    for score in (logme, h_score, loo_ridge):
        assert score(x, labels) > score(x, mixed)
