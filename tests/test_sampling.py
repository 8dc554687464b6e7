"""Oracles: counting, and scipy's chi-square test."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from fewshot import sampling


@pytest.mark.parametrize("limit", [96, 0], ids=["swaps", "sorted keys"])
def test_every_ordered_sample_is_equally_likely(monkeypatch, limit):
    monkeypatch.setattr(sampling, "SWAP_LIMIT", limit)
    drawn = sampling.sample_ordered(np.random.default_rng(0), np.full(24_000, 4), 3)
    outcomes = list(permutations(range(4), 3))
    counts = [int((drawn == outcome).all(1).sum()) for outcome in outcomes]
    assert sum(counts) == 24_000
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("limit", [96, 0], ids=["swaps", "sorted keys"])
def test_rows_of_unequal_size_stay_distinct_and_in_range(monkeypatch, limit):
    monkeypatch.setattr(sampling, "SWAP_LIMIT", limit)
    monkeypatch.setattr(sampling, "KEYS_AT_ONCE", 100)
    sizes = np.random.default_rng(1).integers(1, 30, 200)
    drawn = sampling.sample_ordered(np.random.default_rng(2), sizes, 20)
    for row, size in zip(drawn, sizes, strict=True):
        kept = row[: min(20, size)]
        assert len(set(kept)) == len(kept)
        assert kept.max() < size


def test_apportion_keeps_total_room_and_shares():
    rng = np.random.default_rng(3)
    share = rng.dirichlet([2.0] * 5, 500)
    total = np.full(500, 75)
    counts = sampling.apportion(share, total, np.full((500, 5), 75))
    assert (counts.sum(1) == 75).all()
    assert np.abs(counts - share * 75).max() < 1
    tight = sampling.apportion(share, total, np.full((500, 5), 16))
    assert (tight.sum(1) == 75).all()
    assert tight.max() <= 16
    assert (sampling.apportion(share, np.full(500, 80), np.full((500, 5), 16)) == 16).all()


def test_long_tail_falls_by_its_imbalance():
    share = sampling.long_tail(np.array([5, 3]), 5, 10.0)
    assert share[0, 0] / share[0, 4] == pytest.approx(10)
    assert share[1, 0] / share[1, 2] == pytest.approx(10)
    assert share[1, 3:].tolist() == [0, 0]
    assert share.sum(1) == pytest.approx(1)


def test_dirichlet_has_the_moments_of_its_distribution():
    share = sampling.dirichlet(np.random.default_rng(4), np.full(20_000, 5), 5, 2.0)
    assert share.mean(0) == pytest.approx([0.2] * 5, abs=0.005)
    assert share.var(0) == pytest.approx([0.2 * 0.8 / 11] * 5, rel=0.05)
