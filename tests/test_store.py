"""What is committed survives; what is not was never there; one writes and many read."""

import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import fewshot.store as store_module
from fewshot.database import connect
from fewshot.encoders.toy import ToyEncoder
from fewshot.errors import FingerprintMismatch, FormatError, OutputError, OutputExists, StoreLocked, UnknownName
from fewshot.store import Store
from fewshot.upkeep import verify
from fewshot.writer import acquire

INSERT = "INSERT INTO files VALUES (?, ?, (SELECT row FROM contents WHERE digest = ?2), 1, 1, ?, ?, ?)"


def make(path, dim=3):
    return Store.create(path, encoder="toy", fingerprint="toy-1", dim=dim)


def put(store, digests, vectors, files):
    with store.writing() as database:
        store.append(digests, vectors)
        database.executemany(INSERT, files)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def filled(tmp_path, rng):
    """Two appends: three contents, four pictures, one that was skipped."""
    vectors = rng.normal(size=(3, 3)).astype(np.float32)
    with make(tmp_path / "index") as store:
        put(store, ["a", "b"], vectors[:2], [("/x/1", "a", "cat", "ok", ""), ("/x/2", "b", None, "ok", "")])
        files = [
            ("/x/3", "c", "dog", "ok", ""),
            ("/x/4", "a", "dog", "ok", ""),
            ("/x/5", "z", None, "skipped", "damaged"),
        ]
        put(store, ["c"], vectors[2:], files)
    return tmp_path / "index", vectors


def test_what_was_written_is_read_back(filled):
    path, vectors = filled
    with Store.open(path) as store:
        assert (store.encoder, store.fingerprint, store.dim, store.rows) == ("toy", "toy-1", 3, 3)
        np.testing.assert_array_equal(store.embeddings(verify=True), vectors)
        assert store.entries() == [("/x/1", "cat", 0), ("/x/2", None, 1), ("/x/3", "dog", 2), ("/x/4", "dog", 0)]
        assert store.labels() == {"cat": 1, "dog": 2, None: 1}
        assert store.skipped() == [("/x/5", "damaged")]
        assert store.among(["a", "z"]) == {"a"}


def test_threads_are_told_what_is_there_by_one_connection_while_it_changes(filled, rng, monkeypatch):
    path, _ = filled
    opened = []
    monkeypatch.setattr(store_module, "connect", lambda *a, **k: opened.append(connect(*a, **k)) or opened[-1])
    with Store.open(path, write=True) as store, ThreadPoolExecutor(4) as pool:
        before = len(opened)
        for number in range(20):
            asked = ["a", f"new {number}", f"new {number - 1}"] * 20
            assert [bool(found) for found in pool.map(lambda digest: store.among([digest]), asked)] == [
                True,
                False,
                number > 0,
            ] * 20
            put(store, [f"new {number}"], rng.normal(size=(1, 3)), [])
        assert len(opened) == before + 1
    with pytest.raises(sqlite3.ProgrammingError):  # closed
        opened[-1].execute("SELECT 1")
    assert not [name for name in os.listdir(path) if name.endswith(("-wal", "-shm"))]


def test_masks_and_entries_by_label(filled):
    with Store.open(filled[0]) as store:
        assert store.mask().tolist() == [True, True, True]
        assert store.mask(["dog"]).tolist() == [True, False, True]
        assert store.mask(["cat", "dog"]).tolist() == [True, False, True]
        assert store.entries_of([0, 1]) == {0: [("/x/1", "cat", 0), ("/x/4", "dog", 0)], 1: [("/x/2", None, 1)]}
        assert store.entries_of([0, 1], ["dog"]) == {0: [("/x/4", "dog", 0)], 1: []}
        with pytest.raises(UnknownName, match=r"'dgo'.*Did you mean 'dog'"):
            store.mask(["dgo"])


def test_a_failed_change_leaves_no_trace(filled, rng):
    path, vectors = filled
    with Store.open(path, write=True) as store:
        generation = store.generation
        with pytest.raises(FormatError, match="UNIQUE"):
            put(store, ["new"], rng.normal(size=(1, 3)), [("/x/1", "new", None, "ok", "")])  # that path is taken
        assert (store.rows, store.generation) == (3, generation)
        assert os.path.getsize(path / "embeddings.f32") == 4 * 3 * 4  # the row is on disk, and belongs to nobody
        put(store, ["d"], np.ones((1, 3)), [])
        np.testing.assert_array_equal(store.embeddings(verify=True), np.vstack([vectors, np.ones((1, 3))]))


def test_generation_counts_changes_only(filled):
    with Store.open(filled[0], write=True) as store:
        before = store.generation
        with store.writing() as database:
            database.execute("DELETE FROM files WHERE path = 'nowhere'")
        assert store.generation == before
        with store.writing() as database:
            database.execute("DELETE FROM files WHERE path = '/x/1'")
        assert store.generation == before + 1


def test_embeddings_are_on_disk_before_the_rows_that_mention_them(filled, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_size), real(handle)))
    with Store.open(filled[0], write=True) as store, store.writing():
        store.append(["d"], np.ones((1, 3)))
        assert synced == [4 * 3 * 4]


def test_a_full_disk_costs_nothing_committed(filled, monkeypatch):
    path, vectors = filled
    with Store.open(path, write=True) as store:

        def full(handle):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"), store.writing():
            store.append(["d"], np.ones((1, 3)))
        np.testing.assert_array_equal(store.embeddings(verify=True), vectors)


def test_one_writer_many_readers(filled):
    path, _ = filled
    with Store.open(path, write=True) as writer:
        with pytest.raises(StoreLocked, match="another process"):
            Store.open(path, write=True)
        with Store.open(path) as reader:
            put(writer, ["d"], np.ones((1, 3)), [("/y", "d", None, "ok", "")])
            assert reader.rows == 4
    Store.open(path, write=True).close()


