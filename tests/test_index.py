"""The index gives what a brute-force product gives, and a saved one never outlives the store it was made from."""

from pathlib import Path

import numpy as np
import pytest
import torch

import fewshot.gpu_rows
import fewshot.scan
from fewshot.errors import FormatError, InvalidOption, NotEnoughMemory
from fewshot.index import Index
from fewshot.index_file import current_facts
from fewshot.index_plan import Wanted, plan, want
from fewshot.kept_index import open_index, rebuild_index, update_index
from fewshot.store import Store

KINDS = ("exact", "fast", "ivf", "hnsw", "pq", "sq", "IVF8,Flat", "PQ8", "IDMap2,IVF8,PQ8x4fs,RFlat")


def brute_force(vectors, queries, k, rows):
    """Sort all products.  [N, D], [Q, D] -> scores [Q, k], rows [Q, k]"""
    scores = queries.astype(np.float64) @ vectors[rows].T.astype(np.float64)
    order = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.asarray(rows)[order]


def built(vectors, rows, kind="exact", recall=0.999):
    """An index of some rows of `vectors`."""
    alive = np.zeros(len(vectors), bool)
    alive[rows] = True
    wanted = Wanted(kind, recall)
    return Index.build(vectors, alive, plan(wanted, len(vectors), vectors.shape[1]), wanted)


def found_share(got, truth):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(got, truth, strict=True)])


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(500, 24)).astype(np.float32)


@pytest.fixture(scope="module")
def many():
    """3,000 rows around 60 centres: as many as make every kind use its codes."""
    random = np.random.default_rng(5)
    centres = random.normal(size=(60, 32))
    rows = centres[random.integers(60, size=3000)] + 0.7 * random.normal(size=(3000, 32))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def queries():
    return torch.randn(7, 24, generator=torch.Generator().manual_seed(1))


def add_rows(store, vectors, first, label="late"):
    with store.writing() as database:
        store.append([f"late {i}" for i in range(first, first + len(vectors))], vectors)
        rows = [(f"/late/{i}", f"late {i}", i, label) for i in range(first, first + len(vectors))]
        database.executemany("INSERT INTO files VALUES (?, ?, ?, 1, 1, ?, 'ok', '')", rows)


@pytest.fixture
def store(tmp_path, vectors):
    with Store.create(tmp_path / "index", encoder="toy", fingerprint="toy-1", dim=24) as store:
        with store.writing() as database:
            store.append([str(i) for i in range(500)], vectors)
            rows = [(f"/{i}", str(i), i, "even" if i % 2 == 0 else "odd") for i in range(400)]  # 400.. have no file
            database.executemany("INSERT INTO files VALUES (?, ?, ?, 1, 1, ?, 'ok', '')", rows)
        yield store


def test_exact(vectors, queries):
    rows = np.arange(3, 500, 7)
    index = built(vectors, rows)
    want_scores, want_rows = brute_force(vectors, queries.numpy(), 10, rows)
    scores, got = index.search(queries, 10)
    assert np.array_equal(got, want_rows)
    np.testing.assert_allclose(scores, want_scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.3, 1.0])
def test_exact_among_the_allowed(vectors, queries, share):
    rows = np.arange(0, 500, 2)
    allowed = np.random.default_rng(2).random(500) < share
    index = built(vectors, rows)
    live = [row for row in rows if allowed[row]]
    scores, got = index.search(queries, 10, allowed)
    if live:
        want_scores, want_rows = brute_force(vectors, queries.numpy(), 10, live)
        assert np.array_equal(got[:, : len(live)], want_rows)
        np.testing.assert_allclose(scores[:, : len(live)], want_scores, rtol=1e-5, atol=1e-5)
    assert (got[:, len(live) :] == -1).all()


def test_blocks_change_nothing(vectors, queries, monkeypatch):
    monkeypatch.setattr(fewshot.scan, "BLOCK", 64)
    index = built(vectors, np.arange(500))
    assert len(index) == 500
    assert np.array_equal(index.search(queries, 5)[1], brute_force(vectors, queries.numpy(), 5, range(500))[1])


