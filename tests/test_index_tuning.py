"""What is told of an index is what a search reaches, also where rows are alike, few, or of heavy tails."""

import numpy as np
import pytest
import torch

from fewshot.depth import CAUTION
from fewshot.index import Index
from fewshot.index_plan import Wanted, plan


def built(rows, kind="fast", recall=0.99):
    wanted = Wanted(kind, recall)
    return Index.build(rows, np.ones(len(rows), bool), plan(wanted, *rows.shape), wanted)


def reached(index, queries, k=10):
    """Share of what is found that scores as much as the k-th best of all products."""
    exact = queries.astype(np.float64) @ index.rows.T.astype(np.float64)  # [Q, N]
    least = np.sort(exact, axis=1)[:, -k, None]
    found = index.search(torch.from_numpy(queries), k)[1]
    return float((np.take_along_axis(exact, found, 1) >= least - 1e-5 * np.abs(least)).mean())


@pytest.mark.parametrize("kind", ["fast", "pq", "sq"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_that_are_alike_do_not_count_as_missed(kind, dtype):
    random = np.random.default_rng(0)
    rows = random.standard_normal((60, 24))[random.integers(60, size=3000)].astype(dtype)
    index = built(rows, kind)
    assert index.facts.recall["pictures"] >= 0.99
    assert index.facts.caution < 1.5 * CAUTION  # little calls for more
    assert reached(index, rows[:100].astype(np.float32)) >= 0.99


@pytest.mark.parametrize("count", [20, 25, 40, 60])
@pytest.mark.parametrize("kind", ["fast", "pq", "sq"])
def test_few_rows_are_told_as_they_are_searched(kind, count):
    rows = np.random.default_rng(1).standard_normal((count, 24)).astype(np.float32)
    index = built(rows, kind)
    assert index.facts.recall["pictures"] >= 0.99
    assert reached(index, rows) >= 0.99


def test_queries_that_are_scanned_for_miss_nothing():
    random = np.random.default_rng(2)
    rows, queries = (random.standard_normal((n, 48)).astype(np.float32) for n in (8000, 200))  # codes hardly tell apart
    index = built(rows, "pq")
    assert index.facts.recall["pictures"] >= 0.99
    assert index.facts.caution == CAUTION
    assert reached(index, queries) >= 0.99


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("count", [17, 19, 20, 24])
@pytest.mark.parametrize("k", [1, 5])
def test_rows_too_few_to_measure_are_all_looked_at(kind, count, k):
    rows = np.random.default_rng(5).standard_normal((count, 8)).astype(np.float32)
    assert reached(built(rows, kind), rows, k) == 1


@pytest.mark.parametrize("kind", ["fast", "ivf"])
@pytest.mark.parametrize("wanted", [0.9, 0.99])
@pytest.mark.parametrize("spacing", [0.05, 0.5])
def test_queries_in_any_direction_find_their_nearest_too(kind, wanted, spacing):
    """Rows in tight or loose groups, asked for in directions of no likeness to any: 0.86 to 0.57 by a fixed margin."""
    random = np.random.default_rng(6)
    centres = random.standard_normal((600, 64))
    rows = centres[random.integers(600, size=12000)] + spacing * random.standard_normal((12000, 64))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    index = built(rows, kind, wanted)
    assert reached(index, random.standard_normal((200, 64)).astype(np.float32)) >= wanted
    assert reached(index, rows[:200]) >= wanted


def test_what_is_told_holds_where_the_caution_was_raised():
    """Rows of very unequal lengths: 0.995 was told, and 0.92 reached, when only the margin was raised."""
    random = np.random.default_rng(7)
    rows, queries = (random.standard_normal((n, 64)) for n in (10000, 300))
    rows = (rows * np.exp(random.standard_normal((10000, 1)))).astype(np.float32)
    index = built(rows, "pq")
    assert reached(index, queries.astype(np.float32)) >= min(index.facts.recall.values()) - 0.01


def test_rows_of_heavy_tails_are_looked_at_more_carefully():
    random = np.random.default_rng(3)
    rows, queries = (random.standard_t(1.5, (n, 48)).astype(np.float32) for n in (8000, 300))
    index = built(rows)
    assert index.facts.recall["pictures"] >= 0.99
    assert reached(index, queries) >= 0.98  # 0.97 with a margin of 6
