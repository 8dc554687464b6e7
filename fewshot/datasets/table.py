"""table: pictures or texts listed in a CSV or JSONL file with the columns path or text, label, and maybe split."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path

from fewshot.datasets import Dataset, Items, Text
from fewshot.errors import DataError
from fewshot.hookspecs import hookimpl


def read_table(table: Path) -> Items:
    """Read a CSV (with a header) or JSONL file of `path`, `label` and maybe `split`; paths are relative to the file.

    A column `name` stands in for a missing `label`, and with a column `text` in place of `path` the items are texts.

    Raises
    ------
    DataError
        naming the file and the row, for a missing column, an empty label, or a picture that is not there.
    """
    sources: list[Path | Text] = []
    labels: list[str] = []
    splits: list[str] = []
    for number, row in _rows(table):
        where = f"{table}, row {number}"
        path, text, label = row.get("path"), row.get("text"), row.get("label", row.get("name"))
        if not (path or text) or label is None or not str(label).strip():
            raise DataError(f"{where}: wants a path or a text, and a label, got {dict(row)}")
        source = table.parent / str(path)
        if path and not source.is_file():
            raise DataError(f"{where}: {source} is not there")
        sources.append(source if path else Text(text))
        labels.append(str(label).strip())
        splits.append(str(row.get("split") or ""))
    if not sources:
        raise DataError(f"{table} lists no pictures")
    if len(set(labels)) == 1:
        raise DataError(f"{table} holds one class only, {labels[0]!r}; a classifier needs at least two")
    return Items(tuple(sources), tuple(labels), tuple(splits) if any(splits) else ())


def read_texts(table: Path) -> list[Text]:
    """Read the column `text` of a CSV or JSONL file, whatever other columns it has.

    Raises
    ------
    DataError
        naming the file and the row that has no text.
    """
    found = []
    for number, row in _rows(table, {"text"}):
        if not row.get("text"):
            raise DataError(f"{table}, row {number}: wants a text, got {dict(row)}")
        found.append(Text(row["text"]))
    return found


def _rows(table: Path, wanted: Set[str] = frozenset({"label"})) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Number and content of each row; numbers count lines of the file, of a row its last, so a CSV's first is row 2."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table} cannot be read: {error}") from error
    if table.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))  # a quoted text may hold line breaks
        columns = set(reader.fieldnames or ())
        missing = wanted - columns - ({"label"} if "name" in columns else set())
        missing |= set() if columns & {"path", "text"} else {"path"}
        if missing:
            raise DataError(
                f"{table}: the first line must name the columns path and label, or text and label; "
                f"{sorted(missing)} missing"
            )
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{table}, row {reader.line_num + 1}: not CSV ({error})") from error
        return
    for number, line in enumerate(text.split("\n"), 1):  # JSON may hold other line separators as they are
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{table}, row {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{table}, row {number}: wants an object with path and label, got {line.strip()[:60]}")
        yield number, row


class Table(Dataset):
    """Pictures or texts listed in a CSV or JSONL file."""

    name = "table"
    about = "a CSV or JSONL file with the columns path (or text), label and maybe split"

    def load(self, path: Path | None = None) -> Items:
        """Read the table at `path`; raises DataError as `read_table` does."""
        if path is None:
            raise DataError("dataset 'table' needs a path: a CSV or JSONL file with the columns path and label")
        return read_table(path)


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Register `table`."""
    register(Table)