def test_fewer_than_k_and_none_at_all(vectors, queries):
    index = built(vectors, np.array([4, 9]))
    assert sorted(index.search(queries, 3)[1][0].tolist()) == [-1, 4, 9]
    nothing = built(vectors, np.zeros(0, np.int64))
    assert (nothing.search(queries, 3)[1] == -1).all()
    assert index.search(queries[:0], 3)[1].shape == (0, 3)
    with pytest.raises(InvalidOption, match="top"):
        index.search(queries, 0)
    with pytest.raises(InvalidOption, match="the index has 24 dimensions"):
        index.search(queries[:, :5], 3)


def test_only_rows_of_files_are_indexed(store, vectors, queries):
    got = open_index(store).search(queries, 20)[1]
    assert np.array_equal(got, brute_force(vectors, queries.numpy(), 20, range(400))[1])
    odd = open_index(store).search(queries, 20, store.mask(["odd"]))[1]
    assert np.array_equal(odd, brute_force(vectors, queries.numpy(), 20, range(1, 400, 2))[1])


def test_saved_and_loaded(store, vectors, queries, monkeypatch):
    open_index(store)
    monkeypatch.setattr(Index, "build", None)  # from here on nothing can be built
    got = open_index(store).search(queries, 5)[1]
    assert np.array_equal(got, brute_force(vectors, queries.numpy(), 5, range(400))[1])


def test_rebuilt_when_stale(store, vectors, queries):
    open_index(store)
    with store.writing() as database:
        database.execute("DELETE FROM files WHERE label = 'even'")
    assert store.saved_index() is None
    got = open_index(store).search(queries, 5)[1]
    assert np.array_equal(got, brute_force(vectors, queries.numpy(), 5, range(1, 400, 2))[1])
    assert len(list(store.path.glob("index-*"))) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "renamed"])
def test_rebuilt_when_damaged(store, vectors, queries, damage):
    open_index(store)
    file = store.saved_index()
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 4
    file.write_bytes({"cut": data[:99], "empty": b""}.get(damage, data))
    if damage == "renamed":
        file.rename(file.with_stem("index-1-00000000"))
    got = open_index(store).search(queries, 5)[1]
    assert np.array_equal(got, brute_force(vectors, queries.numpy(), 5, range(400))[1])


def test_damaged_embeddings_are_not_indexed(store):
    data = bytearray((store.path / "embeddings.f32").read_bytes())
    data[-1] ^= 1
    (store.path / "embeddings.f32").write_bytes(data)
    with pytest.raises(FormatError, match="have changed"):
        open_index(store)


def test_a_folder_that_cannot_be_written_is_searched_all_the_same(store, queries, monkeypatch):
    real = open

    def refuse(file, mode="r"):
        if "w" in mode:
            raise PermissionError(13, "Permission denied")
        return real(file, mode)

    monkeypatch.setattr("builtins.open", refuse)
    assert len(open_index(store)) == 400
    assert store.saved_index() is None


