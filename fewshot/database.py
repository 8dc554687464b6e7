"""The SQLite file of a store: its tables, how it is opened, and its errors in plain words."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from fewshot.errors import FewshotError, FormatError, OutputError
from fewshot.log import log_damaged

FORMAT = 2  # PRAGMA user_version; format 1 had no checksums of rows, and is still read and written
OLDEST = 1
OURS = 0x66657773  # PRAGMA application_id, "fews"
DATABASE = "store.sqlite"
LOG = DATABASE + "-wal"
LOGS = "-wal", "-journal"  # behind the database's name: what is not in it yet, and what is still to be undone
LOCK = "lock"
LEFT_OVER = {LOCK, DATABASE, *(DATABASE + tail for tail in (*LOGS, "-shm"))}  # by a build killed at its very start
LOST = (
    f"holds embeddings, but its {DATABASE} is lost, and with it which pictures they are of; delete the folder, "
    "or give --out the name of a new one, and build the index again"
)
MENDED = DATABASE + ".mended"  # folder with a database that is to take the place of a damaged one
MAGIC = b"SQLite format 3\0"
PATIENCE = 0.5  # seconds that a reader waits until that has happened
UNFINISHED = "unfinished"  # key of meta of a store that is being imported
NEEDED = {"encoder", "fingerprint", "dim", "generation"}  # keys of meta that nothing can replace

ANY_TABLE = "SELECT count(*) FROM sqlite_master"
UNREADABLE = sqlite3.Error, UnicodeDecodeError  # the latter where SQLite quotes damaged text

# changed to the letter, it is another format: what a store has is compared with it
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value, seal INTEGER AS (seal(key, value)) STORED) WITHOUT ROWID;
CREATE TABLE contents (
    row INTEGER PRIMARY KEY, digest TEXT UNIQUE NOT NULL, seal INTEGER AS (seal(row, digest)) STORED
);
CREATE TABLE chunks (
    first INTEGER PRIMARY KEY, count INTEGER NOT NULL, crc INTEGER NOT NULL,
    seal INTEGER AS (seal(first, count, crc)) STORED
);
CREATE TABLE files (
    path TEXT PRIMARY KEY, digest TEXT NOT NULL, row INTEGER, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    label TEXT, status TEXT NOT NULL CHECK (status IN ('ok', 'skipped')), reason TEXT NOT NULL,
    seal INTEGER AS (seal(path, digest, row, size, mtime_ns, label, status, reason)) STORED
) WITHOUT ROWID;
CREATE INDEX files_by_row ON files (row);
CREATE INDEX files_by_label ON files (label);
"""


# the columns that each table's seal, a checksum, covers
SEALED = {
    "meta": "key, value",
    "contents": "row, digest",
    "chunks": "first, count, crc",
    "files": "path, digest, row, size, mtime_ns, label, status, reason",
}


def seal(*values: object) -> int:
    """Return a checksum of one row's values, which SQLite keeps beside them."""
    return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))


def sealed(database: sqlite3.Connection, table: str) -> bool:
    """Tell whether the rows of a table have checksums; those of format 1 have none."""
    columns = "SELECT count(*) FROM pragma_table_xinfo(?) WHERE name = 'seal'"
    return bool(database.execute(columns, (table,)).fetchone()[0])


def as_it_is(text: bytes) -> str:
    """Decode text that damage may have left without sense as Unicode; a `text_factory`."""
    return text.decode("utf-8", "surrogateescape")


def broken(database: sqlite3.Connection, table: str) -> Iterator[tuple[object, ...]]:
    """Yield the rows of a table that are not what their checksum says."""
    if not sealed(database, table):
        return
    before, database.text_factory = database.text_factory, as_it_is
    try:
        for *values, kept in database.execute(f"SELECT {SEALED[table]}, seal FROM {table}"):
            if seal(*values) != kept:
                yield tuple(values)
    finally:
        database.text_factory = before


def changed_definitions(database: sqlite3.Connection) -> list[str]:
    """Return the names of tables and indexes that are not as `SCHEMA` has them; of format 1 nothing is known."""
    if database.execute("PRAGMA user_version").fetchone() != (FORMAT,):
        return []
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        fresh.create_function("seal", -1, seal, deterministic=True)
        define(fresh, {})
        wanted = fresh.execute("SELECT name, type, tbl_name, sql FROM sqlite_master").fetchall()
    there = database.execute("SELECT name, type, tbl_name, sql FROM sqlite_master").fetchall()
    return [row[0] for row in wanted if row not in there]


