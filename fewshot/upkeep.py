"""Look for damage in a store, mend it, and give back the space of what was removed."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from fewshot.database import (
    DATABASE,
    LOG,
    SEALED,
    UNREADABLE,
    broken,
    changed_definitions,
    check_readable,
    connect,
    is_store,
    log_is_damaged,
    plain_errors,
)
from fewshot.errors import FormatError, OutputError
from fewshot.header import check_format, header_changed
from fewshot.salvage import salvage
from fewshot.store import IMPORTED, INDEXES, SUFFIX, Store, generation_of
from fewshot.vectors import VectorFile

AGAIN = "they will be embedded again by the next build"
SHOWN = 5  # forgotten files that are named
BLOCK = 65536  # rows moved at a time by a compaction
LIVE = "SELECT row, digest FROM contents WHERE row IN (SELECT row FROM files WHERE row >= 0) ORDER BY row"
# files whose embedding is not there, and contents whose row no chunk covers
ORPHANS = """
FROM files WHERE status = 'ok' AND NOT EXISTS
    (SELECT 1 FROM contents WHERE contents.row = files.row AND contents.digest = files.digest)
"""
UNCOVERED = """
FROM contents WHERE NOT EXISTS
    (SELECT 1 FROM chunks WHERE contents.row >= chunks.first AND contents.row < chunks.first + chunks.count)
