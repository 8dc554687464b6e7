"""plan() chooses by size, recall and memory, and its memory is what FAISS then takes."""

import numpy as np
import pytest

from fewshot.codes import Codes
from fewshot.errors import FormatError, InvalidOption, NotEnoughMemory
from fewshot.index_plan import Wanted, plan, read_size, size, want, wanted_of
from fewshot.store import Store

PLENTY = 10**15


@pytest.mark.parametrize(
    ("rows", "recall", "memory", "kind"),
    [
        (4000, 0.999, None, "exact"),
        (40_000, 0.95, None, "fast"),
        (100_000, 0.999, None, "ivf"),
        (1_000_000, 0.999, None, "ivf"),
        (1_000_000, 0.95, None, "ivf"),
        (1_000_000, 0.95, 70 * 10**6, "fast"),  # lists hold the numbers of their rows besides
        (1_000_000, 0.999, 50 * 10**6, "pq"),
        (4000, 0.999, 1, "exact"),  # is read from disk
    ],
)
def test_auto(rows, recall, memory, kind):
    assert plan(Wanted("auto", recall, memory), rows, 512, PLENTY).kind == kind


@pytest.mark.parametrize("factory", ["RR64,PQ32x4fs", "IVF64,PQ32x4fsr", "HNSW16,SQ8", "SQ8", "IVF16,Flat", "PQ16"])
def test_memory_told_is_memory_taken(factory):
    rows = np.random.default_rng(0).normal(size=(20_000, 64)).astype(np.float32)
    codes = Codes.make(factory, 64)
    codes.train(rows[:4000])
    codes.add(rows)
    taken = len(codes.serialize())
    assert 0.8 * taken < plan(Wanted(factory), 20_000, 64, PLENTY).resident < 1.25 * taken


def test_what_does_not_fit_is_refused_before_it_is_allocated():
    with pytest.raises(NotEnoughMemory, match=r"10,000,000 x 512 needs hnsw .* 2 GB are free; .*--kind exact"):
        plan(Wanted("hnsw"), 10_000_000, 512, 2 * 10**9)
    with pytest.raises(NotEnoughMemory, match=r"needs pq .*--memory allows 1 MB"):
        plan(Wanted("auto", memory=10**6), 1_000_000, 512, PLENTY)


def test_bad_wishes():
    for recall in (0, 1, -0.5, 7):
        with pytest.raises(InvalidOption, match="recall must lie between 0 and 1"):
            Wanted(recall=recall)
    for kind in ("", " ", "Flat\udcff", "PQ8\n"):
        with pytest.raises(InvalidOption, match="is no kind of index"):
            Wanted(kind)
    for text in ("much", "12 apples", "", "1.2.3GB", "9" * 400 + "GB"):
        with pytest.raises(InvalidOption, match="500MB"):
            read_size(text)


def test_sizes():
    assert [read_size(text) for text in ("500MB", "2 gb", "1.5G", "1024", "7kB")] == [
        500_000_000,
        2_000_000_000,
        1_500_000_000,
        1024,
        7000,
    ]
    assert [size(count) for count in (12, 13_200, 5.25e8, 2e12)] == ["12 bytes", "13.2 kB", "525 MB", "2e+03 GB"]


def test_wishes_are_kept_with_the_store(tmp_path):
    with Store.create(tmp_path / "index", encoder="toy", fingerprint="toy-1", dim=24) as store:
        assert wanted_of(store) == Wanted()
        want(store, Wanted("hnsw", 0.9, 10**9))
        assert wanted_of(store) == Wanted("hnsw", 0.9, 10**9)
        with store.writing() as database:
            database.execute("UPDATE meta SET value = '[1' WHERE key = 'search'")
        with pytest.raises(FormatError, match="search settings"):
            wanted_of(store)
