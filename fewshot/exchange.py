"""Carry embeddings out of a store and into one: npz, parquet, and the folders that clip-retrieval writes.

::

    FILE.npz        embeddings [n, D], paths [n], labels [n] ("" for none), digests [n], encoder, fingerprint
    FILE.parquet    columns path, label, digest, embedding (list of D float32); encoder and fingerprint in the metadata
                    (of both, all but embeddings and paths may be left out of what is imported; a digest is a checksum
                    of the picture's file, by which a build knows it again)
    DIR             clip-retrieval: img_emb/img_emb_*.npy beside metadata/metadata_*.parquet (column image_path)
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.build import refresh_index
from fewshot.errors import DataError, InvalidOption, MissingInput
from fewshot.modelfile import replacing
from fewshot.names import storable, stored_path
from fewshot.store import IMPORTED, Store
from fewshot.writer import drop_unfinished

BLOCK = 65536  # rows at a time
UNIT = 1e-6  # a length this near to 1 is 1 but for rounding
INSERT = """
INSERT OR REPLACE INTO files (path, size, mtime_ns, label, digest, status, reason, row)
WITH new(path, label, digest) AS (VALUES (?, ?, ?))
SELECT path, 0, 0, label, digest, 'ok', '', (SELECT row FROM contents WHERE contents.digest = new.digest) FROM new
"""


@dataclass(frozen=True, slots=True)
class Table:
    """Embeddings with the names of their pictures, some rows of a whole."""

    embeddings: NDArray[np.float32]  # [n, D]
    paths: list[str]
    labels: list[str | int | None]
    digests: list[str] | None = None


def export(store: Store, target: str | Path, *, overwrite: bool = False) -> int:
    """Write every picture's path, label and embedding to `target`, .npz or .parquet, and return how many.

    Raises
    ------
    InvalidOption
        for another suffix.
    OutputExists, OutputError
        when `target` is there and `overwrite` is false, or cannot be written.
    MissingInput
        for parquet without pyarrow.
    """
    file = Path(target)
    entries, digests = store.entries(), dict(store.database.execute("SELECT row, digest FROM contents"))
    rows = store.embeddings(verify=True)
    order = np.array([entry.row for entry in entries], np.int64)
    if file.suffix == ".npz":
        whole = np.asarray(rows[order], np.float32)
        paths = np.array([entry.path for entry in entries], np.str_)
        labels = np.array([entry.label or "" for entry in entries], np.str_)
        with replacing(file, overwrite) as temporary, open(temporary, "wb") as out:
            files = np.array([digests[entry.row] for entry in entries], np.str_)
            made: dict[str, Any] = {"encoder": np.array(store.encoder), "fingerprint": np.array(store.fingerprint)}
            np.savez(out, embeddings=whole, paths=paths, labels=labels, digests=files, **made)
    elif file.suffix == ".parquet":
        arrow, parquet = _arrow()
        vector = arrow.list_(arrow.float32(), store.dim)
        texts = [(name, arrow.string()) for name in ("path", "label", "digest")]
        schema = arrow.schema([*texts, ("embedding", vector)])
        schema = schema.with_metadata({"encoder": store.encoder, "fingerprint": store.fingerprint})
        with replacing(file, overwrite) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
            for start in range(0, len(entries), BLOCK):
                part = entries[start : start + BLOCK]
                flat = np.asarray(rows[order[start : start + BLOCK]], np.float32).reshape(-1)
                columns = [arrow.array([e.path for e in part]), arrow.array([e.label for e in part], arrow.string())]
                columns.append(arrow.array([digests[e.row] for e in part]))
                columns.append(arrow.FixedSizeListArray.from_arrays(arrow.array(flat), store.dim))
                writer.write_table(arrow.table(columns, schema=schema))
    else:
        raise InvalidOption(f"cannot export to {str(file)!r}; give a name that ends in .npz or .parquet")
    return len(entries)


def import_into(
    source: str | Path,
    out: str | Path,
    *,
    encoder: str = "",
    fingerprint: str = "",
    width: int | None = None,
    dtype: str = "float32",
) -> int:
    """Make the store `out` from exported embeddings or a folder of clip-retrieval, and return how many pictures.

    `encoder` names the encoder that made them where the source does not say; `fingerprint` is that encoder's, `width`
    how many dimensions it has. Rows are scaled to length 1. The pictures themselves are not looked at: an update embeds
    those it finds anew, but for files whose digest it knows. After an error there is no `out`; what a killed import has
    left takes the place of nothing, and is begun again.

    Raises
    ------
    DataError
        when the source cannot be read, or its parts do not fit each other or the encoder.
    OutputExists, OutputError
        as `Store.create` does.
    """
    file = Path(source)
    made, tables = _read(file)
    first = next(tables, None)
    if first is None or not len(first.paths):
        raise DataError(f"{file} holds no embeddings")
    name = encoder or made.get("encoder", "") or IMPORTED
    known = fingerprint or (made.get("fingerprint", "") if not encoder or encoder == made.get("encoder") else "")
    dim = _numbers(first, file).shape[1]
    if width is not None and width != dim:
        what = f"{file} holds embeddings of {dim} dimensions, encoder {name!r} makes {width}"
        raise DataError(f"{what}; name the encoder that made them, or none")
    drop_unfinished(Path(out))
    mark = known or f"{IMPORTED}-{dim}"
    store = Store.create(out, encoder=name, fingerprint=mark, dim=dim, dtype=dtype, unfinished=True)
    try:
        with store:
            begin = 0
            for table in chain([first], tables):
                _add(store, table, file, begin)
                begin += len(table.paths)
            store.finish()
            refresh_index(store)
            count = sum(store.labels().values())  # a path that is there twice counts once, with its last embedding
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # made a moment ago
        raise
    return count


def _numbers(table: Table, file: Path) -> NDArray[np.float32]:
    """Return the embeddings of a table, which may come from anywhere.  -> [n, D]"""
    x = np.asarray(table.embeddings)
    if x.ndim != 2 or not x.shape[1] or x.dtype.kind not in "fiu":
        raise DataError(f"{file}: embeddings must be numbers [n, D], got {x.dtype} of shape {list(x.shape)}")
    if not len(x) == len(table.paths) == len(table.labels) == len(table.digests or table.paths):
        raise DataError(f"{file}: {len(x)} embeddings but {len(table.paths)} paths and {len(table.labels)} labels")
    if not all(isinstance(path, str) and path for path in table.paths):
        raise DataError(f"{file}: paths must be texts, got {next(p for p in table.paths if not p or p != str(p))!r}")
    if table.digests is not None and not all(isinstance(d, str) and d for d in table.digests):
        raise DataError(f"{file}: digests must be texts")
    if odd := [label for label in table.labels if not isinstance(label, str | int | None)]:
        raise DataError(f"{file}: labels must be texts or whole numbers, got {odd[0]!r}")
    with np.errstate(over="ignore"):  # infinity is refused later
        return x.astype(np.float32)


def _add(store: Store, table: Table, file: Path, begin: int) -> None:
    x = _numbers(table, file)
    if x.shape[1] != store.dim:
        raise DataError(f"{file}: embeddings of shape {list(x.shape)} do not fit {store.dim} dimensions")
    if not np.isfinite(x).all():
        at = int(np.argmin(np.isfinite(x).all(1)))
        raise DataError(f"{file}: row {begin + at} holds NaN or infinity, that of {table.paths[at]}")
    norms = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))  # whose squares float32 may not hold
    norms[(norms == 0) | (np.abs(norms - 1) < UNIT)] = 1  # what was exported comes back bit for bit
    x = (x / norms[:, None]).astype(np.float32)
    digests = table.digests or [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in x]
    known = store.among(digests)
    fresh = {digest: at for at, digest in reversed(list(enumerate(digests))) if digest not in known}
    paths = [stored_path(path) for path in table.paths]
    labels = [None if label is None else storable(str(label)) or None for label in table.labels]
    with store.writing() as database:
        store.append(list(fresh), x[list(fresh.values())])
        database.executemany(INSERT, zip(paths, labels, digests, strict=True))


def _read(file: Path) -> tuple[dict[str, str], Iterator[Table]]:
    if file.is_dir():
        return {}, _read_clip_retrieval(file)
    if file.suffix == ".npz":
        return _read_npz(file)
    if file.suffix == ".parquet":
        return _read_parquet(file)
    raise DataError(f"cannot import {str(file)!r}; give an .npz, a .parquet, or a folder that clip-retrieval wrote")


def _read_npz(file: Path) -> tuple[dict[str, str], Iterator[Table]]:
    from fewshot.arrays import read_arrays

    try:
        found: dict[str, NDArray[Any]] = dict(read_arrays(file))
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"cannot read {file}: {' '.join(str(error).split())}") from error
    missing = [name for name in ("embeddings", "paths") if name not in found]
    if missing:
        raise DataError(f"{file} lacks {' and '.join(missing)}; it has: {', '.join(found) or 'nothing'}")
    paths = np.atleast_1d(found["paths"]).tolist()
    labels = np.atleast_1d(found["labels"]).tolist() if "labels" in found else [None] * len(paths)
    digests = np.atleast_1d(found["digests"]).tolist() if "digests" in found else None
    table = Table(found["embeddings"], paths, labels, digests)
    return {key: str(found[key]) for key in ("encoder", "fingerprint") if key in found}, iter([table])


def _read_parquet(file: Path) -> tuple[dict[str, str], Iterator[Table]]:
    arrow, parquet = _arrow()
    try:
        opened = parquet.ParquetFile(file)
        noted = {key.decode(): value.decode() for key, value in (opened.schema_arrow.metadata or {}).items()}
        opened.schema_arrow.field("embedding"), opened.schema_arrow.field("path")
    except (OSError, KeyError, UnicodeError, arrow.ArrowException) as error:
        raise DataError(f"cannot read {file}: {' '.join(str(error).split())}") from error
    return noted, _batches(opened, file)


def _batches(opened: Any, file: Path) -> Iterator[Table]:
    try:
        yield from (_table(batch, file) for batch in opened.iter_batches(BLOCK))
    except (OSError, KeyError, UnicodeError, _arrow()[0].ArrowException) as error:
        raise DataError(f"cannot read {file}: {' '.join(str(error).split())}") from error


def _table(batch: Any, file: Path) -> Table:
    """Read a piece of a parquet file; its embeddings are lists of one length."""
    paths = batch.column("path").to_pylist()
    labels = batch.column("label").to_pylist() if "label" in batch.schema.names else [None] * len(paths)
    digests = batch.column("digest").to_pylist() if "digest" in batch.schema.names else None
    column = batch.column("embedding")
    try:
        lengths = _arrow()[0].compute.list_value_length(column).unique().to_pylist()
    except NotImplementedError:  # what Arrow says of a column without lists
        lengths = [None]
    if None in lengths or len(lengths) > 1:
        raise DataError(f"{file}: column embedding must hold lists of one length, got {column.type}: {lengths[:3]}")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return Table(flat.reshape(len(paths), -1) if paths else flat.reshape(0, 1), paths, labels, digests)


def _read_clip_retrieval(folder: Path) -> Iterator[Table]:
    arrays = sorted((folder / "img_emb").glob("img_emb_*.npy"), key=_number)
    if not arrays:
        raise DataError(f"{folder} holds no img_emb/img_emb_*.npy; give a folder that clip-retrieval wrote")
    numbers = {array.stem.rsplit("_", 1)[1] for array in arrays}
    for notes in sorted((folder / "metadata").glob("metadata_*.parquet"), key=_number):
        if (number := notes.stem.rsplit("_", 1)[1]) not in numbers:
            raise DataError(f"{folder} lacks img_emb/img_emb_{number}.npy, whose pictures {notes} lists")
    _, parquet = _arrow()
    for array in arrays:
        notes = folder / "metadata" / f"metadata_{array.stem.rsplit('_', 1)[1]}.parquet"
        try:
            embeddings = np.atleast_1d(np.load(array, mmap_mode="r", allow_pickle=False))
            paths = parquet.read_table(notes, columns=["image_path"]).column("image_path").to_pylist()
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"cannot read {array.name} and its {notes}: {' '.join(str(error).split())}") from error
        if len(paths) != len(embeddings):
            raise DataError(f"{array} holds {len(embeddings)} embeddings but {notes} {len(paths)} paths")
        for start in range(0, len(paths), BLOCK):
            part = paths[start : start + BLOCK]
            yield Table(embeddings[start : start + BLOCK], part, [None] * len(part))


def _number(file: Path) -> tuple[int, str]:
    tail = file.stem.rsplit("_", 1)[1]
    return (int(tail) if tail.isdecimal() else -1), tail


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.compute
        from pyarrow import parquet
    except ImportError as error:
        raise MissingInput("parquet needs pyarrow; run: pip install 'fewshot[parquet]'") from error
    return pyarrow, parquet