"""


def verify(path: str | Path) -> list[str]:
    """Check every byte that matters in a store and return what is wrong, one line each; nothing is changed.

    Raises
    ------
    FormatError
        when there is no store, or it cannot be opened at all, or is of a newer format.
    """
    if log_is_damaged(Path(path)):
        return [f"{LOG} is damaged: what was written last cannot be read"]
    while True:
        with Store.open(path) as store, plain_errors(store.path):
            found = [f"{DATABASE} is damaged: its header has changed"] * header_changed(store.path)
            found += [
                *_database_damage(store.database),
                *_array_damage(store),
                *_index_damage(store.path),
                *_changes_lost(store),
            ]
            if not (found and _was_compacted(store)):
                return found


def repair(path: str | Path) -> list[str]:
    """Mend a store and return what was done, one line each: what is damaged is forgotten, so that it is embedded anew.

    Raises
    ------
    FormatError
        when the database is damaged beyond what can be read, or is of a newer format.
    StoreLocked, OutputError
        as `Store.open` does.
    """
    folder = Path(path)
    done = []
    check_readable(folder)
    check_format(folder)
    if _needs_salvage(folder):
        kept = salvage(folder)
        done.append(f"{folder / DATABASE} was written anew with the {kept} rows that could be read")
    with Store.open(folder, write=True) as store:
        with store.writing() as database:
            done += _forget_broken_rows(database)
            done += _forget_broken_chunks(store)
            again = AGAIN if store.encoder != IMPORTED else "import them again, into another index"
            lost = [path for (path,) in database.execute("SELECT path " + ORPHANS)]
            database.execute("DELETE " + ORPHANS)
            done += [f"{len(lost)} files without their embedding were forgotten, {_named(lost)}; {again}"] * bool(lost)
        for line in _index_damage(folder):
            Path(line.partition(" is damaged")[0]).unlink(missing_ok=True)
            done.append(line.replace("is damaged", "was damaged and is deleted; it is a copy"))
    return done


def compact(store: Store) -> int:
    """Drop the embeddings of removed pictures and return the bytes that were freed; rows are numbered anew.

    The new array is complete and on disk before one transaction switches over to it. Readers that have the store open
    are told to open it again.

    Raises
    ------
    FormatError
        when the array is damaged.
    OutputError
        when there is no room for the new array.
    """
    before = size_on_disk(store.path)
    old = store.embeddings(verify=True)
    number = store.generation + 1
    target = VectorFile(store.path / f"embeddings-{number}{SUFFIX[store.dtype]}", store.dim, store.dtype)
    with store.writing() as database:
        live = np.array([row for row, _ in database.execute(LIVE)], np.int64)
        if len(live) == len(old):
            return 0
        target.path.unlink(missing_ok=True)
        parts = [(start, live[start : start + BLOCK]) for start in range(0, len(live), BLOCK)]
        try:
            chunks = [(start, len(part), target.append(old[part], start)) for start, part in parts]
        except OutputError:
            target.path.unlink(missing_ok=True)  # its bytes are what others may be short of
            raise
        _renumber(database)
        database.execute("DELETE FROM chunks")
        database.executemany("INSERT INTO chunks (first, count, crc) VALUES (?, ?, ?)", chunks)
        database.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('vectors', ?)", (target.path.name,))
    store.vectors = target
    store.tidy()
    with plain_errors(store.path):
        store.database.execute("VACUUM")
        store.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before - size_on_disk(store.path)


def size_on_disk(folder: Path) -> int:
    """Return the bytes of all files of a store."""
    total = 0
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process replaces some now and then
            total += file.stat().st_size if file.is_file() else 0
    return total


def _renumber(database: sqlite3.Connection) -> None:
    """Give the contents that files refer to the rows 0, 1, 2 ... in their order, and forget the others."""
    database.execute("CREATE TEMP TABLE moved (old INTEGER PRIMARY KEY, new INTEGER, digest TEXT)")
    database.execute(f"INSERT INTO moved SELECT row, row_number() OVER (ORDER BY row) - 1, digest FROM ({LIVE})")
    database.execute("DELETE FROM contents")
    database.execute("INSERT INTO contents (row, digest) SELECT new, digest FROM moved")
    database.execute("UPDATE files SET row = moved.new FROM moved WHERE files.row = moved.old")
    database.execute("DROP TABLE moved")


def _database_damage(database: sqlite3.Connection) -> Iterator[str]:
    try:
        for name in changed_definitions(database):
            yield f"{DATABASE} is damaged: the definition of {name} has changed"
        for (line,) in database.execute("PRAGMA integrity_check(20)"):
            if line != "ok":
                yield f"{DATABASE} is damaged: {' '.join(line.split())}"
        for table in SEALED:
            for values in broken(database, table):
                yield f"{DATABASE} is damaged: {table} {values[0]!r} has changed"
        for (path,) in database.execute("SELECT path " + ORPHANS):
            yield f"{DATABASE} is damaged: {path!r} refers to an embedding that is not there"
        (count,) = database.execute("SELECT count(*) " + UNCOVERED).fetchone()
        if count:
            yield f"{DATABASE} is damaged: {count} embeddings have no checksum"
    except UNREADABLE as error:
        yield f"{DATABASE} is damaged: {' '.join(str(error).split())}"


def _array_damage(store: Store) -> Iterator[str]:
    with contextlib.suppress(*UNREADABLE):  # has been told
        changed = {*broken(store.database, "chunks")}
        chunks = store.database.execute("SELECT first, count, crc FROM chunks").fetchall()
        for first, count, _ in store.vectors.damaged(chunk for chunk in chunks if chunk not in changed):
            yield f"{store.vectors.path} is damaged: rows {first} to {first + count - 1} have changed or are missing"


def _was_compacted(store: Store) -> bool:
    """Tell whether another process has put a new array in place of the one that was looked at."""
    try:
        store.check_current()
    except FormatError:
        return True
    except UNREADABLE:  # has been told
        pass
    return False


def _index_damage(folder: Path) -> Iterator[str]:
    """Look at the saved indexes, whose names end in their checksum."""
    for file in sorted(folder.glob(INDEXES)):
        checksum = 0
        with contextlib.suppress(FileNotFoundError), file.open("rb") as content:  # another process may replace it
            while data := content.read(1 << 22):
                checksum = zlib.crc32(data, checksum)
            if f"{checksum:08x}" != file.stem.rsplit("-", 1)[-1]:
                yield f"{file} is damaged"


def _changes_lost(store: Store) -> Iterator[str]:
    """Look for saved indexes of later changes than the store knows of, which a writer deletes."""
    later = [generation_of(file) for file in store.path.glob(INDEXES)]
    with contextlib.suppress(*UNREADABLE):  # has been told
        if max(later, default=0) > store.generation:  # asked for last, as another process may write
            what = f"it knows of {store.generation} changes, and a saved index is of change {max(later)}"
            yield f"{DATABASE} is of an earlier state: {what}"


def _needs_salvage(folder: Path) -> bool:
    """Tell whether SQLite itself cannot work with the file any more."""
    if log_is_damaged(folder):
        return True
    if not is_store(folder):
        return (folder / DATABASE).is_file()
    try:
        with closing(connect(folder, write=False)) as database:
            whole = database.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
            return not whole or bool(changed_definitions(database)) or header_changed(folder)
    except UNREADABLE:
        return True


def _forget_broken_rows(database: sqlite3.Connection) -> list[str]:
    done = []
    for table, key in (("files", "path"), ("contents", "row"), ("chunks", "first")):
        changed = [values[0] for values in broken(database, table)]
        for value in changed:
            if isinstance(value, str):  # maybe not Unicode any more
                text = value.encode("utf-8", "surrogateescape")
                database.execute(f"DELETE FROM {table} WHERE {key} = CAST(? AS TEXT)", (text,))
            else:
                database.execute(f"DELETE FROM {table} WHERE {key} = ?", (value,))
        done += [f"{len(changed)} damaged rows of {table} were forgotten"] * bool(changed)
    return done


def _forget_broken_chunks(store: Store) -> list[str]:
    """Forget the embeddings of damaged pieces; where others follow, the piece stays as a gap with a new checksum."""
    database = store.database
    chunks = database.execute("SELECT first, count, crc FROM chunks ORDER BY first").fetchall()
    damaged = list(store.vectors.damaged(chunks))
    for first, count, _ in damaged:
        database.execute("DELETE FROM contents WHERE row >= ? AND row < ?", (first, first + count))
    database.execute("DELETE " + UNCOVERED)
    for first, count, _ in damaged:
        checksum = store.vectors.checksum(first, count)
        if first >= store.rows or checksum is None:
            database.execute("DELETE FROM chunks WHERE first = ?", (first,))
        else:
            database.execute("UPDATE chunks SET crc = ? WHERE first = ?", (checksum, first))
    rows = store.rows
    database.execute("DELETE FROM chunks WHERE first >= ?", (rows,))
    for (first,) in database.execute("SELECT first FROM chunks WHERE first + count > ?", (rows,)).fetchall():
        kept = rows - first, store.vectors.checksum(first, rows - first), first  # what follows will be overwritten
        database.execute("UPDATE chunks SET count = ?, crc = ? WHERE first = ?", kept)
    return [f"rows {first} to {first + count - 1} were damaged and forgotten" for first, count, _ in damaged]


def _named(paths: list[str]) -> str:
    return ", ".join(map(repr, paths[:SHOWN])) + " ..." * (len(paths) > SHOWN)
