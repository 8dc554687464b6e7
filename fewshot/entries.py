"""Which pictures a store holds, by path, label and row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

# :labels and :globs are JSON lists, or null for any
ROWS = """
SELECT row FROM files WHERE row >= 0 AND (:labels IS NULL OR label IN (SELECT value FROM json_each(:labels)))
AND (:globs IS NULL OR EXISTS (SELECT 1 FROM json_each(:globs) WHERE files.path GLOB value))
"""
ENTRIES = ROWS.replace("SELECT row", "SELECT path, label, row", 1) + "AND row = :row ORDER BY path"


class Entry(NamedTuple):
    """A picture in the store: row `row` of the embeddings is its own, or that of an identical file."""

    path: str
    label: str | None
    row: int


def listed(database: sqlite3.Connection) -> list[Entry]:
    """Return every picture that has an embedding, sorted by path."""
    return [Entry(*row) for row in database.execute("SELECT path, label, row FROM files WHERE row >= 0 ORDER BY path")]


def behind(
    database: sqlite3.Connection, rows: Sequence[int], labels: Sequence[str] = (), globs: Sequence[str] = ()
) -> dict[int, list[Entry]]:
    """Return the pictures behind some rows, of the given labels and path globs if any are given."""
    wanted = _wanted(labels, globs)
    return {
        int(row): [Entry(*entry) for entry in database.execute(ENTRIES, {**wanted, "row": int(row)})] for row in rows
    }


def rows_of(database: sqlite3.Connection, labels: Sequence[str] = (), globs: Sequence[str] = ()) -> list[int]:
    """Return the rows that pictures are behind, of the given labels and path globs if any are given."""
    return [row for (row,) in database.execute(ROWS, _wanted(labels, globs))]


def _wanted(labels: Sequence[str], globs: Sequence[str]) -> dict[str, str | None]:
    return {"labels": json.dumps(labels) if labels else None, "globs": json.dumps(globs) if globs else None}
