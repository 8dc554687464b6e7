"""Write the database of a store anew with whatever rows can still be read from a damaged one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fewshot.database import (
    DATABASE,
    LOG,
    LOGS,
    MENDED,
    NEEDED,
    SEALED,
    UNREADABLE,
    as_it_is,
    connect,
    define,
    plain,
    seal,
    transaction,
)
from fewshot.errors import FormatError, OutputError
from fewshot.header import restore_header
from fewshot.log import mend_log
from fewshot.vectors import sync_folder
from fewshot.writer import acquire, put_in_place

Row = tuple[object, ...]


def salvage(folder: Path) -> int:
    """Replace a damaged database, in one step, by one with the rows that are whole; return how many there are.

    Rows that lie beyond a damaged page are lost. What refers to them is for `repair` to forget.

    Raises
    ------
    FormatError
        when not even the encoder's name can be read.
    OutputError
        when a copy cannot be written, on a full disk say.
    StoreLocked
        when another process is writing.
    """
    lock = acquire(folder)
    try:
        tables = _read_all(folder)
        meta = {str(key): value for key, value in tables["meta"]}
        if not meta.keys() >= NEEDED | {"dtype", "vectors"}:  # whose defaults stand for format 1, without checksums
            raise FormatError(f"{folder / DATABASE} is damaged beyond repair; build the index again")
        meta["generation"] = int(str(meta["generation"])) + 1  # a saved index is of what there was before
        _write_all(folder, meta, tables)
    except sqlite3.Error as error:
        raise plain(error, folder) from error
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; nothing already stored is lost") from error
    finally:
        lock.release()
    return sum(len(rows) for rows in tables.values())


def _read_all(folder: Path) -> dict[str, list[Row]]:
    try:
        with _copy(folder) as copy, closing(connect(copy, write=False)) as database:
            database.text_factory = as_it_is
            return {table: _rows(database, table, columns) for table, columns in SEALED.items()}
    except UNREADABLE as error:
        what = " ".join(str(error).split())
        raise FormatError(f"{folder / DATABASE} is damaged beyond repair: {what}; build the index again") from error


@contextmanager
def _copy(folder: Path) -> Iterator[Path]:
    """Copy a database with its log, and put its header right there; what may not be ours at all stays as it is."""
    copy = folder / f"{DATABASE}.copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    try:
        for name in (DATABASE, *(DATABASE + tail for tail in LOGS)):
            if (folder / name).exists():
                shutil.copyfile(folder / name, copy / name)
        mend_log(copy / LOG)
        restore_header(copy)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _rows(database: sqlite3.Connection, table: str, columns: str) -> list[Row]:
    """Read a table from its front, and from its back if something in between cannot be read."""
    found: dict[object, Row] = {}
    key = columns.partition(",")[0]
    for order in ("ASC", "DESC"):
        try:
            for *values, kept in database.execute(f"SELECT {columns}, seal FROM {table} ORDER BY {key} {order}"):
                if seal(*values) == kept:
                    found[values[0]] = tuple(values)
            break
        except UNREADABLE:
            continue
    return list(found.values())


def _write_all(folder: Path, meta: dict[str, object], tables: dict[str, list[Row]]) -> None:
    fresh = folder / f"{DATABASE}.new"
    fresh.mkdir(exist_ok=True)
    for left in fresh.iterdir():
        left.unlink()
    with closing(connect(fresh, write=True)) as database:
        define(database, meta)
        with transaction(database):
            for table in ("contents", "chunks", "files"):
                marks = ", ".join("?" * (SEALED[table].count(",") + 1))
                statement = f"INSERT OR IGNORE INTO {table} ({SEALED[table]}) VALUES ({marks})"
                database.executemany(statement, tables[table])
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # everything into the one file that is moved
    sync_folder(fresh)
    fresh.rename(folder / MENDED)
    sync_folder(folder)
    put_in_place(folder)
