"""Bring a store up to date with files and folders: embed what is new, keep what has not changed, drop what is gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot.database import is_store, transaction
from fewshot.errors import DataError, MissingInput
from fewshot.names import storable
from fewshot.progress import Progress
from fewshot.removal import drop_gone
from fewshot.store import Store
from fewshot.walk import Found, walk
from fewshot.writer import check_vacant

if TYPE_CHECKING:
    from fewshot.encoders import Encoder
    from fewshot.index_plan import Wanted

PAGE = 1000  # files fetched from the list of work at a time

TABLES = """
CREATE TEMP TABLE seen (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, label TEXT) WITHOUT ROWID;
CREATE TEMP TABLE todo (number INTEGER PRIMARY KEY, path TEXT, size INTEGER, mtime_ns INTEGER, label TEXT);
"""
# A file without a content hash could not be read the last time, for want of a permission perhaps: it is tried again.
FILL_TODO = """
INSERT INTO todo (path, size, mtime_ns, label)
SELECT path, seen.size, seen.mtime_ns, seen.label FROM seen LEFT JOIN files USING (path)
WHERE files.path IS NULL OR files.digest = '' OR files.size != seen.size OR files.mtime_ns != seen.mtime_ns
ORDER BY path
"""
NEXT_PAGE = "SELECT path, size, mtime_ns, label FROM todo WHERE number > ? ORDER BY number LIMIT ?"
RELABEL = """
UPDATE files SET label = seen.label FROM seen
WHERE files.path = seen.path AND seen.label IS NOT NULL AND files.label IS NOT seen.label RETURNING status
"""
INSERT = """
INSERT OR REPLACE INTO files (path, size, mtime_ns, label, digest, status, reason, row)
WITH new(path, size, mtime_ns, label, digest, status, reason) AS (VALUES (?, ?, ?, ?, ?, ?, ?))
SELECT path, size, mtime_ns, coalesce(label, (SELECT label FROM files WHERE files.path = new.path)),
    digest, status, reason, (SELECT row FROM contents WHERE contents.digest = new.digest) FROM new
