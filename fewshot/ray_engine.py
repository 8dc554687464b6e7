"""Embed on a Ray cluster: workers write shards beside the store, which are merged into it one by one.

The pictures, and the folder of the index, must be reachable under the same paths on every machine. A shard is complete
or not there; its name is a hash of the files it holds, so that a worker which takes over from a lost one writes the
same. Shards that a stopped run left behind are merged by the next, without the files that have changed since.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewshot.build import INSERT, Counts
from fewshot.errors import DataError, FewshotError, FingerprintMismatch, MissingInput
from fewshot.progress import Progress
from fewshot.store import Store

if TYPE_CHECKING:
    from fewshot.encoders import Encoder

PAGE = 100_000  # files handed to the cluster at a time
SHARD = 256  # files a shard
SHARDS = "shards"  # folder in the store's
# without those that shards of a stopped run have brought meanwhile
NEXT_PAGE = """
SELECT number, path, size, mtime_ns FROM todo WHERE number > ? AND NOT EXISTS (
    SELECT 1 FROM files WHERE files.path = todo.path
    AND files.digest != '' AND files.size = todo.size AND files.mtime_ns = todo.mtime_ns)
ORDER BY number LIMIT ?
"""
FOUND = "SELECT label FROM seen WHERE path = ? AND size = ? AND mtime_ns = ?"
FIRST_ANSWER = 10.0  # seconds to wait for a cluster; Ray itself waits for minutes


class RayEngine:
    """Embeds what an update has to do, as a `fewshot.build.Engine`, on the cluster at `address` or a new local one."""

    def __init__(self, address: str | None = None, *, device: str = "auto", workers: int | None = None) -> None:
        self.address = address
        self.device = device
        self.workers = workers

    def __call__(self, store: Store, encoder: Encoder, counts: Counts, batch: int | None, total: int | None) -> None:
        """Embed the files listed in the table `todo`, committing each shard.

        Raises
        ------
        MissingInput
            when Ray is not installed.
        DataError
            when no cluster answers at the address, or it cannot do the work.
        """
        folder = (store.path / SHARDS).absolute()
        folder.mkdir(exist_ok=True)
        for file in sorted(folder.glob("*.npz")):
            _merge(store, file, counts)
        ray = _connect(self.address)
        gpus = ray.cluster_resources().get("GPU", 0) if self.device in ("auto", "cuda") else 0
        workers = self.workers or max(int(gpus or ray.cluster_resources().get("CPU", 1)), 1)
        made = {"name": encoder.name, "fingerprint": encoder.fingerprint, "folder": str(folder), "batch": batch}
        made["device"] = "cuda" if gpus else "cpu"
        noise = redirect_stdout(sys.stderr)  # Ray tells there of nodes that it has lost
        with noise, Progress(total, f"{workers} Ray workers", show=total is not None) as meter:
            for files in _pages(store):
                blocks = max(len(files) // SHARD, 1)
                data = ray.data.from_items(files, override_num_blocks=blocks)
                shards = data.map_batches(
                    Worker,
                    fn_constructor_kwargs=made,
                    batch_size=SHARD,
                    concurrency=min(workers, blocks),
                    num_gpus=1 if gpus else 0,
                )
                for row in _rows(shards):
                    if row["refusal"]:
                        raise DataError(f"a worker cannot embed on {row['refusal']}; what was merged is kept")
                    meter.advance(*_merge(store, folder / row["shard"], counts))
        for left in folder.iterdir():  # by workers that were lost while they wrote
            left.unlink(missing_ok=True)


class Worker:
    """Lives on a machine of the cluster with an encoder of its own, and turns files into shards.

    What it cannot do it tells in a row, since of an error Ray would print all that it went through, and try again.
    """

    def __init__(self, name: str, fingerprint: str, folder: str, batch: int | None, device: str) -> None:
        from fewshot.encoders import load_encoder

        self.folder = Path(folder)
        self.batch = batch
        self.refusal = ""
        try:
            self.encoder = load_encoder(name, device)
            if self.encoder.fingerprint != fingerprint:
                raise FingerprintMismatch(
                    f"{name} is {self.encoder.fingerprint}, but {fingerprint} where the build was started; "
                    "use the same versions"
                )
        except FewshotError as error:
            self.refusal = str(error)

    def __call__(self, files: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.str_]]:
        """Embed files and return the name of the one shard that holds them, or why there is none.

        {"path": [n], "size": [n], "mtime_ns": [n]} -> {"shard": [1], "refusal": [1]}
        """
        found = [*zip(*(files[key].tolist() for key in ("path", "size", "mtime_ns")), strict=True)]
        name = hashlib.blake2b(json.dumps(found).encode(), digest_size=16).hexdigest() + ".npz"
        refusal = self.refusal or self._embed(self.folder / name, found)
        told = f"{os.uname().nodename}: {refusal}" if refusal else ""
        return {"shard": np.array([name]), "refusal": np.array([told])}

    def _embed(self, target: Path, files: list[tuple[str, int, int]]) -> str:
        """Write a shard unless it is there, and return what prevents it."""
        if target.is_file():
            return ""
        if not any(os.path.exists(path) for path, *_ in files):
            return f"{files[0][0]} is not there, nor is any other of {len(files)}; every machine must have the pictures"
        try:
            _write(target, self.encoder, files, self.batch)
        except (FewshotError, OSError) as error:
            return str(error)
        return ""


def _write(target: Path, encoder: Encoder, files: list[tuple[str, int, int]], batch: int | None) -> None:
    from fewshot.arrays import to_numpy
    from fewshot.embedding import stream

    vectors, digests, listed = [np.zeros((0, encoder.dim), np.float32)], [], []
    known: set[str] = set()
    paths = [path for path, *_ in files]
    for part in stream(encoder, paths, batch=batch, known=known.intersection, total=len(paths)):
        vectors.append(to_numpy(part.embeddings))
        digests += part.digests
        known.update(part.digests)
        listed += [(*files[at], digest, "") for at, digest in zip(part.kept, part.digests, strict=True)]
        listed += [(*files[at], digest, "") for at, digest in part.known]
        listed += [(*files[skip.position], skip.digest, skip.reason) for skip in part.skipped]
    temporary = target.with_suffix(f".{os.uname().nodename}.{os.getpid()}")
    with open(temporary, "wb") as file:
        about = json.dumps({"fingerprint": encoder.fingerprint, "digests": digests, "files": listed})
        np.savez(file, vectors=np.concatenate(vectors), about=about)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)


def _merge(store: Store, file: Path, counts: Counts) -> tuple[int, int, int]:
    """Add a shard to the store in one transaction and delete it; return embedded, skipped and known files.

    A shard that is damaged, or was made by another encoder, is deleted unread; files of it that have gone or changed
    are left out. What is lost so stays to be done.
    """
    from fewshot.arrays import read_arrays

    try:
        found = read_arrays(file)
        vectors, about = np.asarray(found["vectors"], np.float32), json.loads(str(found["about"]))
        if about["fingerprint"] != store.fingerprint:
            raise ValueError("a shard of another encoder")
    except (OSError, ValueError, KeyError, TypeError):
        file.unlink(missing_ok=True)
        return 0, 0, 0
    rows = []
    for path, size, mtime_ns, digest, reason in about["files"]:
        label = store.database.execute(FOUND, (path, size, mtime_ns)).fetchone()
        if label is not None:
            rows.append((path, size, mtime_ns, *label, digest, "skipped" if reason else "ok", reason))
    skipped = sum(bool(row[-1]) for row in rows)
    wanted = {row[4] for row in rows if not row[-1]}
    wanted -= store.among(list(wanted))
    fresh = {digest: at for at, digest in enumerate(about["digests"]) if digest in wanted}
    with store.writing() as database:
        store.append([*fresh], vectors[[*fresh.values()]])
        database.executemany(INSERT, rows)
    file.unlink(missing_ok=True)
    known = len(rows) - skipped - len(fresh)
    counts.embedded += len(fresh)
    counts.copies += known
    return len(fresh), skipped, known


def _pages(store: Store) -> Iterator[list[dict[str, str | int]]]:
    """Yield the files to do, so many at a time that a list of them is no burden."""
    last = 0
    while page := store.database.execute(NEXT_PAGE, (last, PAGE)).fetchall():
        last = page[-1][0]
        yield [{"path": path, "size": size, "mtime_ns": mtime_ns} for _, path, size, mtime_ns in page]


def _connect(address: str | None) -> Any:
    check(address)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is raised as well
    import ray

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised as well
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _nobody(address, error) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def check(address: str | None) -> None:
    """Look whether there is Ray and somebody listens at HOST:PORT; other addresses are for Ray to judge, later.

    Raises
    ------
    MissingInput
        when Ray is not installed.
    DataError
        when nobody listens.
    """
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise MissingInput("engine 'ray' needs Ray; run: pip install 'fewshot[ray]'") from error
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), FIRST_ANSWER).close()
        except (OSError, OverflowError) as error:
            raise _nobody(address, error) from error


def _nobody(address: str | None, error: Exception) -> DataError:
    what = " ".join(str(error).split())
    return DataError(f"no Ray cluster answers at {address or 'this machine'}: {what}"[:300])


def _rows(shards: Any) -> Iterator[dict[str, str]]:
    from ray.exceptions import RayError

    try:
        yield from shards.iter_rows()
    except RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        what = " ... ".join(dict.fromkeys((lines[0].strip()[:150], lines[-1].strip()[:200])))  # the cause is the last
        raise DataError(f"the Ray cluster could not do the work: {what}; what was merged is kept") from error