def test_a_disk_that_fills_up_keeps_no_half_written_index(store, monkeypatch):
    def refuse(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    assert len(open_index(store)) == 400
    assert list(store.path.glob("index-*")) == []


@pytest.mark.parametrize("kind", ["fast", "ivf", "pq", "IVF64,Flat"])
def test_few_rows_are_compared_one_by_one_until_there_are_enough_to_learn_a_kind_from(tmp_path, many, kind):
    with Store.create(tmp_path / "index", encoder="toy", fingerprint="toy-1", dim=32) as store:
        want(store, Wanted(kind))
        for count in (1, 2000):
            add_rows(store, many[store.rows : store.rows + count], store.rows)
            index = update_index(store)
            assert index.search(torch.from_numpy(many[:1]), 1)[1].tolist() == [[0]]
            told = str(current_facts(store))
            assert told == f"exact, as there are too few pictures for {kind} yet" if count == 1 else "recall" in told
        store.database.execute("DELETE FROM files WHERE row > 0")
        with pytest.raises(InvalidOption, match="cannot train this kind of index on 1 rows"):
            rebuild_index(store, Wanted(kind))  # asked for just now
        assert len(rebuild_index(store)) == 1
        assert len(rebuild_index(store, Wanted())) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_the_nearest_with_exact_scores(many, kind):
    index, queries = built(many, np.arange(3000), kind), torch.from_numpy(many[:50] + many[50:100])
    want_scores, want_rows = brute_force(many, queries.numpy(), 10, np.arange(3000))
    scores, got = index.search(queries, 10)
    assert found_share(got, want_rows) >= 0.98
    for row, score, query in zip(got, scores, queries.numpy(), strict=True):
        np.testing.assert_allclose(score, many[row] @ query, atol=1e-5)
    assert (np.diff(scores) <= 0).all()
    if kind == "exact":
        np.testing.assert_allclose(scores, want_scores, atol=1e-5)
    else:
        assert set(index.facts.recall) == {"pictures", "mixtures", "differences"}
        assert min(index.facts.recall.values()) >= 0.98
        assert 0 < index.facts.sample <= 700


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.004, 0.3])
def test_every_kind_filters_and_leaves_out_what_was_removed(many, kind, share):
    live = np.flatnonzero(np.arange(3000) % 5)
    allowed = np.random.default_rng(2).random(3000) < share
    both = [row for row in live if allowed[row]]
    index, queries = built(many, live, kind), torch.from_numpy(many[:40])
    got = index.search(queries, 5, allowed)[1]
    assert set(got.ravel()) <= set(both)
    assert found_share(got, brute_force(many, queries.numpy(), 5, both)[1]) >= 0.98
    got = index.search(queries, 5)[1]
    assert set(got.ravel()) <= set(live)
    assert found_share(got, brute_force(many, queries.numpy(), 5, live)[1]) >= 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_range_search(many, kind):
    index, queries = built(many, np.arange(0, 3000, 2), kind), torch.from_numpy(many[:30])
    missed = total = 0
    for query, (scores, rows) in zip(queries.numpy(), index.range_search(queries, 0.75), strict=True):
        want = {row for row in range(0, 3000, 2) if many[row] @ query >= 0.75}
        assert set(rows.tolist()) <= want
        assert (np.diff(scores) <= 0).all()
        missed, total = missed + len(want) - len(rows), total + len(want)
    assert total > 100
    assert missed <= 0.02 * total
    assert [len(rows) for _, rows in index.range_search(queries[:2], 1.5)] == [0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_of_zeros_is_as_near_to_every_row(many, kind):
    ((scores, rows),) = built(many, np.arange(3000), kind).range_search(torch.zeros(1, many.shape[1]), -0.5)
    assert sorted(rows.tolist()) == list(range(3000))
    assert not scores.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_queries_that_are_not_finite_are_refused(many, kind, value):
    index, queries = built(many, np.arange(3000), kind), torch.from_numpy(many[:3].copy())
    queries[1, 2] = value
    for search in (lambda: index.search(queries, 10), lambda: index.range_search(queries, 0.5)):
        with pytest.raises(InvalidOption, match="not finite"):
            search()


def test_half_precision_rows(many):
    half = many.astype(np.float16)
    index, queries = built(half, np.arange(3000), "fast"), torch.from_numpy(many[:40])
    want = brute_force(half, queries.numpy(), 10, np.arange(3000))[1]
    assert found_share(index.search(queries, 10)[1], want) >= 0.98


def test_added_and_removed_without_building(store, vectors, queries, monkeypatch):
    open_index(store)
    monkeypatch.setattr(Index, "build", None)  # from here on nothing can be built
    more = np.random.default_rng(7).normal(size=(20, 24)).astype(np.float32)
    add_rows(store, more, 500)
    with store.writing() as database:
        database.execute("DELETE FROM files WHERE label = 'even'")
    everything, live = np.concatenate([vectors, more]), [*range(1, 400, 2), *range(500, 520)]
    for index in (update_index(store), open_index(store)):
        assert np.array_equal(index.search(queries, 9)[1], brute_force(everything, queries.numpy(), 9, live)[1])
    assert store.saved_index() is not None


@pytest.mark.parametrize("kind", ["fast", "ivf", "hnsw"])
def test_codes_grow_and_are_saved(tmp_path, many, kind, monkeypatch):
    with Store.create(tmp_path / "index", encoder="toy", fingerprint="toy-1", dim=32) as store:
        add_rows(store, many[:2000], 0)
        want(store, Wanted(kind, 0.99))
        assert update_index(store).facts.kind == kind
        monkeypatch.setattr(Index, "build", None)
        add_rows(store, many[2000:], 2000)
        update_index(store)
        index, queries = open_index(store), torch.from_numpy(many[2500:2540])
        assert index.facts == current_facts(store)
        assert (index.facts.rows, index.facts.built) == (3000, 2000)
        truth = brute_force(many, queries.numpy(), 10, np.arange(3000))[1]
        assert found_share(index.search(queries, 10)[1], truth) >= 0.98


def test_built_anew_when_outgrown_or_asked_for(store, vectors):
    assert open_index(store).facts.built == 500
    add_rows(store, np.tile(vectors, (2, 1))[:501], 500)
    assert open_index(store).facts.built == 1001
    want(store, Wanted("sq", 0.9))
    assert open_index(store).facts.kind == "sq"


def test_built_anew_when_rows_are_numbered_anew(store, vectors, queries):
    open_index(store)
    swapped = np.ascontiguousarray(vectors[::-1])
    swapped.tofile(store.path / "embeddings.f32")
    with store.writing() as database:
        database.execute("DELETE FROM chunks")
        checksum = store.vectors.append(swapped, 0)
        database.execute("INSERT INTO chunks VALUES (0, 500, ?)", (checksum,))
    got = open_index(store).search(queries, 5)[1]
    assert np.array_equal(got, brute_force(swapped, queries.numpy(), 5, range(400))[1])


def test_too_little_memory_to_build(store, monkeypatch):
    want(store, Wanted("hnsw"))
    monkeypatch.setattr("fewshot.index_plan.free_memory", lambda: 1000)
    with pytest.raises(NotEnoughMemory, match=r"hnsw .*1e\+03 bytes are free|hnsw .* are free"):
        rebuild_index(store)


def test_wrong_wishes_are_refused(store):
    with pytest.raises(InvalidOption, match="FAISS rejects the factory string 'IVF7,nonsense'"):
        want(store, Wanted("IVF7,nonsense"))
    with pytest.raises(InvalidOption, match="multiple of the number of subquantizers"):
        want(store, Wanted("PQ7"))
    for kind in ("NSG16", "IVF0,Flat", "HNSW0,Flat", "OPQ8,IDMap2,PQ8"):  # of unknown size, without lists, or links ...
        with pytest.raises(InvalidOption, match=f"FAISS rejects the factory string '{kind}'"):
            want(store, Wanted(kind))
    with pytest.raises(InvalidOption, match="must be a number"):
        open_index(store).range_search(torch.zeros(1, 24), float("nan"))
    assert open_index(store).facts.kind == "exact"


class FakeGpus:
    """Stands in for FAISS's GPU indexes: half-precision rows, flat search, a limit on k."""

    def __init__(self, monkeypatch, count, free):
        self.made, self.searched = [], []
        faiss, owner = fewshot.scan.load_faiss(), self

        class Flat:
            def __init__(self, resources, dim, config):
                self.device, self.rows = config.device, np.zeros((0, dim), np.float16)
                assert config.useFloat16
                owner.made.append(self)

            ntotal = property(lambda self: len(self.rows))

            def add(self, rows):
                self.rows = np.concatenate([self.rows, rows.astype(np.float16)])

            def search(self, queries, k):
                owner.searched.append((self.device, len(queries), k))
                assert k <= fewshot.gpu_rows.GPU_MOST
                scores, rows = brute_force(self.rows, queries, k, np.arange(len(self.rows)))
                return scores.astype(np.float32), rows

        class Config:
            device, useFloat16 = 0, False  # noqa: N815 - as FAISS has it

        monkeypatch.setattr(faiss, "get_num_gpus", lambda: count, raising=False)
        monkeypatch.setattr(faiss, "GpuIndexFlatConfig", Config, raising=False)
        monkeypatch.setattr(faiss, "GpuIndexFlatIP", Flat, raising=False)
        monkeypatch.setattr(faiss, "StandardGpuResources", lambda: None, raising=False)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (free, free))


