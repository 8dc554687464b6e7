"""near_pairs() against all pairs, one by one."""

import itertools

import numpy as np
import pytest
import torch

from fewshot.duplicates import near_pairs


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_pairs_are_those_of_brute_force(block):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 6))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = rng.integers(0, 4, 90)
    pairs = [(float(x[i] @ x[j]), i, j) for i, j in itertools.combinations(range(90), 2) if labels[i] != labels[j]]
    wanted = sorted(pairs, reverse=True)[:25]
    found = near_pairs(torch.from_numpy(x).float(), labels, 25, block=block)
    assert [(p.first, p.second) for p in found] == [(i, j) for _, i, j in wanted]
    assert [p.cosine for p in found] == pytest.approx([c for c, _, _ in wanted], abs=1e-6)


def test_a_copy_with_another_label_comes_first():
    x = torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    x[41] = x[3]
    found = near_pairs(x, np.arange(50) % 2 + np.arange(50) // 25, 3)
    assert (found[0].first, found[0].second) == (3, 41)
    assert 0.999999 < found[0].cosine <= 1


def test_there_may_be_fewer_pairs_than_asked_for():
    x = torch.eye(3)
    assert len(near_pairs(x, np.array([0, 0, 1]), 10)) == 2
    assert near_pairs(x, np.zeros(3, np.int64), 10) == []
