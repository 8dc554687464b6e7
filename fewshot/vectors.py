"""A file of float32 rows that only grows: each append is on disk, and checksummed, before anything refers to it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import FormatError, OutputError

ITEM = np.dtype("<f4")


class VectorFile:
    """Rows of `dim` little-endian float32 numbers, one after the other, without a header."""

    def __init__(self, path: Path, dim: int) -> None:
        self.path = path
        self.dim = dim

    def append(self, vectors: NDArray[np.float32], at: int) -> int:
        """Write `[n, dim]` as rows `at` and following, wait until they are on disk, and return their CRC-32.

        Whatever lay at `at` or beyond was never committed and is overwritten.

        Raises
        ------
        OutputError
            when the disk is full or the file may not be written.
        """
        data = np.ascontiguousarray(vectors, dtype=ITEM).tobytes()
        try:
            with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
                file.truncate(at * self.dim * ITEM.itemsize)
                file.seek(0, os.SEEK_END)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}; nothing already stored is lost") from error
        return zlib.crc32(data)

    def read(self, count: int) -> NDArray[np.float32]:
        """Return the first `count` rows, memory-mapped and read-only.  -> [count, dim]

        Raises
        ------
        FormatError
            when the file is shorter than that or cannot be read.
        """
        if count == 0:
            return np.zeros((0, self.dim), np.float32)
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < count * self.dim * ITEM.itemsize:
            have = size // (self.dim * ITEM.itemsize)
            raise FormatError(f"{self.path} is damaged: {have} of {count} rows are there; build the index again")
        try:
            return np.memmap(self.path, ITEM, "r", shape=(count, self.dim))
        except OSError as error:
            raise FormatError(f"cannot read {self.path}: {error.strerror}") from error

    def verify(self, chunks: Iterable[tuple[int, int, int]]) -> None:
        """Compare appended pieces, given as (first row, rows, CRC-32), with what is on disk.

        Raises
        ------
        FormatError
            naming the first rows that have changed.
        """
        pieces = list(chunks)
        rows = self.read(max((first + count for first, count, _ in pieces), default=0))
        for first, count, checksum in pieces:
            if zlib.crc32(rows[first : first + count].tobytes()) != checksum:
                where = f"rows {first} to {first + count - 1} have changed"
                raise FormatError(f"{self.path} is damaged: {where}; build the index again")
