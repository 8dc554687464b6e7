"""Lists, and a range of scores, where the rows that count lie in some lists only, or are more than an effort is for."""

import numpy as np
import pytest
import torch

from fewshot.index import Index
from fewshot.index_plan import Wanted, plan

D = 48


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def clustered(clusters, rows, width):
    random = np.random.default_rng(4)
    label = np.sort(random.integers(clusters, size=rows))
    return unit(random.standard_normal((clusters, D))[label] + width * random.standard_normal((rows, D))), label


def built(rows, alive=None, kind="ivf"):
    wanted = Wanted(kind, 0.99)
    alive = np.ones(len(rows), bool) if alive is None else alive
    return Index.build(rows, alive, plan(wanted, *rows.shape), wanted)


def recall(index, queries, only, k=10):
    exact = np.where(only, queries.astype(np.float64) @ index.rows.T.astype(np.float64), -np.inf)
    least = np.sort(exact, axis=1)[:, -k, None]
    found = index.search(torch.from_numpy(queries), k, only)[1]
    return float((np.take_along_axis(exact, found, 1) >= least - 1e-6).mean())


@pytest.mark.parametrize("clusters", [12, 500])
@pytest.mark.parametrize("kept", [0.15, 0.5, 0.9])
def test_a_filter_of_whole_clusters_hides_none_of_the_others(clusters, kept):
    """Queries of rows that do not count, whose nearest lists hold hardly any that do: 0.16 to 0.77, it was."""
    rows, label = clustered(clusters, 12000, 0.25)
    index, only = built(rows), label < kept * clusters
    random = np.random.default_rng(5)
    for some in (np.flatnonzero(~only), np.flatnonzero(only)):
        assert recall(index, rows[random.choice(some, 200)], only) >= 0.99


def test_a_filter_by_chance_and_one_row_at_a_time():
    rows, _ = clustered(12, 12000, 0.25)
    index, only = built(rows), np.random.default_rng(6).random(12000) < 0.3
    queries = rows[::100]
    assert recall(index, queries, only) >= 0.99
    together = index.search(torch.from_numpy(queries), 10, only)[0]
    alone = np.concatenate([index.search(torch.from_numpy(query[None]), 10, only)[0] for query in queries])
    assert (np.abs(together - alone) < 1e-6).mean() > 0.99


def test_what_is_like_the_mean_of_all_rows_is_looked_for_everywhere():
    """It is near to every centre, so its nearest rows are in any list: recall 0.55, it was, on photographs."""
    random = np.random.default_rng(8)
    rows = unit(1.5 * unit(random.standard_normal((1, D))) + clustered(300, 12000, 0.1)[0])
    index, mean = built(rows), unit(rows.mean(0, keepdims=True))
    queries = unit(mean + 0.1 * (rows[::400] - mean))
    assert (mean @ rows.T).min() > 0.7
    assert (index.near(queries).lead() < index.facts.lead).all()
    assert (index.near(rows[::40]).lead() < index.facts.lead).mean() < 0.05
    assert recall(index, queries, np.ones(len(rows), bool)) >= 0.99


def test_what_is_like_removed_rows_finds_the_others():
    rows, label = clustered(12, 12000, 0.25)
    index = built(rows)
    alive = ~np.isin(label, [3, 7])
    index = index.grown(rows, alive, 0)
    assert recall(index, rows[~alive][::10], alive) >= 0.99
    assert recall(index, rows[alive][::100], alive) >= 0.99
    more = np.concatenate([rows, rows[label == 3] + 0.01]).astype(np.float32)  # codes are added to the lists
    assert (
        recall(
            index.grown(more, np.append(alive, np.ones((label == 3).sum(), bool)), 0),
            rows[::100],
            np.append(alive, np.ones((label == 3).sum(), bool)),
        )
        >= 0.99
    )


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "fast"])
@pytest.mark.parametrize("share", [0.0001, 0.002, 0.2])
def test_a_range_has_all_rows_of_a_large_cluster(kind, share):
    """More than an effort was measured for: 0.65 of them were found."""
    rows, _ = clustered(6, 12000, 0.25)
    index, queries = built(rows, kind=kind), rows[::150]
    exact = queries.astype(np.float64) @ rows.T.astype(np.float64)
    least = float(np.quantile(exact, 1 - share))
    found = index.range_search(torch.from_numpy(queries), least)
    there = sum(len(which) for _, which in found)
    assert there >= 0.98 * (exact >= least + 1e-6).sum()
    for query, (scores, which) in zip(queries, found, strict=True):
        np.testing.assert_allclose(scores, rows[which] @ query, atol=1e-5)
        assert len(set(which.tolist())) == len(which)


@pytest.mark.parametrize("kind", ["fast", "ivf"])
def test_every_score_is_exact_the_last_one_too(kind):
    """It came out a millionth of it too large."""
    rows, _ = clustered(12, 12000, 0.25)
    scores, found = built(rows, kind=kind).search(torch.from_numpy(rows[:200]), 10)
    exact = np.einsum("qd,qkd->qk", rows[:200].astype(np.float64), rows[found].astype(np.float64))
    assert np.abs(scores / exact - 1).max() < 5e-7
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_graph_is_not_walked_among_others_than_those_that_count(share):
    random = np.random.default_rng(4)
    only = random.random(4000) < share
    rows = random.standard_normal((4000, 24))
    rows[only] *= 0.5
    rows[only, 0] += 4
    index = built(unit(rows), kind="hnsw")
    assert recall(index, index.rows[~only][:200], only) == 1
    assert index._codes.bunched(only)
    assert not index._codes.bunched(random.random(4000) < share)
    assert not index._codes.bunched(np.ones(4000, bool))