def read_meta(database: sqlite3.Connection, folder: Path) -> dict[str, Any]:
    """Return what a store says of itself, on which depends how all else is read, and which files are of use.

    Raises
    ------
    FormatError
        when the store is of a newer format, or not finished, or any of this has changed or is missing.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if not OLDEST <= version <= FORMAT:
        raise newer(folder, version)
    meta = dict(database.execute("SELECT key, value FROM meta"))
    changed = [str(key) for key, _ in broken(database, "meta")] or sorted(NEEDED - meta.keys())
    if changed:
        what = f"{folder / DATABASE} is damaged: {', '.join(changed)} has changed"
        raise FormatError(f"{what}; build the index again, under another name")
    if UNFINISHED in meta:
        raise FormatError(f"{folder} is of an import that has not ended; run it again, it begins anew")
    return meta


def newer(folder: Path, version: int) -> FormatError:
    """Say that a store is of a format that this program does not know."""
    return FormatError(f"{folder} has format {version}, this program reads up to {FORMAT}; update fewshot")


def define(database: sqlite3.Connection, meta: Mapping[str, object]) -> None:
    """Make the tables, in one transaction, so that a store is there completely or not at all."""
    database.execute("PRAGMA journal_mode = WAL")
    with transaction(database):
        for statement in filter(str.strip, SCHEMA.split(";")):
            database.execute(statement)
        database.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", meta.items())
        database.execute(f"PRAGMA application_id = {OURS}")
        database.execute(f"PRAGMA user_version = {FORMAT}")


def is_store(folder: Path) -> bool:
    """Tell whether a folder holds a store that was made completely."""
    try:
        with closing(connect(folder, write=False)) as database:
            return bool(database.execute("PRAGMA application_id").fetchone() == (OURS,))
    except UNREADABLE:
        return False


def check_store(folder: Path) -> None:
    """Tell what is wrong with a folder that should hold a store: none is there, it may not be read, or it is damaged.

    Raises
    ------
    FormatError
        saying which.
    """
    check_readable(folder)
    if log_is_damaged(folder):
        what = f"{folder / LOG} is damaged: what was written last cannot be read"
        raise FormatError(f"{what}; run: fewshot index repair {folder}")
    try:
        with closing(connect(folder, write=False)) as database:
            if database.execute("PRAGMA application_id").fetchone() == (OURS,):
                return
    except UNREADABLE as error:
        if (folder / DATABASE).is_file():
            what = f"{folder} is not an index, or {DATABASE} is damaged: {error}"
            raise FormatError(f"{what}; try: fewshot index repair {folder}") from error
    if is_lost(folder):
        raise FormatError(f"{folder} {LOST}")
    free = not foreign(folder) if folder.is_dir() else not folder.exists()
    out = folder if free else "NEW, the name of a new folder"
    raise FormatError(f"{folder} is not an index; make one with: fewshot index build DIR --out {out}")


def foreign(folder: Path) -> list[str]:
    """Return what a folder holds beside that which a build leaves that was killed at its very start."""
    return sorted(child.name for child in folder.iterdir() if child.name not in LEFT_OVER)


def is_lost(folder: Path) -> bool:
    """Tell whether a folder holds the embeddings of a store whose database is gone or empty."""
    file = folder / DATABASE
    return any(folder.glob("embeddings*.f*")) and not (file.is_file() and file.stat().st_size)


def log_is_damaged(folder: Path) -> bool:
    """Tell whether what was written last cannot be read, but for where a mended database is about to take its place."""
    return not is_database(folder / MENDED / DATABASE) and log_damaged(folder / LOG)


def check_readable(folder: Path) -> None:
    """Raise FormatError when there is a database that may not be read, which says nothing about its content."""
    try:
        with open(folder / DATABASE, "rb"):
            return
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return
    except OSError as error:
        raise FormatError(f"cannot read {folder / DATABASE}: {error.strerror}") from error


def connect(folder: Path, *, write: bool) -> sqlite3.Connection:
    """Open the database of a store; a reader never changes what it holds.

    A log whose shared memory was left behind when the folder was copied is taken over first, as SQLite does it. Where a
    repair was killed before the mended database was in place, a reader looks at that one.
    """
    file = folder / DATABASE
    if write:
        database = _opened(file, "PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.create_function("seal", -1, seal, deterministic=True)
        return database
    end = time.monotonic() + PATIENCE
    while there := is_database(folder / MENDED / DATABASE):
        if time.monotonic() > end:
            break
        time.sleep(PATIENCE / 50)
    if there:
        with suppress(sqlite3.OperationalError):  # it has just been put in place
            return _opened(f"{(folder / MENDED / DATABASE).absolute().as_uri()}?immutable=1", ANY_TABLE, uri=True)
    uri = f"{file.absolute().as_uri()}?mode=ro"
    try:
        return _opened(uri, ANY_TABLE, uri=True)
    except sqlite3.OperationalError:  # there is no shared memory for the log, and a reader makes none
        if has_log(folder) and not log_damaged(folder / LOG):
            try:
                _opened(file.absolute().as_uri() + "?mode=rw", ANY_TABLE, uri=True).close()
                return _opened(uri, ANY_TABLE, uri=True)
            except sqlite3.OperationalError as error:
                what = f"{error}; {DATABASE}-wal can be read only where it may be written: copy the folder there"
                raise sqlite3.OperationalError(what) from error
        return _opened(f"{uri}&immutable=1", "SELECT 1", uri=True)


def has_log(folder: Path) -> bool:
    """Tell whether a store's database has a log that was not yet taken over."""
    logs = [folder / (DATABASE + tail) for tail in LOGS]
    return any(log.is_file() and log.stat().st_size > 0 for log in logs)


def _opened(file: Path | str, first: str, *, uri: bool = False) -> sqlite3.Connection:
    """Open a database and run the first statement; if that fails, nothing stays open."""
    database = sqlite3.connect(file, uri=uri, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        database.execute(first).fetchone()
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Run statements as one transaction that any error undoes."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def is_database(file: Path) -> bool:
    """Tell whether a file begins as a SQLite database does."""
    try:
        with open(file, "rb") as content:
            return content.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


@contextmanager
def plain_errors(folder: Path) -> Iterator[None]:
    """Turn what SQLite raises into our own errors."""
    try:
        yield
    except UNREADABLE as error:
        raise plain(error, folder) from error


def plain(error: sqlite3.Error | UnicodeDecodeError, folder: Path) -> FewshotError:
    """Say in our words what SQLite says: operational errors that have a name come from the disk, others from damage."""
    named = getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR  # no such table, format ...
    if isinstance(error, sqlite3.OperationalError) and named:
        return OutputError(f"cannot use {folder / DATABASE}: {error}; nothing already stored is lost")
    return FormatError(f"{folder / DATABASE} is damaged: {error}; run: fewshot index repair {folder}")
