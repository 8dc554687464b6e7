"""near_pairs() against all pairs, one by one."""

import itertools

import numpy as np
import pytest
import torch

from fewshot.duplicates import near_pairs, pairs_above
from fewshot.index import Index
from fewshot.index_plan import Wanted, plan


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


@pytest.mark.parametrize("kind", ["exact", "fast"])
def test_pairs_of_an_index_above_a_threshold(kind):
    random = np.random.default_rng(3)
    x = random.normal(size=(60, 32))[random.integers(60, size=2000)] + 0.4 * random.normal(size=(2000, 32))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    alive = np.arange(2000) % 3 > 0
    wanted = Wanted(kind)
    index = Index.build(x, alive, plan(wanted, 2000, 32), wanted)
    found = {(pair.first, pair.second): pair.cosine for pair in pairs_above(index, 0.93, block=300)}
    cosine = x.astype(np.float64) @ x.T
    want = {(i, j) for i, j in np.argwhere(cosine >= 0.93) if i < j and alive[i] and alive[j]}
    assert len(want) > 50
    assert set(found) <= want
    assert len(found) >= 0.99 * len(want)
    assert all(found[pair] == pytest.approx(cosine[pair], abs=1e-5) for pair in found)


@pytest.mark.parametrize("kind", ["exact", "fast"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("dim", [16, 300])
def test_equal_rows_are_above_one_whatever_rounding_does(kind, dtype, dim):
    rows = np.random.default_rng(3).standard_normal((300, dim))
    rows = np.repeat(rows / np.linalg.norm(rows, axis=1, keepdims=True), 2, axis=0).astype(dtype)
    wanted = Wanted(kind)
    index = Index.build(rows, np.ones(600, bool), plan(wanted, 600, dim), wanted)
    pairs = list(pairs_above(index, 1.0))
    assert [(p.first, p.second) for p in pairs] == [(i, i + 1) for i in range(0, 600, 2)]
    assert all(0.998 < p.cosine <= 1 for p in pairs)
