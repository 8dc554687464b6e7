"""Distances of domains against their definitions written out, and the p-value against its meaning."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from fewshot.transfer.gap import coral_distance, mmd, proxy_a_distance
from fewshot.transfer.when import measure_gap


def normal(n: int, dim: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_mmd_is_the_unbiased_estimate() -> None:
    x, y = normal(7, 3, 0).numpy(), normal(9, 3, 1, shift=0.5).numpy()
    both = np.concatenate([x, y])
    distances = [np.linalg.norm(both[i] - both[j]) for i in range(16) for j in range(i)]
    width = np.sort(distances)[(len(distances) - 1) // 2]  # the lower of the two in the middle, as torch takes it

    def k(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * width**2))

    wanted = np.mean([k(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    wanted += np.mean([k(y[i], y[j]) for i in range(9) for j in range(9) if i != j])
    wanted -= 2 * np.mean([k(a, b) for a in x for b in y])
    assert mmd(torch.from_numpy(x), torch.from_numpy(y)).mmd2 == pytest.approx(wanted)


def test_mmd_p_values_are_uniform_under_the_null() -> None:
    values = [mmd(normal(15, 4, 2 * i), normal(20, 4, 2 * i + 1), permutations=99, seed=i).p for i in range(400)]
    assert kstest(values, "uniform").pvalue > 0.01
    assert np.mean(np.array(values) <= 0.05) == pytest.approx(0.05, abs=0.03)


def test_mmd_sees_a_shift() -> None:
    assert mmd(normal(40, 5, 0), normal(40, 5, 1, shift=1.0)).p == pytest.approx(1 / 501)


@pytest.mark.parametrize("dim", [4, 50])  # more items than dims, and fewer: the two forms
def test_coral_distance_is_that_of_the_covariances(dim: int) -> None:
    x, y = normal(12, dim, 0), normal(15, dim, 1) * 2
    wanted = ((np.cov(x.numpy().T) - np.cov(y.numpy().T)) ** 2).sum() / (4 * dim**2)
    assert coral_distance(x, y) == pytest.approx(wanted)


def test_a_gap_tells_how_far_apart_the_covariances_are() -> None:
    x, y = (torch.nn.functional.normalize(normal(12 + seed, 50, seed), dim=-1) for seed in (0, 1))
    found = measure_gap(x, y, torch.arange(13) % 2, y[:0])
    assert found.covariance == pytest.approx(np.linalg.norm(np.cov(x.numpy().T) - np.cov(y.numpy().T)))


def test_proxy_a_distance_spans_0_to_2() -> None:
    assert proxy_a_distance(normal(60, 4, 0), normal(90, 4, 1)) < 0.6
    assert proxy_a_distance(normal(60, 4, 0), normal(90, 4, 1, shift=5.0)) == 2.0
