"""The queries an index is measured with are what they are said to be."""

import numpy as np
import pytest

from fewshot.index_queries import KINDS, MIXED, drawn


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_each_kind_comes_from_rows_that_are_alive(dtype):
    random = np.random.default_rng(0)
    rows = random.standard_normal((400, 64)).astype(dtype)
    live = np.sort(random.choice(400, 300, replace=False))
    queries, own, kind = drawn(rows, live, (50, 80, 30, 20))
    assert queries.dtype == np.float32
    assert np.bincount(kind).tolist() == [50, 80, 30, 20]
    assert len(KINDS) == 4
    assert np.isin(own[kind < 2], live).all()
    assert (own[kind > 1] == -1).all()
    np.testing.assert_array_equal(queries[kind == 0], rows[own[kind == 0]].astype(np.float32))
    assert len(set(own[kind == 0].tolist())) == 50


def test_mixtures_and_differences_are_of_two_rows():
    rows = np.eye(12, dtype=np.float32)  # so that a query shows what it is made of
    queries, own, kind = drawn(rows, np.arange(12), (12, 12, 12, 12))
    for query, its in zip(queries[kind == 1], own[kind == 1], strict=True):
        share = 1 - query[its]
        assert MIXED[0] <= share <= MIXED[1]
        assert sorted(query)[-2:] == pytest.approx([share, 1 - share])
        assert np.count_nonzero(query) == 2
    for query in queries[kind == 2]:
        assert sorted(query[query != 0].tolist()) == [-1, 1]


def test_no_more_of_a_kind_than_rows():
    kind = drawn(np.eye(30, dtype=np.float32), np.arange(5, 25), (300, 300, 100, 0)).kind
    assert np.bincount(kind).tolist() == [20, 20, 20]
