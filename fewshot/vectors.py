"""A file of rows of numbers that only grows: each append is on disk, and checksummed, before anything refers to it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import FormatError, OutputError

PIECE = 1 << 22  # bytes read at a time by a check
ITEMS: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


class VectorFile:
    """Rows of `dim` little-endian numbers, float32 or float16, one after the other, without a header."""

    def __init__(self, path: Path, dim: int, item: str = "float32") -> None:
        self.path = path
        self.dim = dim
        self.item: np.dtype[Any] = ITEMS[item]

    def append(self, vectors: NDArray[np.float32], at: int) -> int:
        """Write `[n, dim]` as rows `at` and following, wait until they are on disk, and return their CRC-32.

        Whatever lay at `at` or beyond was never committed and is overwritten.

        Raises
        ------
        OutputError
            when the disk is full or the file may not be written.
        """
        data = np.ascontiguousarray(vectors, dtype=self.item).tobytes()
        try:
            fresh = not self.path.exists()
            with open(self.path, "w+b" if fresh else "r+b") as file:
                file.truncate(at * self.dim * self.item.itemsize)
                file.seek(0, os.SEEK_END)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if fresh:
                sync_folder(self.path.parent)  # a new file's name is an entry of its folder
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}; nothing already stored is lost") from error
        return zlib.crc32(data)

    def read(self, count: int) -> NDArray[np.float32]:
        """Return the first `count` rows, memory-mapped and read-only, in the file's own type.  -> [count, dim]

        Raises
        ------
        FormatError
            when the file is shorter than that or cannot be read.
        """
        if count == 0:
            return np.zeros((0, self.dim), self.item)
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < count * self.dim * self.item.itemsize:
            have = size // (self.dim * self.item.itemsize)
            what = f"{self.path} is damaged: {have} of {count} rows are there"
            raise FormatError(f"{what}; run: fewshot index repair {self.path.parent}")
        try:
            rows: NDArray[np.float32] = np.memmap(self.path, self.item, "r", shape=(count, self.dim))
        except OSError as error:
            raise FormatError(f"cannot read {self.path}: {error.strerror}") from error
        return rows

    def verify(self, chunks: Iterable[tuple[int, int, int]]) -> None:
        """Compare appended pieces, given as (first row, rows, CRC-32), with what is on disk.

        Raises
        ------
        FormatError
            naming the first rows that have changed.
        """
        pieces = list(chunks)
        self.read(max((first + count for first, count, _ in pieces), default=0))
        for first, count, _ in self.damaged(pieces):
            where = f"rows {first} to {first + count - 1} have changed"
            raise FormatError(f"{self.path} is damaged: {where}; run: fewshot index repair {self.path.parent}")

    def damaged(self, chunks: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
        """Yield those pieces whose bytes are not the ones that were appended, or are not all there."""
        for first, count, checksum in chunks:
            if self.checksum(first, count) != checksum:
                yield first, count, checksum

    def checksum(self, first: int, count: int) -> int | None:
        """Return the CRC-32 of some rows, or None where the file is too short; reads a little at a time.

        Raises
        ------
        FormatError
            when the file may not be read, which says nothing about its content.
        """
        width = self.dim * self.item.itemsize
        crc, left = 0, count * width
        try:
            with open(self.path, "rb") as file:
                file.seek(first * width)
                while left and (data := file.read(min(left, PIECE))):
                    crc, left = zlib.crc32(data, crc), left - len(data)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FormatError(f"cannot read {self.path}: {error.strerror}") from error
        return None if left else crc


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, where the system can do that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
