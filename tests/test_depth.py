"""The search goes deep enough: also for queries far from all rows, whose candidates a fixed depth would miss."""

import numpy as np
import pytest

from fewshot.depth import above, ceiling, margin, nearest


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
    scores, got, sure = nearest(noisy(rows, noise), rows, queries, 10, z=3.5, depth=40, most=4000)
    assert sure.all()
    assert np.mean([len(set(a) & set(b)) for a, b in zip(got, truth, strict=True)]) >= least
    np.testing.assert_allclose(scores[0], rows[got[0]] @ queries[0], atol=1e-6)


def test_not_sure_when_it_may_not_go_deeper(rows):
    sure = nearest(noisy(rows, 0.3), rows, rows[:20], 10, z=3.5, depth=40, most=40)[2]
    assert not sure.any()
    assert not nearest(noisy(rows, 0.0), rows, rows[:20], 10, z=3.5, depth=40, most=10)[2].any()


def test_all_above_a_threshold(rows):
    queries = rows[:20]
    found, sure = above(noisy(rows, 0.05), rows, queries, 0.35, z=4, depth=20, most=4000)
    assert sure.all()
    want = [np.flatnonzero(rows @ query >= 0.35) for query in queries]
    assert sum(map(len, want)) > 100
    missed = sum(len(set(w) - set(ids)) for w, (_, ids) in zip(want, found, strict=True))
    assert missed <= 1
    assert all(set(ids) <= set(w) for w, (_, ids) in zip(want, found, strict=True))


def test_the_ceiling_by_hand():
    approximate = np.array([[0.9, 0.8, 0.5, 0.3]], np.float32)
    exact = np.array([[0.0, 0.0, 0.6, 0.2]], np.float32)  # errors of the worse half: 0.1 and -0.1
    np.testing.assert_allclose(ceiling(approximate, exact, 2.0), [0.3 + 0.0 + 2 * 0.1], atol=1e-6)


def test_more_recall_takes_more_margin():
    assert [margin(r) for r in (0.95, 0.999)] == pytest.approx([2, 4.25], abs=0.01)
    assert margin(0.5) < margin(0.99) < margin(1 - 1e-9)
