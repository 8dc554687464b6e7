"""Every flipped bit is found or changes nothing; what is mended is whole; what is compacted is all still there."""

import builtins
import contextlib
import errno
import os
import shutil
import sqlite3

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot import database, writer
from fewshot.build import build_index, update
from fewshot.encoders.toy import ToyEncoder
from fewshot.errors import FewshotError, FormatError, OutputError, StoreLocked
from fewshot.images import open_image
from fewshot.removal import remove
from fewshot.store import Store
from fewshot.upkeep import compact, repair, verify

TABLES = {"files": "path", "contents": "row", "chunks": "first", "meta": "key"}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Twelve pictures in four appends, and their index."""
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    for i in range(12):
        path = folder / "photos" / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).save(path)
    build_index([folder / "photos"], folder / "index", encoder="toy", device="cpu", batch=3)
    return folder


@pytest.fixture
def index(original, tmp_path):
    return shutil.copytree(original / "index", tmp_path / "index")


def content(index):
    """All that a store holds but for the number of changes, or None where it cannot be read."""
    try:
        with Store.open(index) as store:
            tables = [store.database.execute(f"SELECT * FROM {t} ORDER BY {k}").fetchall() for t, k in TABLES.items()]
            tables[-1] = [row for row in tables[-1] if row[0] != "generation"]
            return tables, store.embeddings().tobytes()
    except (FewshotError, sqlite3.Error, UnicodeDecodeError):
        return None


def right_embeddings(index):
    encoder = ToyEncoder(torch.device("cpu"))
    with Store.open(index) as store:
        rows, entries = store.embeddings(verify=True), store.entries()
        for entry in entries:
            want = encoder.encode_images([open_image(entry.path)])[0].numpy()
            np.testing.assert_allclose(rows[entry.row], want, atol=1e-3)
    return len(entries)


def flip(file, at, bit):
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << bit
    file.write_bytes(data)


def test_a_whole_store_has_nothing_to_mend(index):
    before = content(index)
    assert verify(index) == []
    assert repair(index) == []
    assert content(index) == before


@pytest.mark.parametrize("name", ["embeddings.f32", "index-*.faiss"])
def test_a_flipped_bit_is_found_and_mended(index, original, name):
    (file,) = index.glob(name)
    size = file.stat().st_size
    for at in np.random.default_rng(1).integers(0, size, 25).tolist():
        flip(file, at, at % 8)
        (problem,) = verify(index)
        assert file.name in problem
        flip(file, at, at % 8)
    flip(file, size // 2, 0)
    assert repair(index)
    assert verify(index) == []
    build_index([original / "photos"], index, device="cpu")
    assert right_embeddings(index) == 12


def test_a_bit_flipped_in_the_database_is_found_or_changes_nothing(index, original):
    file = index / "store.sqlite"
    whole, before = file.read_bytes(), content(index)
    found = 0
    for at in np.random.default_rng(2).integers(0, len(whole), 150).tolist():
        flip(file, at, at % 8)
        try:
            problems = verify(index)
        except FormatError as error:
            problems = [str(error)]
        assert problems or content(index) == before, f"byte {at}"
        found += bool(problems)
        file.write_bytes(whole)
    assert found > 15  # most of a small database is empty pages


def test_every_bit_of_the_header_that_matters_is_found(index):
    file = index / "store.sqlite"
    whole, before = file.read_bytes(), content(index)
    any_number = {*range(32, 44), *range(96, 100)}  # free pages, changes of the definitions, SQLite's version
    for at in sorted({*range(100)} - any_number):
        for bit in range(8):
            flip(file, at, bit)
            with contextlib.suppress(FormatError):  # where SQLite, or we, do not even open it
                assert verify(index), f"bit {bit} of byte {at}"
            file.write_bytes(whole)
    for at in (3, 16, 18, 19, 21, 24, 31, 44, 59, 75):
        flip(file, at, 1)
        assert repair(index)
        assert verify(index) == []
        assert content(index) == before


def test_a_database_that_was_cut_short_keeps_what_is_left(index):
    file = index / "store.sqlite"
    pages = file.stat().st_size // 4096
    before = content(index)
    os.truncate(file, (pages - 1) * 4096)
    with pytest.raises(FormatError, match="index repair"):
        verify(index)
    assert "written anew" in repair(index)[0]
    assert verify(index) == []
    assert content(index) == before  # the last page is of an index
    os.truncate(file, 4096)
    with pytest.raises(FormatError, match="beyond repair"):
        repair(index)
    assert {child.name for child in index.iterdir() if child.is_dir()} == set()


def change(index, needle, other):
    file = index / "store.sqlite"
    file.write_bytes(file.read_bytes().replace(needle, other))


@pytest.mark.parametrize("other", [b"05.pnx", b"0\xb5.png"])  # the latter is no Unicode
def test_changed_values_are_named(index, original, other):
    change(index, b"05.png", other)
    problems = verify(index)
    assert any("has changed" in line for line in problems), problems
    repair(index)
    assert verify(index) == []
    build_index([original / "photos"], index, device="cpu")
    assert right_embeddings(index) == 12


@pytest.mark.parametrize(
    ("needle", "key"),
    [(b"toy-1", "fingerprint"), (b"embeddings.f32", "vectors"), (b"float32", "dtype"), (b"generation", "generatioo")],
)
def test_what_a_store_says_of_itself_is_not_believed_once_it_has_changed(index, needle, key):
    change(index, needle, needle[:-1] + bytes([needle[-1] ^ 1]))
    for work in (verify, repair, Store.open, lambda folder: Store.open(folder, write=True)):
        with pytest.raises(FormatError, match=f"store.sqlite is damaged: {key} has changed; build the index again"):
            work(index)
    assert (index / "embeddings.f32").stat().st_size == 12 * 64 * 4  # not taken for what a compaction left behind


def test_a_definition_that_makes_no_sense_is_told(index):
    change(index, b"files_by_row ON", b"gires_by_row ON")
    for work in (verify, Store.open):
        with pytest.raises(FormatError, match=r"malformed database schema.*; try: fewshot index repair"):
            work(index)


@pytest.mark.parametrize("needle", [b"ok', 'skipped'", b"seal(first, count, crc)"])
def test_a_changed_definition_is_found_and_mended(index, original, needle):
    change(index, needle, bytes([needle[0] ^ 1]) + needle[1:])
    assert any("definition of" in line for line in verify(index))
    assert "written anew" in repair(index)[0]
    assert verify(index) == []
    build_index([original / "photos"], index, device="cpu")
    assert (verify(index), right_embeddings(index)) == ([], 12)


@pytest.mark.parametrize("name", ["store.sqlite", "embeddings.f32"])
def test_a_file_that_may_not_be_read_is_not_taken_for_damaged(index, monkeypatch, name):
    real = open

    def refuse(file, *args, **kwargs):
        if str(file).endswith(name):
            raise PermissionError(13, "Permission denied")
        return real(file, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", refuse)
        for work in (verify, repair):
            with pytest.raises(FormatError, match=f"cannot read .*{name}: Permission denied"):
                work(index)
    assert (verify(index), right_embeddings(index)) == ([], 12)


def test_rows_lost_from_the_end_of_a_piece_are_overwritten_by_the_next(index, original):
    database = sqlite3.connect(index / "store.sqlite")
    ((digest,),) = database.execute("SELECT digest FROM contents WHERE row = 11")
    database.close()
    change(index, digest.encode(), digest[::-1].encode())
    repair(index)
    assert (verify(index), right_embeddings(index)) == ([], 11)
    assert build_index([original / "photos"], index, device="cpu").embedded == 1
    assert (verify(index), right_embeddings(index)) == ([], 12)


def break_page(index):
    database = sqlite3.connect(index / "store.sqlite")
    (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'files_by_label'").fetchone()
    (size,) = database.execute("PRAGMA page_size").fetchone()
    database.close()
    data = bytearray((index / "store.sqlite").read_bytes())
    data[(page - 1) * size : page * size] = b"\xff" * size
    (index / "store.sqlite").write_bytes(data)


def test_a_broken_page_is_salvaged(index, original):
    break_page(index)
    assert verify(index)
    done = repair(index)
    assert "written anew" in done[0]
    assert verify(index) == []
    assert right_embeddings(index) == 12


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("shutil.copyfile", OSError(errno.ENOSPC, "No space left on device")),
        ("pathlib.Path.rename", OSError(errno.EACCES, "Permission denied")),
        ("fewshot.salvage.define", sqlite3.OperationalError("database or disk is full")),
    ],
)
def test_a_full_disk_stops_salvage_in_one_line(index, where, error, monkeypatch):
    break_page(index)
    before = (index / "store.sqlite").read_bytes()

    def failing(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(where, failing)
        with pytest.raises(OutputError, match="nothing already stored is lost"):
            repair(index)
    assert (index / "store.sqlite").read_bytes() == before
    assert "written anew" in repair(index)[0]
    assert right_embeddings(index) == 12


@pytest.fixture
def with_log(index, original, tmp_path):
    """An index of which five rows are in the log only, and whose database is damaged."""
    for i in range(5):
        Image.fromarray(np.full((6, 6, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    with Store.open(index, write=True) as store:
        store.database.execute("PRAGMA wal_autocheckpoint = 0")
        update(store, [tmp_path], encoder=ToyEncoder(torch.device("cpu")))
        copy = shutil.copytree(index, tmp_path / "copy")
    flip(copy / "store.sqlite", 24, 0)
    return copy


@pytest.mark.parametrize("step", ["unlink", "replace", "glob"])
def test_a_repair_that_is_cut_short_is_brought_to_its_end(with_log, step, monkeypatch):
    class KilledError(Exception):
        pass

    with monkeypatch.context() as patch:

        def put_in_place(folder):
            patch.setattr(f"pathlib.Path.{step}", killed)
            writer.put_in_place(folder)

        def killed(*_, **__):
            raise KilledError

        patch.setattr("fewshot.salvage.put_in_place", put_in_place)
        with pytest.raises(KilledError):
            repair(with_log)
    with Store.open(with_log) as store:
        assert len(store.entries()) == 17
    with Store.open(with_log, write=True) as store:
        assert store.database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert not (with_log / database.MENDED).exists()
    assert verify(with_log) == []
    assert right_embeddings(with_log) == 17


def test_what_is_not_whole_takes_the_place_of_nothing(index):
    (index / database.MENDED).mkdir()
    (index / database.MENDED / "store.sqlite").write_bytes(b"")
    Store.open(index, write=True).close()
    assert not (index / database.MENDED).exists()
    assert verify(index) == []
    assert right_embeddings(index) == 12


def test_a_change_that_was_cut_short_without_a_log_is_undone(index, tmp_path):
    before = content(index)
    with contextlib.closing(sqlite3.connect(index / "store.sqlite", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("PRAGMA cache_size = 1")  # so that pages are written before the end
        other.create_function("seal", -1, database.seal, deterministic=True)
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE files SET reason = printf('%.2000c', 'x')")
        copy = shutil.copytree(index, tmp_path / "copy")
        other.execute("ROLLBACK")
    assert (copy / "store.sqlite-journal").stat().st_size
    assert (copy / "store.sqlite").read_bytes() != (index / "store.sqlite").read_bytes()
    assert content(shutil.copytree(copy, tmp_path / "read")) == before
    assert verify(copy) == []
    flip(copy / "store.sqlite", 24, 0)
    repair(copy)
    assert verify(copy) == []
    assert right_embeddings(copy) == 12


def test_a_lost_array_costs_the_embeddings_only(index, original):
    (index / "embeddings.f32").unlink()
    assert any("embeddings.f32" in line for line in verify(index))
    repair(index)
    assert verify(index) == []
    counts = build_index([original / "photos"], index, device="cpu")
    assert (counts.embedded, right_embeddings(index)) == (12, 12)


def test_a_gap_in_the_middle_keeps_what_follows(index, original):
    flip(index / "embeddings.f32", 4 * 64 * 4, 3)  # row 4, in the second of four pieces
    assert repair(index)[0].startswith("rows 3 to 5 were damaged")
    assert right_embeddings(index) == 9
    assert build_index([original / "photos"], index, device="cpu").embedded == 3
    assert right_embeddings(index) == 12
    with Store.open(index, write=True) as store:
        assert compact(store) > 0
    assert right_embeddings(index) == 12


def test_compaction_frees_space_and_keeps_the_rest(index, original):
    with Store.open(index) as reader, Store.open(index, write=True) as store:
        remove(store, [], ["a"])
        size = store.vectors.path.stat().st_size
        freed = compact(store)
        assert store.vectors.path.stat().st_size == size // 2
        assert freed >= size // 2
        assert store.rows == 6
        assert compact(store) == 0
        with pytest.raises(FormatError, match="open it again"):
            reader.embeddings()
    assert verify(index) == []
    assert right_embeddings(index) == 6
    assert sorted(p.name for p in index.glob("embeddings*")) == [store.vectors.path.name]
    assert build_index([original / "photos"], index, device="cpu").embedded == 6
    assert right_embeddings(index) == 12


def test_an_index_half_written_when_its_process_was_killed_is_deleted_by_the_next_writer(index):
    (index / "index-9-01234567.part").write_bytes(b"half")
    Store.open(index).close()
    assert (index / "index-9-01234567.part").exists()  # maybe by a reader that is writing it
    Store.open(index, write=True).close()
    assert not (index / "index-9-01234567.part").exists()


def test_half_precision(original, tmp_path):
    build_index([original / "photos"], tmp_path / "half", encoder="toy", device="cpu", dtype="float16")
    assert (tmp_path / "half" / "embeddings.f16").stat().st_size == 12 * 64 * 2
    assert verify(tmp_path / "half") == []
    assert right_embeddings(tmp_path / "half") == 12
    with Store.open(tmp_path / "half", write=True) as store:
        remove(store, [], ["a"])
        compact(store)
    assert right_embeddings(tmp_path / "half") == 6


def test_only_the_writer_mends(index):
    with Store.open(index, write=True), pytest.raises(StoreLocked, match="another process"):
        repair(index)


def fail_at(patch, index, nth, error):
    """Make the nth sync, or opening for writing, of anything in `index` fail; return the count of both."""
    calls = []

    def failing(real, is_write):
        def call(target, *args, **kwargs):
            if is_write(target, *args):
                calls.append(target)
                if len(calls) == nth:
                    raise error
            return real(target, *args, **kwargs)

        return call

    def opens(file, mode="r", *args):
        return str(index) in str(file) and bool(set(mode) & set("wa+"))

    patch.setattr(os, "fsync", failing(os.fsync, lambda handle: True))
    patch.setattr(builtins, "open", failing(builtins.open, opens))
    return calls


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
@pytest.mark.parametrize("operation", ["update", "compact"])
def test_every_failing_write_loses_nothing(index, tmp_path, monkeypatch, error, operation):
    """Fail the first, the second ... write, until the operation meets no more of them."""
    Image.new("RGB", (5, 5), "red").save(tmp_path / "new.png")
    for nth in range(1, 50):
        copy = shutil.copytree(index, tmp_path / f"copy-{nth}")
        failed = None
        with Store.open(copy, write=True) as store:
            remove(store, [], ["a"])
            kept = content(copy)
            with monkeypatch.context() as patch:
                calls = fail_at(patch, copy, nth, error)
                try:
                    if operation == "compact":
                        compact(store)
                    else:
                        update(store, [tmp_path / "new.png"], encoder=ToyEncoder(torch.device("cpu")))
                except OutputError as raised:
                    failed = str(raised)
            assert failed is None or (error.strerror in failed and content(copy)[1] == kept[1])
            left = [file.name for file in copy.iterdir() if file.name.startswith(("embeddings", "index-"))]
            assert len(left) == 2, left  # nothing half written takes up the space of a full disk
        assert verify(copy) == []
        assert right_embeddings(copy) in (6, 7)
        shutil.rmtree(copy)
        if len(calls) < nth:
            break
    assert 2 < nth < 49


@pytest.mark.parametrize("pragma", ["max_page_count = 1", "query_only = ON"])
def test_a_database_that_cannot_grow_or_be_written(index, tmp_path, pragma):
    for i in range(200):
        Image.new("RGB", (2, 2), (i, 255 - i, 7)).save(tmp_path / f"{i:03}.png")
    before = content(index)

    def crippled_update():
        with Store.open(index, write=True) as store:
            store.database.execute("PRAGMA " + pragma)
            update(store, [tmp_path], encoder=ToyEncoder(torch.device("cpu")))

    with pytest.raises(OutputError, match=r"full|readonly"):
        crippled_update()
    assert verify(index) == []
    assert len(content(index)[0][0]) >= len(before[0][0])
    right_embeddings(index)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_newer_format_is_left_as_it_is(index, damaged):
    with contextlib.closing(sqlite3.connect(index / "store.sqlite", isolation_level=None)) as opened:
        opened.execute("CREATE TABLE captions (path TEXT)")
        opened.execute("PRAGMA user_version = 3")
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if damaged:
        flip(index / "store.sqlite", 3 * 4096, 7)
    before = (index / "store.sqlite").read_bytes()
    with pytest.raises(FormatError, match="format 3"):
        repair(index)
    assert (index / "store.sqlite").read_bytes() == before


def test_forgotten_files_are_named(index):
    flip(index / "embeddings.f32", 5, 0)
    done = repair(index)
    assert any("photos/" in line and "by the next build" in line for line in done)