@pytest.mark.parametrize(("free", "rows"), [(10**9, [3000, 3000]), (int(2000 * 64 / 0.8) + 64, [1500, 1500])])
def test_gpus_with_all_rows_or_a_range_each_give_the_same_answers(many, monkeypatch, free, rows):
    gpus = FakeGpus(monkeypatch, 2, free)
    cpu, queries = built(many, np.arange(0, 3000, 2)), torch.from_numpy(many[:21])
    index = cpu.on_gpus()
    assert index.device == "gpu"
    assert [len(gpu.rows) for gpu in gpus.made] == rows
    for allowed in (None, np.arange(3000) % 3 == 0):
        want_scores, want_rows = cpu.search(queries, 10, allowed)
        scores, got = index.search(queries, 10, allowed)
        np.testing.assert_allclose(scores, want_scores, atol=1e-6)
        assert np.array_equal(got, want_rows)
    assert {device for device, *_ in gpus.searched} == {0, 1}
    before = len(gpus.searched)
    assert np.array_equal(index.search(queries, 1500)[1], cpu.search(queries, 1500)[1])  # too many for a GPU
    assert len(gpus.searched) == before


def test_no_gpu_or_too_small_ones(many, store, monkeypatch):
    FakeGpus(monkeypatch, 0, 0)
    assert open_index(store).device == "cpu"
    FakeGpus(monkeypatch, 2, 1000)
    with pytest.warns(UserWarning, match="do not fit into 2 GPUs"):
        assert built(many, np.arange(3000)).on_gpus().device == "cpu"
    FakeGpus(monkeypatch, 1, 10**9)
    assert open_index(store, "cpu").device == "cpu"
    assert open_index(store).device == "gpu"
    gpus = FakeGpus(monkeypatch, 3, 10**9)
    assert open_index(store, "cuda:1").device == "gpu"
    assert [gpu.device for gpu in gpus.made] == [1]


