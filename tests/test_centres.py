"""The nearest centres are those that FAISS finds, whether all are compared or the best are searched for."""

import faiss
import numpy as np
import pytest

from fewshot.centres import Centres
from fewshot.effort import ANY
from fewshot.scan import best_first


@pytest.fixture(params=["Flat", "HNSW16", "SQ8"])
def quantizer(request: pytest.FixtureRequest) -> faiss.Index:
    """Centres of 700 lists."""
    rows = np.random.default_rng(0).standard_normal((700, 24), np.float32)
    made = faiss.index_factory(24, request.param, faiss.METRIC_INNER_PRODUCT)
    made.train(rows)
    made.add(rows)
    return made


@pytest.mark.parametrize("count", [1, 30, 170, 300])
@pytest.mark.parametrize("queries", [1, 3, 20])  # few, and many
def test_the_best_are_those_of_faiss(quantizer: faiss.Index, queries: int, count: int) -> None:
    asked = np.random.default_rng(1).standard_normal((queries, 24), np.float32)
    reached, lists = quantizer.search(asked, count)
    near = Centres(quantizer).near(asked, 30)
    found = near.best(count)
    np.testing.assert_array_equal(found[1], lists)
    np.testing.assert_allclose(found[0], reached, rtol=1e-5)
    np.testing.assert_array_equal(near.best(count, [queries - 1])[1], lists[-1:])
    np.testing.assert_allclose(near.nearness(), reached[:, 0] / np.linalg.norm(asked, axis=1), rtol=1e-5)
    length = np.linalg.norm(asked, axis=1)
    np.testing.assert_allclose(near.nearness(reached=reached[:, -1]), reached[:, -1] / length, rtol=1e-5)
    lead = (reached[:, 0] - asked @ quantizer.reconstruct_n(0, 700).mean(0)) / length
    np.testing.assert_allclose(near.lead(), lead, rtol=1e-4)
    middle = float(np.median(lead)) + 1e-3
    np.testing.assert_array_equal(near.nearness(middle) > ANY, lead >= middle)


def test_a_query_of_nothing_is_near_to_nothing(quantizer: faiss.Index) -> None:
    assert Centres(quantizer).near(np.zeros((1, 24), np.float32)).nearness().tolist() == [0.0]


@pytest.mark.parametrize("wide", [5, 512, 4000])
@pytest.mark.parametrize("count", [1, 5, 900, 5000])
def test_best_first(wide: int, count: int) -> None:
    scores = np.random.default_rng(2).standard_normal((3, wide)).astype(np.float32)
    np.testing.assert_array_equal(best_first(scores, count), np.argsort(-scores, axis=1)[:, :count])
