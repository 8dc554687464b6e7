"""The first 100 bytes of a store's SQLite file, few of which SQLite itself looks at.

See https://www.sqlite.org/fileformat2.html#the_database_header. Nearly all are the same in every store. What may
be any number is left alone: the count of changes to the tables' definitions, the free pages, and SQLite's version.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from fewshot.database import DATABASE, FORMAT, LOG, MAGIC, OURS, has_log, newer
from fewshot.log import PAGE, read_log

LENGTH = 100
FIRST = 64  # pages among which those are where tables and their indexes begin
CONSTANT = {  # where they begin -> bytes
    20: bytes([0, 64, 32, 32]),  # shares of a page
    44: bytes([0, 0, 0, 4, *[0] * 11, 1]),  # format; nothing that is set by hand; UTF-8
    64: bytes(4),
    72: bytes(20),
}


def header_changed(folder: Path) -> bool:
    """Tell whether the header of a store's database is not as it was written.

    Until the log of a new store is first taken over, its file is one empty page, of which nothing counts.
    """
    if has_log(folder) and (folder / DATABASE).stat().st_size <= PAGE:
        return False
    with open(folder / DATABASE, "rb") as file:
        head = file.read(LENGTH)
    writes, reads = head[18:20]
    return (
        writes != reads
        or writes not in (1, 2)  # without and with a log
        or any(head[at : at + len(value)] != value for at, value in CONSTANT.items())
        or head[24:28] != head[92:96]  # changes, and changes when the size was noted
        or not any(head[28:32])  # size in pages
    )


def check_format(folder: Path) -> None:
    """Refuse a database of a newer format, which the file's header tells of, damaged as the rest may be.

    Raises
    ------
    FormatError
        naming the format.
    """
    with suppress(FileNotFoundError, NotADirectoryError), open(folder / DATABASE, "rb") as file:
        version, _, ours = np.frombuffer(file.read(LENGTH)[60:72].ljust(12, b"\0"), ">u4").tolist()
        if ours == OURS and version > FORMAT:
            raise newer(folder, version)


def restore_header(folder: Path) -> None:
    """Put right what is the same in every store, and the size; a file shorter than a header stays as it is.

    A short file gets empty pages: without the page where one table or index begins SQLite reads none of them. Where
    there is a log, its last change tells the size: SQLite refuses a header that says more.
    """
    file = folder / DATABASE
    there, logged = file.stat().st_size // PAGE, read_log(folder / LOG).pages
    pages = logged or max(there, FIRST)
    with open(file, "r+b") as content:
        head = bytearray(content.read(LENGTH))
        if len(head) < LENGTH:
            return
        head[:20] = MAGIC + PAGE.to_bytes(2, "big") + bytes([2, 2])
        for at, value in CONSTANT.items():
            head[at : at + len(value)] = value
        head[28:32] = pages.to_bytes(4, "big")
        head[92:96] = head[24:28]
        content.truncate(max(there, pages) * PAGE)
        content.seek(0)
        content.write(head)
