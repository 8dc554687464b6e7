"""Readers go on while another process writes: they find what was there when they opened the index."""

import numpy as np
import pytest
import torch

from fewshot import upkeep
from fewshot.duplicates import duplicate_paths
from fewshot.errors import FormatError
from fewshot.kept_index import open_index, rebuild_index
from fewshot.search import Searcher
from fewshot.store import Store
from fewshot.upkeep import compact, size_on_disk
from fewshot.vectors import VectorFile


def add(store, first, count, label):
    """Add pictures whose embeddings are the rows of a fixed random matrix."""
    vectors = np.random.default_rng(0).normal(size=(100, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with store.writing() as database:
        store.append([f"{label} {i}" for i in range(first, first + count)], vectors[first : first + count])
        rows = [(f"/{label}/{i}", f"{label} {i}", i, label) for i in range(first, first + count)]
        database.executemany("INSERT INTO files VALUES (?, ?, ?, 1, 1, ?, 'ok', '')", rows)
    return vectors


@pytest.fixture
def path(tmp_path):
    with Store.create(tmp_path / "index", encoder="toy", fingerprint="toy-1", dim=16) as store:
        add(store, 0, 40, "old")
    return tmp_path / "index"


class Encoder:
    """Stands for the one that made these embeddings, which no search here asks anything."""

    name, fingerprint = "toy", "toy-1"


def meanwhile(monkeypatch, name, work):
    """Do some work when a method of the store is called next, before it."""
    real = getattr(Store, name)

    def call(self, *args, **kwargs):
        monkeypatch.setattr(Store, name, real)
        work()
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Store, name, call)


def write(path, work):
    with Store.open(path, write=True) as store:
        work(store)


def test_filters_of_an_open_searcher_while_pictures_are_added(path):
    with Searcher(path, encoder=Encoder(), device="cpu") as searcher:
        query = torch.eye(16)[:1]
        before = searcher.search(query, labels=["old"])
        write(path, lambda store: add(store, 40, 30, "new"))
        assert searcher.search(query, labels=["old"]) == before
        assert searcher.search(query, globs=["/old/*"], least=-1.0) == before
        assert searcher.search(query, labels=["new"]) == [[]]  # they came after it was opened
    with Searcher(path, encoder=Encoder(), device="cpu") as searcher:
        assert len(searcher.search(query, labels=["new"], top=100)[0]) == 30


def test_filters_after_a_compaction_say_that_the_index_is_another(path):
    with Searcher(path, encoder=Encoder(), device="cpu") as searcher:
        write(path, lambda store: store.database.execute("DELETE FROM files WHERE row < 10") and compact(store))
        with pytest.raises(FormatError, match="was compacted while it was open; open it again"):
            searcher.search(torch.eye(16)[:1], labels=["old"])


def compact_some(path):
    def work(store):
        if len(store.entries()) == 40:
            store.database.execute("DELETE FROM files WHERE row < 10")
        compact(store)
        rebuild_index(store)

    write(path, work)


def test_a_compaction_is_not_taken_for_damage(path, monkeypatch):
    real = VectorFile.read
    monkeypatch.setattr(
        VectorFile, "read", lambda self, count: monkeypatch.undo() or compact_some(path) or real(self, count)
    )
    with Store.open(path) as store, pytest.raises(FormatError, match="was compacted while it was open; open it again"):
        store.embeddings()


@pytest.mark.parametrize("moment", ["_array_damage", "_index_damage"])
def test_verifying_while_another_process_compacts(path, monkeypatch, moment):
    compact_some(path)
    with Store.open(path) as store:
        rebuild_index(store)
    real, listed = getattr(upkeep, moment), [path / "index-1-00000000.faiss"]

    def call(thing):
        monkeypatch.setattr(upkeep, moment, real)
        write(path, lambda store: store.database.execute("DELETE FROM files WHERE row < 5"))
        compact_some(path)
        with monkeypatch.context() as patch:
            if moment == "_index_damage":
                patch.setattr(type(path), "glob", lambda self, pattern: listed)  # gone since
            return list(real(thing))

    monkeypatch.setattr(upkeep, moment, call)
    assert upkeep.verify(path) == []


@pytest.mark.parametrize("saved", [False, True])
def test_an_index_that_is_brought_up_to_date_while_pictures_are_added(path, monkeypatch, saved):
    if saved:
        with Store.open(path) as store:
            open_index(store, "cpu")
        write(path, lambda store: add(store, 40, 10, "newer"))
    meanwhile(monkeypatch, "mask", lambda: write(path, lambda store: add(store, 50, 30, "new")))
    with Store.open(path) as store:
        index = open_index(store, "cpu")
        assert len(index.rows) == len(index.alive) == (50 if saved else 40)
        assert index.search(torch.from_numpy(np.array(index.rows)), 1)[1].ravel().tolist() == list(
            range(len(index.rows))
        )


def test_duplicates_of_pictures_that_are_removed_before_their_names_are_read(path):
    with Store.open(path) as store:
        index = open_index(store, "cpu")
        write(path, lambda other: other.database.execute("DELETE FROM files WHERE row < 30"))
        names = {name for first, second, _ in duplicate_paths(store, index, -1.0) for name in (first, second)}
    assert names == {f"/old/{i}" for i in range(30, 40)}


def test_size_on_disk_while_files_come_and_go(path, monkeypatch):
    (path / "store.sqlite-wal").touch()
    listed = [*path.iterdir(), path / "index-1-00000000.faiss"]  # gone since
    monkeypatch.setattr(type(path), "iterdir", lambda self: iter(listed))
    with Store.open(path) as store:
        assert size_on_disk(store.path) > 40 * 16 * 4
