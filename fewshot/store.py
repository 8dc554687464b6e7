"""The embedding store: a folder with SQLite rows, appended embeddings and a lock. It is the truth; the index is a copy.

::

    store.sqlite     files (path, content, size, time, label, reason), contents (hash -> row), chunks, meta;
                     every row with its checksum
    embeddings.f32   row i = D numbers; written and synced before the transaction that mentions it commits. The name
                     is in meta: it is embeddings.f16 for half precision, embeddings-N.f32 after a compaction
    lock             held by the one process that writes; readers need none
    index-*.faiss    what `fewshot.index` saves; may be deleted at any time
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.database import (
    UNFINISHED,
    check_store,
    connect,
    define,
    is_store,
    plain,
    plain_errors,
    read_meta,
    transaction,
)
from fewshot.entries import Entry, behind, listed, rows_of
from fewshot.errors import FingerprintMismatch, FormatError, OutputError, OutputExists, unknown
from fewshot.vectors import VectorFile
from fewshot.writer import acquire, check_vacant

if TYPE_CHECKING:
    from fewshot.encoders import Encoder

__all__ = ["Entry", "Store", "is_store"]

INDEXES = "index-*.faiss"  # what `fewshot.index_file` writes
IMPORTED = "imported"  # stands for the encoder of embeddings that came from elsewhere without its name
SUFFIX = {"float32": ".f32", "float16": ".f16"}
AMONG = "SELECT digest FROM contents WHERE digest IN (SELECT value FROM json_each(?))"


class Store:
    """Embeddings of pictures on disk. Open it with `Store.open` or `Store.create`, as a context manager."""

    def __init__(self, path: Path, database: sqlite3.Connection, meta: dict[str, Any], cleanup: ExitStack) -> None:
        self.path = path
        self.database = database
        self._asking = threading.Lock()
        self._answering: sqlite3.Connection | None = None
        self.encoder: str = meta["encoder"]  # the name that `load_encoder` takes
        self.fingerprint: str = meta["fingerprint"]
        self.dim: int = meta["dim"]
        self.dtype: str = meta.get("dtype", "float32")
        self.vectors = VectorFile(path / meta.get("vectors", "embeddings.f32"), self.dim, self.dtype)
        self._cleanup = cleanup.pop_all()  # ours from here on

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        encoder: str,
        fingerprint: str,
        dim: int,
        dtype: str = "float32",
        unfinished: bool = False,
    ) -> Store:
        """Make an empty store for the embeddings of one encoder, and open it for writing.

        With `dtype` "float16" it takes half the space; a cosine then is off by up to about 0.0005. An `unfinished` one
        nobody else opens until `finish` was called.

        Raises
        ------
        OutputExists
            when the folder holds anything already.
        OutputError
            when it cannot be made or written.
        """
        folder = Path(path)
        check_vacant(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror}; give --out another folder") from error
        with plain_errors(folder), ExitStack() as cleanup:
            cleanup.callback(acquire(folder).release)
            if is_store(folder):  # another process has made it since
                raise OutputExists(f"{folder} holds an index already")
            database = cleanup.enter_context(closing(connect(folder, write=True)))
            meta: dict[str, object] = {"encoder": encoder, "fingerprint": fingerprint, "dim": dim, "generation": 0}
            meta |= {"dtype": dtype, "vectors": "embeddings" + SUFFIX[dtype]}
            define(database, meta | {UNFINISHED: 1} if unfinished else meta)
            return cls(folder, database, meta, cleanup)

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False) -> Store:
        """Open a store; any number of processes may read while one writes.

        Raises
        ------
        FormatError
            when there is no store, or it is damaged or of a newer format.
        StoreLocked
            when `write` is asked for and another process has it.
        OutputError
            when `write` is asked for and the folder cannot be written.
        """
        folder = Path(path)
        check_store(folder)
        with plain_errors(folder), ExitStack() as cleanup:
            if write:
                cleanup.callback(acquire(folder).release)
            database = cleanup.enter_context(closing(connect(folder, write=write)))
            store = cls(folder, database, read_meta(database, folder), cleanup)
        if write:
            store.tidy()
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, sqlite3.Error):
            raise plain(error, self.path) from error

    def close(self) -> None:
        """Close the files and give up the lock."""
        self._cleanup.close()

    def check_encoder(self, encoder: Encoder) -> None:
        """Refuse an encoder whose embeddings cannot be compared with those stored.

        Raises
        ------
        FingerprintMismatch
            naming both encoders.
        """
        if encoder.fingerprint != self.fingerprint:
            raise FingerprintMismatch(
                f"index {self.path} was built by encoder {self.encoder!r} ({self.fingerprint}), "
                f"not by {encoder.name!r} ({encoder.fingerprint}); use {self.encoder} for both, or make another index"
            )

    @property
    def generation(self) -> int:
        """Number of changes committed so far."""
        return int(self.database.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()[0])

    @property
    def rows(self) -> int:
        """Number of rows of `embeddings`."""
        return int(self.database.execute("SELECT coalesce(max(row) + 1, 0) FROM contents").fetchone()[0])

    def among(self, digests: Sequence[str]) -> set[str]:
        """Return those of some content hashes whose files have been embedded; may be asked from any thread.

        On a connection of its own: SQLite may hold that of the writing thread while it waits for Python to run `seal`.
        """
        with self._asking:
            if self._answering is None:
                self._answering = self._cleanup.enter_context(closing(connect(self.path, write=False)))
            return {digest for (digest,) in self._answering.execute(AMONG, (json.dumps(digests),))}

    def embeddings(self, *, verify: bool = False) -> NDArray[np.float32]:
        """Return all rows, memory-mapped; some may belong to no file any more. `verify` checks every byte.  -> [N, D]

        Raises
        ------
        FormatError
            when the array is damaged.
        """
        try:
            if verify:
                self.vectors.verify(self.database.execute("SELECT first, count, crc FROM chunks"))
            return self.vectors.read(self.rows)
        finally:  # what looks like damage may be another's compaction
            self.check_current()

    def entries(self) -> list[Entry]:
        """Return every picture that has an embedding, sorted by path."""
        return listed(self.database)

    def entries_of(
        self, rows: Sequence[int], labels: Sequence[str] = (), globs: Sequence[str] = ()
    ) -> dict[int, list[Entry]]:
        """Return the pictures behind some rows, of the given labels and path globs if any are given."""
        self.check_current()
        return behind(self.database, rows, labels, globs)

    def mask(
        self, labels: Sequence[str] = (), globs: Sequence[str] = (), *, count: int | None = None
    ) -> NDArray[np.bool_]:
        """Tell for each row whether a file stands behind it (of the given labels and path globs, if any).  -> [N]

        With `count`, only the first so many are told of: those that a reader has, while another process adds more.

        Raises
        ------
        UnknownName
            for a label that no picture has.
        FormatError
            when the index was compacted since it was opened.
        """
        self.check_labels(labels)
        found = rows_of(self.database, labels, globs)
        self.check_current()
        allowed = np.zeros(self.rows if count is None else count, bool)
        there = range(len(allowed))  # a damaged row may even be None
        allowed[[row for row in found if row in there]] = True
        return allowed

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raise UnknownName for a label that no picture has."""
        known = self.labels() if labels else {}
        for label in labels:
            if label not in known:
                raise unknown(f"label in {self.path}:", label, [name for name in known if name])

    def labels(self) -> dict[str | None, int]:
        """Return the number of pictures of each label; None counts those without."""
        return dict(self.database.execute("SELECT label, count(*) FROM files WHERE row >= 0 GROUP BY label"))

    def skipped(self) -> list[tuple[str, str]]:
        """Return path and reason of each file that could not be read, sorted by path."""
        return list(self.database.execute("SELECT path, reason FROM files WHERE status = 'skipped' ORDER BY path"))

    def saved_index(self) -> Path | None:
        """Return the file with the index of the latest change, if one was saved."""
        return next(self.path.glob(f"index-{self.generation}-*.faiss"), None)

    def tidy(self) -> None:
        """Delete what a compaction left behind, the array it replaced or was killed over, and indexes half written.

        Also indexes of later changes than there were: an earlier database was put back, and there will be other ones.
        """
        later = {file for file in self.path.glob(INDEXES) if generation_of(file) > self.generation}
        left = {*self.path.glob("embeddings*.f*"), *self.path.glob("index-*.part")} - {self.vectors.path}
        for other in later | left:
            with suppress(OSError):  # another time
                other.unlink()

    def check_current(self) -> None:
        """Refuse to go on after another process has numbered the rows anew.

        Raises
        ------
        FormatError
            when the index was compacted or repaired since it was opened.
        """
        name = self.database.execute("SELECT value FROM meta WHERE key = 'vectors'").fetchone()
        if name is not None and name[0] != self.vectors.path.name:
            raise FormatError(f"{self.path} was compacted while it was open; open it again")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run statements as one transaction, counted in `generation` if it changes anything; an error undoes all."""
        with plain_errors(self.path), transaction(self.database):
            before = self.database.total_changes
            yield self.database
            if self.database.total_changes > before:
                self.database.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")

    def finish(self) -> None:
        """Let others open a store that was made as unfinished."""
        with self.writing() as database:
            database.execute("DELETE FROM meta WHERE key = ?", (UNFINISHED,))

    def append(self, digests: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Add embeddings `[n, D]` by content hash; call inside `writing`, so that they appear when it commits."""
        if digests:
            first = self.rows
            checksum = self.vectors.append(vectors, first)
            self.database.executemany("INSERT INTO contents (row, digest) VALUES (?, ?)", enumerate(digests, first))
            self.database.execute(
                "INSERT INTO chunks (first, count, crc) VALUES (?, ?, ?)", (first, len(digests), checksum)
            )


def generation_of(index: Path) -> int:
    """Return the number of changes that a saved index knows of, by its name."""
    number = index.stem.split("-")[1]
    return int(number) if number.isdecimal() else -1
