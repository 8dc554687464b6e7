"""Take pictures out of a store: those that are named, and those whose files are gone."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from fewshot.errors import DataError
from fewshot.names import storable, stored_glob, stored_path
from fewshot.store import Store

GONE = "SELECT path FROM files WHERE (path >= ? AND path < ?) AND path NOT IN (SELECT path FROM seen)"
ANY_SEEN = "SELECT 1 FROM seen WHERE path >= ? AND path < ? LIMIT 1"
DELETE = "DELETE FROM files WHERE path = ?"


def remove(store: Store, targets: Sequence[str], labels: Sequence[str] = ()) -> int:
    """Take pictures out of the index by path, folder, glob or label, and return how many; no file is touched.

    A glob matches whole paths, `*` any part of one; it starts at the current folder unless it starts with `/` or `*`.

    Raises
    ------
    DataError
        when one of the targets matches nothing; then nothing at all is removed.
    """
    total = 0
    with store.writing() as database:
        for target in dict.fromkeys(targets):
            if not target:  # as from "$UNSET"; it would be the whole current folder
                raise DataError("an empty PATH names nothing; nothing was removed")
            path = stored_path(target)
            count = database.execute(DELETE, (path,)).rowcount
            count += database.execute("DELETE FROM files WHERE path >= ? AND path < ?", _beneath(path)).rowcount
            if not count and any(sign in target for sign in "*?["):
                count = database.execute("DELETE FROM files WHERE path GLOB ?", (stored_glob(target),)).rowcount
            if not count:
                raise DataError(f"nothing in {store.path} matches {target!r}; nothing was removed")
            total += count
        for label in dict.fromkeys(map(storable, labels)):
            store.check_labels([label])
            total += database.execute("DELETE FROM files WHERE label = ?", (label,)).rowcount
    return total


def drop_gone(store: Store, tops: Sequence[str]) -> tuple[int, int]:
    """Forget the files beneath `tops` that are not there any more; return how many, and how many of them are kept.

    The files that are there are in the table `seen`. What is not mounted looks like an empty folder, or like a link to
    nowhere.
    """
    gone, unseen = [], 0
    for top in tops:
        bounds = _beneath(storable(top))
        mounted = store.database.execute(ANY_SEEN, bounds).fetchone()
        for row in store.database.execute(GONE, bounds):
            if _is_gone(row[0]):
                if mounted and not _behind_dead_link(row[0], top):
                    gone.append(row)
                else:
                    unseen += 1
    with store.writing() as database:
        database.executemany(DELETE, gone)
    return len(gone), unseen


def _is_gone(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)  # a folder is listed only while it cannot be searched
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _behind_dead_link(path: str, top: str) -> bool:
    while len(path := os.path.dirname(path)) > len(top):
        if os.path.lexists(path):
            return not os.path.exists(path)
    return False


def _beneath(top: str) -> tuple[str, str]:
    """Return bounds, the second exclusive, that hold just the paths in the folder `top`."""
    folder = top if top.endswith(os.sep) else top + os.sep
    return folder, folder[:-1] + chr(ord(os.sep) + 1)