def test_damage_is_found(filled):
    path, _ = filled
    data = bytearray((path / "embeddings.f32").read_bytes())
    data[30] ^= 1  # in row 2
    (path / "embeddings.f32").write_bytes(data)
    with Store.open(path) as store, pytest.raises(FormatError, match="rows 2 to 2 have changed"):
        store.embeddings(verify=True)
    (path / "embeddings.f32").write_bytes(data[:20])
    with Store.open(path) as store, pytest.raises(FormatError, match="1 of 3 rows"):
        store.embeddings()
    content = (path / "store.sqlite").read_bytes()
    (path / "store.sqlite").write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    with pytest.raises(FormatError, match=r"damaged|not an index"):
        Store.open(path)


def test_damage_met_while_reading_is_named(filled):
    with pytest.raises(FormatError, match="is damaged: malformed"), Store.open(filled[0]):
        raise sqlite3.DatabaseError("malformed")


def test_what_is_no_store(tmp_path):
    (tmp_path / "store.sqlite").write_text("not a database at all, though long enough to look like one" * 9)
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FormatError, match="is not an index") as raised:
            Store.open(path)
        assert ("repair" in str(raised.value)) == path.is_dir()


def test_what_cannot_be_opened_is_closed(filled, tmp_path, monkeypatch):
    opened, real = [], sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: opened.append(real(*a, **k)) or opened[-1])
    (tmp_path / "store.sqlite").write_text("not a database at all, though long enough to look like one" * 9)
    for write in (False, True):
        with pytest.raises(sqlite3.DatabaseError):
            connect(tmp_path, write=write).execute("SELECT * FROM meta")
    with real(filled[0] / "store.sqlite") as database:
        database.execute("DELETE FROM meta WHERE key = 'dim'")
    database.close()
    with pytest.raises(FormatError, match="damaged: dim has changed; build the index again"):
        Store.open(filled[0], write=True)
    assert len(opened) == 4
    for database in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            database.execute("SELECT 1")
    acquire(filled[0]).release()  # nor is it locked


def test_newer_format_is_refused(filled):
    database = sqlite3.connect(filled[0] / "store.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(FormatError, match=r"format 99.*update fewshot"):
        Store.open(filled[0])


def test_create_destroys_nothing(filled, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").touch()
    for path, words in (
        (filled[0], "an index already"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "folder", "thesis"),
    ):
        with pytest.raises(OutputExists, match=words):
            make(path)
    with pytest.raises(OutputError, match="cannot write"):
        make(tmp_path / "file" / "below")


def test_create_goes_on_where_one_was_killed_at_its_start(tmp_path):
    for name in ("lock", "store.sqlite"):
        (tmp_path / name).touch()
    make(tmp_path).close()
    Store.open(tmp_path).close()


def test_a_store_that_may_only_be_read(filled, tmp_path, monkeypatch):
    path, vectors = filled
    shutil.copytree(path, tmp_path / "copy")
    for extra in (tmp_path / "copy").glob("store.sqlite-*"):
        extra.unlink()
    real = sqlite3.connect

    class Unopenable:
        close = staticmethod(lambda: None)

        def execute(self, statement):
            raise sqlite3.OperationalError("unable to open database file")

    def connect(file, **options):
        return real(file, **options) if "immutable" in file else Unopenable()

    monkeypatch.setattr(sqlite3, "connect", connect)
    with Store.open(tmp_path / "copy") as store:
        np.testing.assert_array_equal(store.embeddings(), vectors)


@pytest.mark.parametrize("written", [False, True])
def test_a_new_store_whose_log_was_not_taken_over_is_whole(tmp_path, written):
    """As after kill -9 in a first build: the database's own file is one empty page."""
    path = tmp_path / "index"
    with make(path) as store:
        if written:
            put(store, ["a"], np.ones((1, 3), np.float32), [("/x/1", "a", "cat", "ok", "")])
        assert not verify(path)  # while it is being written, too
        shutil.copytree(path, tmp_path / "killed")
    assert (tmp_path / "killed" / "store.sqlite").stat().st_size <= 4096
    assert not verify(tmp_path / "killed")


def test_a_copy_without_the_shared_memory_of_its_log_lacks_nothing(filled, tmp_path):
    path, _ = filled
    with Store.open(path, write=True) as store:
        put(store, ["d"], np.ones((1, 3), np.float32), [("/x/6", "d", "cat", "ok", "")])
        shutil.copytree(path, tmp_path / "copy")
    (tmp_path / "copy" / "store.sqlite-shm").unlink()
    with Store.open(tmp_path / "copy") as store:
        assert [entry.path for entry in store.entries()][-1] == "/x/6"


def test_a_log_that_cannot_be_read_is_told(filled, tmp_path, monkeypatch):
    path, _ = filled
    with Store.open(path, write=True) as store:
        put(store, ["d"], np.ones((1, 3), np.float32), [("/x/6", "d", "cat", "ok", "")])
        shutil.copytree(path, tmp_path / "copy")

    def unopenable(*_, **__):
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr("fewshot.database._opened", unopenable)
    with pytest.raises(FormatError, match=r"store.sqlite-wal can be read only where it may be written"):
        Store.open(tmp_path / "copy")


def test_another_encoder_is_refused_with_both_named(filled):
    other = ToyEncoder(torch.device("cpu"))
    other.name, other.fingerprint = "toy:other", "toy-2"
    with Store.open(filled[0]) as store:
        store.check_encoder(ToyEncoder(torch.device("cpu")))
        with pytest.raises(FingerprintMismatch, match=r"'toy' \(toy-1\).*'toy:other' \(toy-2\)"):
            store.check_encoder(other)
