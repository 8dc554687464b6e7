"""Lists are looked into as far as a query's nearness asks for, and what is found there is what FAISS finds."""

import faiss
import numpy as np
import pytest

from fewshot.codes import Codes
from fewshot.effort import ANY, Look, Looks, Tier, everywhere, looks
from fewshot.index_tuning import _enough

D, LISTS = 32, 64
TIERS = (Tier(0.8, ((10, 4), (1000, 40))), Tier(0.5, ((10, 16), (1000, 64))), Tier(0.2, ((10, 80), (1000, 90))))


@pytest.fixture(scope="module")
def grouped():
    random = np.random.default_rng(0)
    rows = random.standard_normal((200, D))[random.integers(200, size=6000)] + 0.4 * random.standard_normal((6000, D))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(
    scope="module", params=["IVF64,Flat", "RR32,IVF64,PQ16x4fsr", "OPQ8_32,IVF64,PQ8x4fsr", "IVF64_HNSW8,SQ8"]
)
def codes(request, grouped):
    made = Codes.make(request.param, D)
    made.train(grouped)
    made.add(grouped)
    return made


def test_effort_between_and_beyond_what_was_measured():
    assert looks(TIERS, 10, LISTS).steps == (Look(0.8, 4), Look(0.5, 16), Look(ANY, 64))
    assert looks(TIERS, 5, LISTS).steps[0].effort == 4
    assert looks(TIERS, 100, LISTS).steps[0].effort == 13  # 4 x sqrt(10)
    assert looks(TIERS, 2000, 10**6).steps[0].effort == 80


def test_a_share_of_the_rows_takes_as_many_more_lists():
    assert looks(TIERS, 10, LISTS, share=0.5).steps[0] == Look(0.8, 8)


def test_nothing_measured_means_everything():
    assert looks((), 10, LISTS) == everywhere(LISTS)


@pytest.mark.parametrize("effort", [1, 5, LISTS])
def test_what_is_found_is_what_faiss_finds(codes, grouped, effort):
    ivf = faiss.extract_index_ivf(codes._inner)
    ivf.nprobe = effort
    scores, rows = codes._inner.search(grouped[:40], 20)
    told = codes.candidates(grouped[:40], 20, everywhere(effort))
    np.testing.assert_allclose(told[0], scores, rtol=1e-5)
    assert (told[1] == rows).mean() > 0.98  # rows of equal scores may change places


def test_queries_of_each_nearness_get_their_own_effort(codes, grouped):
    random = np.random.default_rng(1)
    queries = np.concatenate([grouped[:30], random.standard_normal((30, D)).astype(np.float32)])[random.permutation(60)]
    nearness = codes.near(queries).nearness()
    first, second = np.quantile(nearness, [0.7, 0.3]).tolist()
    found = codes.candidates(queries, 15, Looks((Look(first, 1), Look(second, 3), Look(ANY, 9))))
    for i, near in enumerate(nearness):
        effort = 1 if near >= first else 3 if near >= second else 9
        alone = codes.candidates(queries[i : i + 1], 15, everywhere(effort))
        np.testing.assert_allclose(found[0][i], alone[0][0], rtol=1e-5)


def test_reach_is_the_number_of_lists_after_which_a_row_is_found(codes, grouped):
    if isinstance(faiss.downcast_index(codes._leaf.quantizer), faiss.IndexHNSW):
        pytest.skip("how near a centre seems to a graph depends on how many are asked for")
    queries, rows = grouped[:25], np.random.default_rng(2).integers(len(grouped), size=(25, 4))
    reach = codes.reach(queries, rows)
    for query, its, needed in zip(queries, rows, reach, strict=True):
        for row, lists in zip(its.tolist(), needed.tolist(), strict=True):
            assert row in codes.candidates(query[None], len(grouped), everywhere(lists))[1]
            assert lists == 1 or row not in codes.candidates(query[None], len(grouped), everywhere(lists - 1))[1]


def test_a_query_without_direction_is_answered(codes):
    assert codes.candidates(np.zeros((1, D), np.float32), 5, Looks((Look(0.5, 1), Look(ANY, LISTS))))[1].shape == (1, 5)


def test_few_of_the_nearest_rows_are_told_from_the_tail():
    lists = np.ceil(np.random.default_rng(3).pareto(2, (2000, 10)) + 1).astype(np.int64)  # of 1 / x^2 more than x
    assert _enough(lists, 0.1) == np.sort(lists, axis=None)[-2001]
    for missed in (1e-3, 1e-4):
        assert 0.6 < _enough(lists[:200], missed) / missed**-0.5 < 1.6
    assert _enough(np.ones((50, 10), np.int64), 1e-4) == 1
