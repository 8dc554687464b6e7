"""`tca` and `jda` against their eigenvalue problems written out with n x n matrices, which scipy solves."""

import resource
import sys

import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from fewshot import fit
from fewshot.arrays import unit
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins._components import joint_components, transfer_components
from fewshot_plugins.jda import Jda
from fewshot_plugins.tca import Tca, components


def two_domains(n: int, m: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(n)
    scale = torch.linspace(0.3, 2, dim)
    x, z = torch.randn(n, dim, generator=rng) * scale, torch.randn(m, dim, generator=rng) * scale.flip(0) + 0.3
    return unit(x).double(), unit(z).double()


def dense(kernel: np.ndarray, n: int, mu: float, dims: int) -> np.ndarray:
    """Coordinates K W of all items, W'(KLK + mu I)W = I.  -> [N, M]"""
    total = len(kernel)
    e = np.r_[np.full(n, 1 / n), np.full(total - n, -1 / (total - n))]
    centring = np.eye(total) - 1 / total
    _, w = eigh(kernel @ centring @ kernel, kernel @ np.outer(e, e) @ kernel + mu * np.eye(total),
                subset_by_index=[total - dims, total - 1])  # fmt: skip
    return kernel @ w[:, ::-1]


def up_to_signs(got: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    signs = np.sign((got * wanted).sum(0))
    np.testing.assert_allclose(got * signs, wanted, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize(("n", "m", "dim"), [(40, 30, 12), (8, 9, 30)])
def test_linear_tca_from_small_matrices_is_the_dense_one(n: int, m: int, dim: int) -> None:
    x, z = two_domains(n, m, dim)
    both = torch.cat([x, z])
    got = both @ transfer_components(x, z, 0.7, 5)
    up_to_signs(got.numpy(), dense((both @ both.mT).numpy(), n, 0.7, 5), 1e-8)


def test_kernel_tca_with_all_items_as_landmarks_is_the_dense_one() -> None:
    x, z = two_domains(30, 25, 6)
    both = torch.cat([x, z])
    space = components(x, z, mu=1.0, dims=4, landmarks=55)
    gaps = torch.cdist(both, both).numpy()
    width = np.sort(gaps[np.triu_indices(55, 1)])[(55 * 54 // 2 - 1) // 2]
    wanted = dense(np.exp(-(gaps**2) / (2 * width**2)), 30, 1.0, 4)
    wanted = unit(torch.from_numpy(wanted - wanted.mean(0))).numpy()
    up_to_signs(space.place(both).numpy(), wanted, 1e-6)


@pytest.mark.slow
def test_low_memory_tca_equals_the_dense_one_at_2000_items() -> None:
    x, z = two_domains(1200, 800, 64)
    both = torch.cat([x, z])
    got = both @ transfer_components(x, z, 1.0, 10)
    up_to_signs(got.numpy(), dense((both @ both.mT).numpy(), 1200, 1.0, 10), 1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="asks the system for the peak of memory")
def test_tca_of_100_000_items_stays_below_4_gb() -> None:
    rng = torch.Generator().manual_seed(0)
    x, z = torch.randn(60_000, 256, generator=rng), torch.randn(40_000, 256, generator=rng)
    space = components(x, z, mu=1.0, dims=20)
    assert space.place(x[:5].double()).shape == (5, 20)
    unit_of_peak = 1 if sys.platform == "darwin" else 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_of_peak < 4e9


def test_jda_solves_its_problem() -> None:
    """Against the generalised eigenvalue problem (X'MX + mu I) A = X'HX A Phi with M written out, smallest Phi."""
    x, z = two_domains(20, 15, 8)
    both = torch.cat([x, z]).numpy()
    labels = np.r_[np.arange(20) % 3, np.arange(15) % 2]  # the target lacks class 2, which is not matched
    domain = np.r_[np.zeros(20), np.ones(15)]
    total = np.zeros((35, 35))
    for c in (None, 0, 1):
        here = np.ones(35, bool) if c is None else labels == c
        e = here * np.where(domain == 0, 1 / (here & (domain == 0)).sum(), -1 / (here & (domain == 1)).sum())
        total += np.outer(e, e)
    total /= np.linalg.norm(total)
    centring = np.eye(35) - 1 / 35
    phi, wanted = eigh(both.T @ total @ both + 0.5 * np.eye(8), both.T @ centring @ both, subset_by_index=[0, 3])
    wanted = wanted / np.sqrt(phi)  # to A'(X'MX + mu I)A = I
    got = joint_components(torch.from_numpy(both), torch.from_numpy(domain), torch.from_numpy(labels), 3, 0.5, 4)
    up_to_signs(got.numpy(), wanted, 1e-8)


def test_jda_guesses_help_where_classes_shift_apart() -> None:
    task = toy_task(("source", "unlabeled"), dim=30, noise=0.7)
    query, truth = toy_queries(task, 20, noise=0.7)
    rounds = [float((fit(Jda(rounds=r), task).logits(query).argmax(-1) == truth).double().mean()) for r in (1, 10)]
    assert rounds[1] >= rounds[0] - 0.02
    assert rounds[1] > 0.7


def test_tca_with_landmarks_classifies() -> None:
    task = toy_task(("support", "source", "unlabeled"), dim=30)
    query, truth = toy_queries(task, 10)
    for landmarks in (0, 20, 1000):
        logits = fit(Tca(landmarks=landmarks), task).logits(query)
        assert float((logits.argmax(-1) == truth).double().mean()) > 0.7