"""
COUNT_SKIPPED = "SELECT count(*) FROM seen JOIN files USING (path) WHERE status = 'skipped'"


@dataclass(slots=True)
class Counts:
    """What an update did with the files it was given."""

    embedded: int = 0
    copies: int = 0  # listed without embedding, since their content is in the store already
    unchanged: int = 0
    skipped: int = 0  # cannot be read, now or when they were last tried
    gone: int = 0  # dropped, because the file is not there any more
    unseen: int = 0  # kept: not one picture is left in the folder that was given, which may not be mounted
    relabelled: int = 0  # of those that were in the index already

    def __str__(self) -> str:
        """`3 embedded, 1234 unchanged`, and whatever else is not zero."""
        parts = [f"{self.embedded} embedded", f"{self.unchanged} unchanged"]
        parts += [f"{self.copies} with content already embedded"] * bool(self.copies)
        parts += [f"{self.relabelled} relabelled"] * bool(self.relabelled) + [f"{self.gone} gone"] * bool(self.gone)
        parts += [f"{self.skipped} skipped"] * bool(self.skipped)
        parts += [f"{self.unseen} kept of a folder or link that leads to no picture now"] * bool(self.unseen)
        return ", ".join(parts)


# embeds the files in the table `todo`: store, encoder, counts to add to, batch, how many if progress is to be shown
Engine = Callable[["Store", "Encoder", Counts, int | None, int | None], None]


def check_sources(roots: Sequence[str | Path]) -> None:
    """Make sure that there is something to index, before anything is loaded or written.

    Raises
    ------
    DataError
        when a path is missing or no picture is found under any.
    """
    walks = [walk(root) for root in roots]  # each root is looked at, so that a misspelt one does not hide
    if [first for first in (next(files, None) for files in walks) if first] == []:
        names = ", ".join(map(str, roots))
        raise DataError(f"no images found in {names}; give folders that hold .jpg, .png, .webp ... files")


def build_index(
    roots: Sequence[str | Path],
    out: str | Path,
    *,
    encoder: str | None = None,
    device: str = "auto",
    batch: int | None = None,
    dtype: str = "float32",
    engine: Engine | None = None,
    progress: bool = False,
    wanted: Wanted | None = None,
) -> Counts:
    """Make the index `out` from the pictures under `roots`, or bring it up to date if it is there.

    `encoder` defaults to the one the index was built with, and to `lite` for a new index; `wanted` to the kind of index
    asked for before, or `auto`. A new index keeps its embeddings as `dtype`, "float32" or "float16". See `update`.

    Raises
    ------
    OutputExists
        when `out` is a file, or a folder that holds something else.
    InvalidOption
        when FAISS rejects the factory string of `wanted`.
    """
    check_sources(roots)
    if is_store(Path(out)):
        with Store.open(out, write=True) as store:
            _note(store, wanted)
            other = _load(encoder, device) if encoder and encoder != store.encoder else None
            return update(store, roots, encoder=other, device=device, batch=batch, engine=engine, progress=progress)
    check_vacant(Path(out))
    model = _load(encoder or "lite", device)
    if "image" not in model.modalities:
        raise MissingInput(f"encoder {model.name!r} takes no images; use one that does, e.g. lite")
    if wanted is not None:
        from fewshot.index_plan import check_kind

        check_kind(wanted, model.dim)
    with Store.create(out, encoder=model.name, fingerprint=model.fingerprint, dim=model.dim, dtype=dtype) as store:
        _note(store, wanted)
        return update(store, roots, encoder=model, batch=batch, engine=engine, progress=progress)


def update(
    store: Store,
    roots: Sequence[str | Path],
    *,
    encoder: Encoder | None = None,
    device: str = "auto",
    label: str | None = None,
    batch: int | None = None,
    engine: Engine | None = None,
    progress: bool = False,
) -> Counts:
    """Embed the pictures under `roots` that are new or have changed, and drop those beneath `roots` that are gone.

    A picture's label is `label`, or else the folder directly beneath the root that it lies in, or else what it was.
    Beneath a root in which there is no picture left nothing is dropped, nor behind a link to nowhere. Each batch is
    committed on its own: after an interruption the next update goes on from there. Without an `encoder` the one that
    built the store is loaded, on `device` or all GPUs, if there is anything to embed; `engine` embeds in place of this
    process. The FAISS index is saved anew if anything changed.

    Raises
    ------
    DataError
        when a root is missing or there is no picture.
    FingerprintMismatch
        when the store was built by another encoder.
    """
    check_sources(roots)
    if encoder is not None:
        store.check_encoder(encoder)  # also when there is nothing to embed
    tops = [os.path.abspath(root) for root in roots]
    counts = Counts()
    with _list_files(store, tops, label) as (seen, todo):
        counts.gone, counts.unseen = drop_gone(store, tops)
        with store.writing() as database:
            counts.relabelled = sum(status == "ok" for (status,) in database.execute(RELABEL))
        if todo:
            model = encoder or _load(store.encoder, device)
            store.check_encoder(model)
            (engine or embed_here)(store, model, counts, batch, todo if progress else None)
        counts.skipped = store.database.execute(COUNT_SKIPPED).fetchone()[0]
        counts.unchanged = seen - counts.embedded - counts.copies - counts.skipped
    refresh_index(store)
    return counts


def refresh_index(store: Store) -> None:
    """Bring the saved index of a store up to date unless it is of the latest change."""
    if store.saved_index() is None:
        from fewshot.kept_index import update_index

        update_index(store)


def _note(store: Store, wanted: Wanted | None) -> None:
    if wanted is not None:
        from fewshot.index_plan import want

        want(store, wanted)


def _load(name: str, device: str) -> Encoder:
    from fewshot.encoders.spread import load_on_all

    return load_on_all(name, device)


def embed_here(store: Store, encoder: Encoder, counts: Counts, batch: int | None, total: int | None) -> None:
    """Embed the files to do, committing each batch; show progress if their `total` is given. An `Engine`."""
    from fewshot.arrays import to_numpy
    from fewshot.embedding import stream

    waiting: dict[int, tuple[str, int, int, str | None]] = {}  # by position: only those under way are in memory

    def paths() -> Iterator[str]:
        position = 0
        while page := store.database.execute(NEXT_PAGE, (position, PAGE)).fetchall():
            for row in page:
                waiting[position] = row
                position += 1
                yield row[0]

    (count,) = store.database.execute("SELECT count(*) FROM todo").fetchone()
    with Progress(total, str(encoder.device), show=total is not None) as meter:
        for part in stream(encoder, paths(), batch=batch, known=store.among, total=count):
            done = [*zip(part.kept, part.digests, strict=True), *part.known]
            rows = [(*waiting.pop(position), digest, "ok", "") for position, digest in done]
            rows += [(*waiting.pop(skip.position), skip.digest, "skipped", skip.reason) for skip in part.skipped]
            with store.writing() as database:
                store.append(part.digests, to_numpy(part.embeddings))
                database.executemany(INSERT, rows)
            counts.embedded += len(part.kept)
            counts.copies += len(part.known)
            meter.advance(len(part.kept), len(part.skipped), len(part.known))


@contextmanager
def _list_files(store: Store, tops: Sequence[str], label: str | None) -> Iterator[tuple[int, int]]:
    """Hold the files that are there, and those of them to embed, in temporary tables; yield how many each."""
    database = store.database
    with transaction(database):
        for statement in filter(str.strip, TABLES.split(";")):
            database.execute(statement)
        files = chain.from_iterable(walk(top) for top in tops)
        seen = database.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?)", (_row(f, label) for f in files))
        todo = database.execute(FILL_TODO)
    try:
        yield seen.rowcount, todo.rowcount
    finally:
        database.execute("DROP TABLE seen")
        database.execute("DROP TABLE todo")


def _row(file: Found, label: str | None) -> tuple[str, int, int, str | None]:
    # A name that is not Unicode cannot be stored; with escapes it will be listed as one that cannot be read.
    return storable(file.path), file.size, file.mtime_ns, storable(label or file.label or "") or None
