"""Attribute tables: what each class is like, in numbers, for classes that may have no example."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fewshot.errors import DataError

LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True, slots=True)
class AttributeTable:
    """One row of numbers a class."""

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    values: Tensor  # [C, A] float32

    def rows(self, names: Sequence[str]) -> Tensor:
        """Return the signatures of the named classes.  -> [len(names), A]

        Raises
        ------
        DataError
            naming the first class the table lacks.
        """
        missing = [name for name in names if name not in self.classes]
        if missing:
            raise DataError(f"the attributes table has no row for class {missing[0]!r}; its first column must name it")
        return self.values[[self.classes.index(name) for name in names]]


def read_attributes(path: Path) -> AttributeTable:
    """Read a CSV whose header names the attributes and whose first column names the classes.

    Raises
    ------
    DataError
        naming the file, the row and the column, for a cell that is no finite number, a class that stands twice, a row
        of the wrong length, or a table without classes or attributes.
    """
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"attributes table {path} cannot be read: {error}") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise DataError(f"attributes table {path} wants a header (class, attribute names ...) and a row a class")
    header = [cell.strip() for cell in rows[0]]
    values: dict[str, list[float]] = {}
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        name = row[0].strip()
        if not name:
            raise DataError(f"attributes table {path}, row {number}: the first cell is empty; it must name a class")
        if len(row) != len(header):
            raise DataError(
                f"attributes table {path}, row {number}: {len(row)} cells, but the header has {len(header)}"
            )
        if name in values:
            raise DataError(f"attributes table {path}, row {number}: class {name!r} stands twice")
        cells = zip(header[1:], row[1:], strict=True)
        values[name] = [_number(cell, f"{path}, row {number}, column {column!r}") for column, cell in cells]
    return AttributeTable(tuple(values), tuple(header[1:]), torch.tensor(list(values.values())))


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not abs(value) <= LARGEST:
        raise DataError(f"attributes table {where}: {cell!r} is not a finite number below 3.4e38")
    return value
