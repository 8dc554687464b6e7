"""Tables of published data sets: CSV files whose columns and cells must all be there."""

from __future__ import annotations

import csv
from pathlib import Path

from fewshot.errors import DataError


def read_columns(file: Path, *columns: str) -> list[dict[str, str]]:
    """Read the rows of a CSV file that has at least these columns.

    Raises
    ------
    DataError
        naming the file, and the row that lacks a cell.
    """
    wanted = ", ".join(columns)
    try:
        with file.open(newline="", encoding="utf-8") as table:
            reader = csv.DictReader(table, restval="", restkey="")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a table of {wanted}: {error}") from error
    if not rows or not set(columns) <= set(reader.fieldnames or ()):
        raise DataError(f"{file} cannot be read as a table of {wanted}: it has {len(rows)} rows of other columns")
    for number, row in enumerate(rows, 1):
        if "" in row or not all(row[name] for name in reader.fieldnames or ()):
            raise DataError(f"{file}, row {number}: wants a cell for each of {wanted}, and no more")
    return rows
