"""FAISS gives what a brute-force product gives, and a saved index never outlives the store it was made from."""

import numpy as np
import pytest
import torch

import fewshot.index
from fewshot.errors import FormatError, InvalidOption
from fewshot.index import FlatIndex, open_index
from fewshot.store import Store


def brute_force(vectors, queries, k, rows):
    """Sort all products.  [N, D], [Q, D] -> scores [Q, k], rows [Q, k]"""
    scores = queries.astype(np.float64) @ vectors[rows].T.astype(np.float64)
    order = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.asarray(rows)[order]


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(500, 24)).astype(np.float32)


@pytest.fixture
def queries():
    return torch.randn(7, 24, generator=torch.Generator().manual_seed(1))


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
    index = FlatIndex.build(vectors, rows)
    want_scores, want_rows = brute_force(vectors, queries.numpy(), 10, rows)
    scores, got = index.search(queries, 10)
    assert np.array_equal(got, want_rows)
    np.testing.assert_allclose(scores, want_scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.3, 1.0])
def test_exact_among_the_allowed(vectors, queries, share):
    rows = np.arange(0, 500, 2)
    allowed = np.random.default_rng(2).random(500) < share
    index = FlatIndex.build(vectors, rows)
    live = [row for row in rows if allowed[row]]
    scores, got = index.search(queries, 10, allowed)
    if live:
        want_scores, want_rows = brute_force(vectors, queries.numpy(), 10, live)
        assert np.array_equal(got[:, : len(live)], want_rows)
        np.testing.assert_allclose(scores[:, : len(live)], want_scores, rtol=1e-5, atol=1e-5)
    assert (got[:, len(live) :] == -1).all()


def test_blocks_change_nothing(vectors, queries, monkeypatch):
    monkeypatch.setattr(fewshot.index, "BLOCK", 64)
    index = FlatIndex.build(vectors, np.arange(500))
    assert len(index) == 500
    assert np.array_equal(index.search(queries, 5)[1], brute_force(vectors, queries.numpy(), 5, range(500))[1])


def test_fewer_than_k_and_none_at_all(vectors, queries):
    index = FlatIndex.build(vectors, np.array([4, 9]))
    assert sorted(index.search(queries, 3)[1][0].tolist()) == [-1, 4, 9]
    nothing = FlatIndex.build(vectors, np.zeros(0, np.int64))
    assert (nothing.search(queries, 3)[1] == -1).all()
    assert index.search(queries[:0], 3)[1].shape == (0, 3)
    with pytest.raises(InvalidOption, match="top"):
        index.search(queries, 0)


def test_only_rows_of_files_are_indexed(store, vectors, queries):
    got = open_index(store).search(queries, 20)[1]
    assert np.array_equal(got, brute_force(vectors, queries.numpy(), 20, range(400))[1])
    odd = open_index(store).search(queries, 20, store.mask(["odd"]))[1]
    assert np.array_equal(odd, brute_force(vectors, queries.numpy(), 20, range(1, 400, 2))[1])


def test_saved_and_loaded(store, vectors, queries, monkeypatch):
    open_index(store)
    monkeypatch.setattr(FlatIndex, "build", None)  # from here on nothing can be built
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


def test_gpu_when_faiss_sees_one(vectors, queries, store, monkeypatch):
    real = fewshot.index._faiss()
    searched = []

    class OnGpu:
        def __init__(self, cpu):
            self.cpu = cpu

        def search(self, queries, k):
            searched.append(k)
            return self.cpu.search(queries, k)

    monkeypatch.setattr(real, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(real, "index_cpu_to_all_gpus", OnGpu, raising=False)
    index = open_index(store)
    assert index.device == "gpu"
    want = brute_force(vectors, queries.numpy(), 5, range(400))[1]
    assert np.array_equal(index.search(queries, 5)[1], want)
    assert searched == [5]
    index.search(queries, 5, store.mask(["odd"]))  # restricted, or too many for a GPU: on the CPU
    index.search(queries, 3000)
    assert searched == [5]
    assert open_index(store, "cpu").device == "cpu"
    monkeypatch.setattr(real, "get_num_gpus", lambda: 0)
    assert open_index(store).device == "cpu"
