"""Whatever was committed to a log is read, or its loss is told of and mended; a write cut short is no damage."""

import shutil
import sqlite3

import numpy as np
import pytest

from fewshot.build import refresh_index
from fewshot.database import is_store
from fewshot.errors import FormatError
from fewshot.log import STEP, log_damaged, mend_log, read_log
from fewshot.store import Store
from fewshot.upkeep import repair, verify

DIM, EACH, CHANGES = 8, 3, 40
LOG = "store.sqlite-wal"


def fill(store, changes, first=0):
    """Commit three pictures at a time, without ever taking the log over."""
    random = np.random.default_rng(first)
    for i in range(first, first + changes):
        rows = random.standard_normal((EACH, DIM)).astype(np.float32)
        digests = [f"{i}-{j}" for j in range(EACH)]
        with store.writing() as database:
            store.append(digests, rows / np.linalg.norm(rows, axis=1, keepdims=True))
            database.executemany(
                "INSERT INTO files VALUES (?, ?, (SELECT row FROM contents WHERE digest = ?), 1, 1, 'a', 'ok', '')",
                [(f"/photos/{d}.jpg", d, d) for d in digests],
            )


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A store whose 40 changes are in its log only, as `kill -9` leaves it."""
    folder = tmp_path_factory.mktemp("log")
    with Store.create(folder / "open", encoder="toy", fingerprint="toy-1", dim=DIM) as store:
        store.database.execute("PRAGMA wal_autocheckpoint = 0")
        fill(store, CHANGES)
        refresh_index(store)
        return shutil.copytree(folder / "open", folder / "killed")


@pytest.fixture
def index(killed, tmp_path):
    return shutil.copytree(killed, tmp_path / "index")


def pictures(folder):
    with Store.open(folder) as store:
        return len(store.entries())


def flip(file, at, bit):
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << bit
    file.write_bytes(data)


def test_a_whole_log_is_read_to_its_end(index):
    frames = (index / LOG).stat().st_size // STEP
    log = read_log(index / LOG)
    assert log.read == log.committed == frames > CHANGES
    assert not log_damaged(index / LOG)
    assert pictures(index) == EACH * CHANGES
    with Store.open(index) as store:
        assert store.database.execute("PRAGMA page_count").fetchone() == (log.pages,)


def test_no_log_is_no_damage(tmp_path):
    assert read_log(tmp_path / LOG) == (0, 0, 0)
    (tmp_path / LOG).write_bytes(b"")
    assert not log_damaged(tmp_path / LOG)


@pytest.mark.parametrize("at", [*range(0, 32, 3), *range(32, 56, 3), 2000, "middle", "last frame"])
def test_a_flipped_bit_loses_one_page_at_most(killed, index, at):
    size = (index / LOG).stat().st_size
    at = {"middle": size // 2, "last frame": size - 2000}.get(at, at)
    for bit in (0, 5):
        shutil.copyfile(killed / LOG, index / LOG)
        flip(index / LOG, at, bit)
        assert LOG in verify(index)[0]
        before = (index / LOG).read_bytes()
        for write in (False, True):
            with pytest.raises(FormatError, match="index repair"):
                Store.open(index, write=write)
        is_store(index)
        assert (index / LOG).read_bytes() == before  # nothing has taken it over
        mend_log(index / LOG)
        log = read_log(index / LOG)
        assert log.read == log.committed == size // STEP


def test_a_repair_keeps_what_was_committed_behind_the_damage(index):
    flip(index / LOG, 32 + 5 * STEP + 1000, 3)
    assert "written anew" in repair(index)[0]
    assert verify(index) == []
    assert pictures(index) > EACH * (CHANGES - 1)


def test_what_was_cut_short_is_no_damage(killed, index):
    whole = (killed / LOG).read_bytes()
    for end in np.random.default_rng(1).integers(32, len(whole), 60).tolist():
        (index / LOG).write_bytes(whole[:end])
        assert not log_damaged(index / LOG), end
    torn = whole[:-2000] + bytes(2000)  # the last frame's page was not written whole
    (index / LOG).write_bytes(torn[:-1])
    assert not log_damaged(index / LOG)


def test_what_is_left_of_an_earlier_log_is_no_damage(tmp_path):
    with Store.create(tmp_path / "index", encoder="toy", fingerprint="toy-1", dim=DIM) as store:
        fill(store, CHANGES)
        store.database.execute("PRAGMA wal_checkpoint(RESTART)")
        fill(store, 3, CHANGES)
        log = read_log(tmp_path / "index" / LOG)
        assert 0 < log.read == log.committed < (tmp_path / "index" / LOG).stat().st_size // STEP
        (changes,) = store.database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        assert changes == (0, log.read, log.read)  # so many frames SQLite finds in it
        copy = shutil.copytree(tmp_path / "index", tmp_path / "copy")
    flip(copy / LOG, 32 + 500, 0)
    assert log_damaged(copy / LOG)


def test_a_log_of_the_other_order_of_bytes(tmp_path):
    file = tmp_path / "plain"
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (x)")
        database.commit()
        log = tmp_path / "plain-wal"
        content = bytearray(log.read_bytes())
        content[3] ^= 1  # says that what is added up has the other order, which makes all checksums wrong
        (tmp_path / "other").write_bytes(content)
        mend_log(tmp_path / "other")
        assert (tmp_path / "other").read_bytes()[:4] == bytes(content[:3]) + bytes([content[3] ^ 1])


def test_an_earlier_database_is_told_of_and_its_later_index_is_not_used(index, tmp_path):
    with Store.open(index) as store:
        early = sqlite3.connect(tmp_path / "early")
        store.database.backup(early)
    early.close()
    with Store.open(index, write=True) as store:
        fill(store, 4, CHANGES)
        refresh_index(store)
        (later,) = index.glob("index-*.faiss")
    shutil.copyfile(tmp_path / "early", index / "store.sqlite")  # somebody puts a copy back
    assert any("earlier state" in line for line in verify(index))
    with Store.open(index, write=True) as store:
        fill(store, 4, 2 * CHANGES)
        assert not later.exists()
        assert store.saved_index() is None
        refresh_index(store)
    assert verify(index) == []
