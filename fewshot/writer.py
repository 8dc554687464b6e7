"""One writer of a store at a time, which first ends what a killed one has left half done."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import filelock

from fewshot.database import (
    DATABASE,
    LOCK,
    LOGS,
    LOST,
    MENDED,
    UNFINISHED,
    connect,
    foreign,
    is_database,
    is_lost,
    is_store,
)
from fewshot.errors import OutputError, OutputExists, StoreLocked
from fewshot.vectors import sync_folder


def check_vacant(folder: Path) -> None:
    """Refuse a path that is taken; what a build left behind that was killed at its very start does not count.

    Raises
    ------
    OutputExists
        when there is a file, a store or anything else in the folder.
    StoreLocked
        when it is a store that another process is writing.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExists(f"{folder} is a file; give --out the name of a new folder")
    if is_store(folder):
        acquire(folder).release()  # another process may be making it just now
        raise OutputExists(f"{folder} holds an index already")
    if is_lost(folder):
        raise OutputExists(f"{folder} {LOST}")
    others = foreign(folder) if folder.is_dir() else []
    if others:
        raise OutputExists(f"{folder} is not an index and holds {others[0]!r}; give --out the name of a new folder")


def drop_unfinished(folder: Path) -> None:
    """Delete a store that was made as unfinished, and that nobody is writing.

    Raises
    ------
    StoreLocked
        when somebody is.
    """
    if not is_store(folder):
        return
    lock = acquire(folder)
    try:
        with closing(connect(folder, write=False)) as database:
            (left,) = database.execute("SELECT count(*) FROM meta WHERE key = ?", (UNFINISHED,)).fetchone()
        if left:
            shutil.rmtree(folder)
    finally:
        lock.release()


def acquire(folder: Path) -> filelock.FileLock:
    """Become the one writer of a store, until the lock is released or this process ends in whatever way.

    A repair that was killed while it put the mended database in place is brought to its end.

    Raises
    ------
    StoreLocked
        when another process is.
    OutputError
        when the folder cannot be written.
    """
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
        put_in_place(folder)
    except filelock.Timeout as error:
        raise StoreLocked(f"{folder} is being written by another process; try again when it is done") from error
    except OSError as error:
        lock.release()
        raise OutputError(f"cannot write {folder}: {error.strerror}; use another --out or its permissions") from error
    return lock


def put_in_place(folder: Path) -> None:
    """Put a mended database, if there is one, in the place of the damaged one and its log; needs the lock.

    The log must go first, as SQLite would write what it holds into the mended one. Until that has taken its place, it
    lies complete in a folder of its own, where readers find it. What else a repair has left behind is removed.
    """
    mended = folder / MENDED / DATABASE
    if is_database(mended):
        for tail in (*LOGS, "-shm"):
            (folder / (DATABASE + tail)).unlink(missing_ok=True)
        sync_folder(folder)
        mended.replace(folder / DATABASE)
        sync_folder(folder)
    for left in folder.glob(f"{DATABASE}.*"):
        shutil.rmtree(left, ignore_errors=True)
