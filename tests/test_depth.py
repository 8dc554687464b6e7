"""The search goes deep enough: also for queries far from all rows, whose candidates a fixed depth would miss."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from fewshot.depth import Care, above, ceiling, errors, margins, nearest


@pytest.fixture(scope="module")
def rows():
    rows = np.random.default_rng(0).normal(size=(4000, 48)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def noisy(rows, noise):
    """Ask for candidates by scores with a noise that is the same whenever a query is asked for."""
    error = noise * np.random.default_rng(1).normal(size=len(rows)).astype(np.float32)

    def ask(queries, depth):
        scores = queries @ rows.T + error
        order = np.argsort(-scores, axis=1)[:, :depth]
        return np.take_along_axis(scores, order, 1), order

    return ask


# A noise of 0.3 is more than the scores themselves vary by: far worse than any code's.
@pytest.mark.parametrize(("noise", "least"), [(0.01, 9.98), (0.1, 9.98), (0.3, 9.9)])
def test_as_deep_as_the_noise_demands(rows, noise, least):
    queries = rows[:30] + rows[30:60]
    truth = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
    scores, got, sure = nearest(noisy(rows, noise), rows, queries, 10, care=Care(0.001), depth=40, most=12000)
    assert sure.all()
    assert np.mean([len(set(a) & set(b)) for a, b in zip(got, truth, strict=True)]) >= least
    np.testing.assert_allclose(scores[0], rows[got[0]] @ queries[0], atol=1e-6)


def test_not_sure_when_it_may_not_go_deeper(rows):
    sure = nearest(noisy(rows, 0.3), rows, rows[:20], 10, care=Care(0.001), depth=40, most=40)[2]
    assert not sure.any()
    assert not nearest(noisy(rows, 0.0), rows, rows[:20], 10, care=Care(0.001), depth=40, most=10)[2].any()


def test_all_above_a_threshold(rows):
    queries = rows[:20]
    found, sure = above(noisy(rows, 0.05), rows, queries, 0.35, care=Care(0.001), depth=20, most=4000, count=len(rows))
    assert sure.all()
    want = [np.flatnonzero(rows @ query >= 0.35) for query in queries]
    assert sum(map(len, want)) > 100
    missed = sum(len(set(w) - set(ids)) for w, (_, ids) in zip(want, found, strict=True))
    assert missed <= 1
    assert all(set(ids) <= set(w) for w, (_, ids) in zip(want, found, strict=True))


def test_the_errors_by_hand():
    approximate = np.array([[0.9, 0.8, 0.5, 0.3, 0.1]], np.float32)
    exact = np.array([[0.0, 0.0, 0.7, 0.3]], np.float32)  # errors of the worse half: 0.2 and 0
    mean, deviation = errors(approximate, exact, caution=2.0)
    np.testing.assert_allclose([mean[0], deviation[0]], [0.1, 2 * 0.1], atol=1e-6)


@pytest.mark.parametrize("density", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("allowed", [1.0, 0.1, 0.01])
def test_the_margin_leaves_as_many_rows_as_are_allowed(density, allowed):
    """The integral by SciPy: 300 candidates, whose density grows by exp(density) for each deviation downwards."""
    densities, margin = margins(300, allowed, 10**12)
    u = np.interp(density, densities, margin)
    tail = lambda t: 300 * density * np.exp(density * t) * norm.cdf(-(u + t))  # noqa: E731
    assert quad(tail, 0, 40)[0] == pytest.approx(allowed, rel=0.02)


def test_no_more_rows_are_missed_than_there_are():
    margin = margins(300, 0.01, 1300)[1]
    assert 1000 * norm.cdf(-margin.max()) == pytest.approx(0.01, rel=0.02)
    assert (np.diff(margin) >= 0).all()


def test_the_ceiling_by_hand():
    scores = -np.log2(np.arange(1, 9, dtype=np.float32))[None]  # half as many for each 1 upwards
    error = np.array([0.25], np.float32), np.array([0.5], np.float32)
    margin = np.interp(np.log(2) * 0.5, *margins(4, 0.1, 1000))
    np.testing.assert_allclose(ceiling(scores, 4, error, 0.1, 1000), [-2 + 0.25 + 0.5 * margin], atol=1e-5)


@pytest.mark.parametrize("recall", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_about_as_many_are_missed_as_are_allowed(recall, noise):
    """Whatever the queries are like: near the rows, between them, or nowhere."""
    random = np.random.default_rng(3)
    rows = random.normal(size=(20000, 32)).astype(np.float32) * np.linspace(2, 0.1, 32, dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for queries in (rows[:60], rows[:60] - rows[60:120], random.normal(size=(60, 32)).astype(np.float32)):
        exact = queries @ rows.T
        width = noise * np.linalg.norm(queries, axis=1, keepdims=True)
        noisy = exact + width * random.normal(size=exact.shape).astype(np.float32)
        order = np.argsort(-noisy, axis=1)

        def ask(some, depth, exact=exact, noisy=noisy, order=order, queries=queries):
            which = [int(np.flatnonzero((queries == query).all(1))[0]) for query in some]
            ids = order[which, :depth]
            return np.take_along_axis(noisy[which], ids, 1), ids

        _, got, sure = nearest(ask, rows, queries, 10, care=Care(1 - recall), depth=64, most=20000)
        least = np.sort(exact, axis=1)[:, -10, None]
        assert sure.all()
        assert (np.take_along_axis(exact, got, 1) >= least).mean() >= recall - 0.003


def test_more_recall_takes_more_candidates(rows):
    asked = []

    def ask(queries, depth):
        asked.append(depth)
        return noisy(rows, 0.1)(queries, depth)

    for misses in (0.3, 0.01, 1e-9):
        asked.clear()
        nearest(ask, rows, rows[:10], 10, care=Care(misses), depth=20, most=4000)
        assert len(asked) == {0.3: 3, 0.01: 4, 1e-9: 4}[misses]
