"""Embed on a Ray cluster: workers write shards beside the store, which are merged into it one by one.

The pictures, and the folder of the index, must be reachable under the same paths on every machine. A shard is complete
or not there; its name is a hash of the files it holds, so that a worker which takes over from a lost one writes the
same. Shards that a stopped run left behind are merged by the next, without the files that have changed since.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fewshot.build import INSERT, Counts
from fewshot.errors import DataError, InvalidOption, MissingInput
from fewshot.progress import Progress
from fewshot.ray_worker import Worker
from fewshot.store import Store

if TYPE_CHECKING:
    from fewshot.encoders import Encoder

SHARD = 256  # files a shard, at most
PAGE = 400  # shards handed to the cluster at a time
SHARDS = "shards"  # folder in the store's
# without those that shards of a stopped run have brought meanwhile
NEXT_PAGE = """
SELECT number, path, size, mtime_ns FROM todo WHERE number > ? AND NOT EXISTS (
    SELECT 1 FROM files WHERE files.path = todo.path
    AND files.digest != '' AND files.size = todo.size AND files.mtime_ns = todo.mtime_ns)
ORDER BY number LIMIT ?
"""
# that is still there as it was embedded, and was not merged before
FOUND = """
SELECT label FROM seen WHERE path = ? AND size = ? AND mtime_ns = ? AND NOT EXISTS (
    SELECT 1 FROM files WHERE files.path = seen.path
    AND files.digest != '' AND files.size = seen.size AND files.mtime_ns = seen.mtime_ns)
"""
FAILED = "the Ray cluster could not do the work"
FIRST_ANSWER = 10.0  # seconds to wait for a cluster; Ray itself waits for minutes


class RayEngine:
    """Embeds what an update has to do, as a `fewshot.build.Engine`, on the cluster at `address` or a new local one.

    Raises
    ------
    InvalidOption
        for another device than auto, cpu or cuda: which GPU a worker has, Ray decides.
    """

    def __init__(self, address: str | None = None, *, device: str = "auto", workers: int | None = None) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise InvalidOption(f"a Ray cluster cannot use device {device!r}; use auto, cpu or cuda")
        self.address = address
        self.device = device
        self.workers = workers

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Be connected to the cluster, unless this process is already; what Ray has to say goes to stderr.

        Raises
        ------
        MissingInput
            when Ray is not installed.
        DataError
            when no cluster answers at the address, or it lacks the GPUs that were asked for.
        """
        check(self.address)
        import ray

        ours = not ray.is_initialized()
        with redirect_stdout(sys.stderr):
            try:
                _connect(ray, self.address)
                if self.device == "cuda" and not ray.cluster_resources().get("GPU"):
                    raise DataError("the Ray cluster has no GPU; use --device cpu or auto")
                yield ray
            finally:
                if ours:
                    ray.shutdown()

    def __call__(self, store: Store, encoder: Encoder, counts: Counts, batch: int | None, total: int | None) -> None:
        """Embed the files listed in the table `todo`, committing each shard.

        Raises
        ------
        MissingInput, DataError
            as `connected` does, and the latter when the cluster cannot do the work.
        """
        folder = (store.path / SHARDS).absolute()
        folder.mkdir(exist_ok=True)
        merged = sum(sum(_merge(store, file, counts)) for file in sorted(folder.glob("*.npz")))
        with self.connected() as ray:
            self._embed(ray, store, encoder, counts, batch, None if total is None else total - merged)
        for left in folder.iterdir():  # by workers that were lost while they wrote
            left.unlink(missing_ok=True)

    def _embed(
        self, ray: Any, store: Store, encoder: Encoder, counts: Counts, batch: int | None, total: int | None
    ) -> None:
        folder = (store.path / SHARDS).absolute()
        gpus = 0 if self.device == "cpu" else ray.cluster_resources().get("GPU", 0)
        workers = self.workers or max(int(gpus or ray.cluster_resources().get("CPU", 1)), 1)
        if total is not None:
            workers = min(workers, max(-(-total // SHARD), 1))  # that there is work for
        made = {"name": encoder.name, "fingerprint": encoder.fingerprint, "folder": str(folder), "batch": batch}
        made |= {"device": "cuda" if gpus else "cpu", "home": os.getcwd()}
        with Progress(total, f"{workers} Ray workers", show=total is not None) as meter:
            for page in _pages(store):
                shards = ray.data.from_items(page, override_num_blocks=len(page)).map_batches(
                    Worker,
                    fn_constructor_kwargs=made,
                    batch_size=1,
                    concurrency=min(workers, len(page)),
                    num_gpus=1 if gpus else 0,
                )
                for name in _names(shards):
                    done = _merge(store, folder / name, counts)
                    if not any(done):
                        what = f"a Ray worker has written {name}, which is damaged or not in {folder} here"
                        raise DataError(f"{what}; that folder must be the same for all machines of the cluster")
                    meter.advance(*done)


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


def _pages(store: Store) -> Iterator[list[dict[str, str]]]:
    """Yield the files to do, those of a shard together, so many at a time that a list of them is no burden."""
    last = 0
    while files := store.database.execute(NEXT_PAGE, (last, PAGE * SHARD)).fetchall():
        last = files[-1][0]
        yield [
            {"files": json.dumps([row[1:] for row in part])}
            for part in (files[at : at + SHARD] for at in range(0, len(files), SHARD))
        ]


def _connect(ray: Any, address: str | None) -> None:
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if not ray.is_initialized():
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _nobody(address, error) from error
    ray.data.DataContext.get_current().enable_progress_bars = False


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


def _names(shards: Any) -> Iterator[str]:
    from ray.exceptions import RayError

    try:
        for row in shards.iter_rows():
            if row["failure"]:
                raise DataError(f"{FAILED}, {row['failure']}; what was merged is kept")
            yield row["shard"]
    except RayError as error:
        lines = str(error).split("\n")
        if any(line.startswith("  File ") for line in lines):  # a traceback, which ends in what it is about
            lines = [line for line in lines if line.strip()][-1:]
        raise DataError(f"{FAILED}: {' '.join(' '.join(lines).split())[:300]}; what was merged is kept") from error