@pytest.mark.parametrize("kind", ["auto", "fast", "ivf", "hnsw", "sq", "pq"])
def test_few_pictures_left_of_many_are_compared_one_by_one(many, kind):
    rows = np.concatenate([many, many[::-1] * np.float32(0.9)])
    alive = np.zeros(len(rows), bool)
    alive[::24] = True
    wanted = Wanted(kind)
    index = Index.build(rows, alive, plan(wanted, len(rows), rows.shape[1]), wanted)
    _, found = index.search(torch.from_numpy(rows[:50]), 5)
    truth = np.argsort(-(rows[:50] @ rows[::24].T), axis=1)[:, :5] * 24
    np.testing.assert_array_equal(found, truth)
    assert "not measured" in str(index.facts)


@pytest.mark.parametrize("kind", ["exact", "fast", "pq", "ivf", "sq", "hnsw"])
def test_a_range_search_leaves_out_no_row_of_the_least_score(kind):
    rows = np.ones((450, 1), np.float32)
    rows[7] = -1
    index = built(rows, range(len(rows)), kind)
    ((scores, found),) = index.range_search(torch.tensor([[-0.3]]), -0.5)
    assert len(found) == 450
    np.testing.assert_allclose(scores[0], 0.3)


@pytest.mark.parametrize("kind", ["exact", "fast", "ivf", "sq", "hnsw"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_score_is_the_same_in_every_search(many, kind, dtype):
    rows, queries = many.astype(dtype), torch.from_numpy(many[:30] + 0.1)
    index = built(rows, range(len(rows)), kind)
    together, found = index.search(queries, 4)
    for query, scores, ids in zip(queries, together, found, strict=True):
        alone, its = index.search(query[None], 4)
        np.testing.assert_array_equal(alone[0], scores)
        np.testing.assert_array_equal(its[0], ids)
        for k in (0, 3):
            ((_, above),) = index.range_search(query[None], float(scores[k]))
            assert set(ids[: k + 1]) <= set(above)
