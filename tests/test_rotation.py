"""The rotation before codes: a rotation, fair to every part, and better than a random one and FAISS's own."""

from unittest.mock import Mock

import numpy as np
import pytest

from fewshot.codes import Codes
from fewshot.rotation import balanced
from fewshot.scan import load_faiss


@pytest.fixture(scope="module")
def rows():
    """Rows [3000, 64] whose variances fall as those of embeddings do, in directions of their own, off the origin."""
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.standard_normal((64, 64)))[0]
    rows = random.standard_normal((3000, 64)) * np.arange(1, 65) ** -0.8 @ turn + random.standard_normal(64)
    return rows.astype(np.float32)


@pytest.mark.parametrize("width", [40, 64, 80])
def test_it_is_a_rotation(rows, width):
    rotation = balanced(rows, width // 4, width)
    assert rotation.shape == (width, 64)
    if width <= 64:
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(width), atol=1e-5)
    if width >= 64:
        np.testing.assert_allclose(rotation.T @ rotation, np.eye(64), atol=1e-5)


def test_fewer_dimensions_are_those_that_vary_most(rows):
    left = np.cov(rows.T) - np.cov(rows.T) @ np.linalg.pinv(balanced(rows, 8, 32)) @ balanced(rows, 8, 32)
    assert np.trace(left) == pytest.approx(np.linalg.eigvalsh(np.cov(rows.T))[:32].sum(), rel=1e-3)


def test_every_part_has_its_share(rows):
    def spread(rotation):  # of the parts' log volumes
        variances = np.diag(rotation @ np.cov(rows.T) @ rotation.T).reshape(16, 4)
        return np.ptp(np.log(variances).sum(1))

    directions = np.linalg.eigh(np.cov(rows.T))[1].T
    assert spread(balanced(rows, 16, 64)) < 0.25 * spread(directions)


def test_codes_err_less_than_after_a_random_rotation_or_faiss_own(rows):
    def error(factory, trained_by_us):
        codes = Codes.make(factory, 64)
        if trained_by_us:
            codes.train(rows)
        else:
            codes._inner.train(rows)
        codes.add(rows)
        scores, found = codes.candidates(rows[:200] - rows.mean(0), 1000)
        exact = np.einsum("qd,qnd->qn", rows[:200] - rows.mean(0), rows[found])
        return float(np.std(exact - scores))

    ours = error("OPQ16_64,PQ16x4fs", True)
    assert ours < 0.8 * error("RR64,PQ16x4fs", True)
    assert ours < 0.95 * error("OPQ16_64,PQ16x4fs", False)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_a_sample_that_does_not_fill_the_space(rows, count):
    rotation = balanced(rows[:count], 16, 64)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(64), atol=1e-5)
    assert np.isfinite(balanced(np.repeat(rows[:1], 50, 0), 16, 64)).all()


@pytest.mark.parametrize("size", [20, 300])
@pytest.mark.parametrize("dim", [24, 513])
def test_rows_that_vary_in_no_direction_or_in_all_alike(size, dim):
    random = np.random.default_rng(0)
    same = np.repeat(random.standard_normal((1, dim)), size, 0)
    hot = np.eye(dim)[random.integers(0, dim, size)]
    for rows in (same / np.linalg.norm(same[0]), hot, np.zeros((size, dim))):
        rotation = balanced(rows.astype(np.float32), -(-dim // 4), dim + -dim % 4)
        np.testing.assert_allclose(rotation.T @ rotation, np.eye(dim), atol=1e-5)


def test_directions_that_cannot_be_found(rows, monkeypatch):
    for found in (np.full(64, np.nan), np.full((64, 64), np.nan)), np.linalg.LinAlgError("no convergence"):
        monkeypatch.setattr(np.linalg, "eigh", Mock(side_effect=[found]))
        rotation = balanced(rows, 16, 64)
        np.testing.assert_allclose(rotation.T @ rotation, np.eye(64), atol=1e-5)


def test_one_dimension():
    rotation = balanced(np.arange(20, dtype=np.float32)[:, None], 1, 4)
    np.testing.assert_allclose(np.abs(rotation), [[1], [0], [0], [0]])


def test_only_a_rotation_that_comes_first_is_set(rows):
    codes = Codes.make("RR64,OPQ16_64,PQ16x4fs", 64)
    codes.train(rows)  # by FAISS, which knows what comes before
    codes.add(rows)
    faiss = load_faiss()
    flat = faiss.IndexFlatIP(64)
    flat.add(rows)
    truth, found = flat.search(rows[:50], 10)[1], codes.candidates(rows[:50], 300)[1]
    assert np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)]) > 0.8
