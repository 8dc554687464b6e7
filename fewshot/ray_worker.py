"""What runs on the machines of a Ray cluster: workers with an encoder each, which turn files into shards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import DataError, FewshotError, FingerprintMismatch

if TYPE_CHECKING:
    from fewshot.encoders import Encoder

ATTEMPTS = 5  # to make a shard; what ends so many workers would end every other


class Worker:
    """Lives on a machine of the cluster with an encoder of its own, and turns files into shards.

    `home` is the folder where the build was started, from which a relative path in the encoder's name leads on. What
    goes wrong is told, not raised: Ray would bury it in its own words, or try again for ever.
    """

    def __init__(
        self, name: str, fingerprint: str, folder: str, batch: int | None, device: str, home: str | None = None
    ) -> None:
        from fewshot.encoders import load_encoder

        self.folder = Path(folder)
        self.batch = batch
        self.failure = ""
        try:
            with chdir(home) if home and os.path.isdir(home) else nullcontext():
                self.encoder = load_encoder(name, device)
            if self.encoder.fingerprint != fingerprint:
                there = f"and {fingerprint} where the build was started; use the same versions"
                raise FingerprintMismatch(f"{name} is {self.encoder.fingerprint} here, {there}")
        except FewshotError as error:
            self.failure = str(error)

    def __call__(self, wanted: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.str_]]:
        """Embed files, JSON of [path, size, mtime_ns] each, and return the name of their shard, or what is wrong.

        {"files": [1]} -> {"shard": [1], "failure": [1]}
        """
        (files,) = map(str, wanted["files"])
        found = [(path, size, mtime_ns) for path, size, mtime_ns in json.loads(files)]
        name = hashlib.blake2b(files.encode(), digest_size=16).hexdigest() + ".npz"
        failure = self.failure
        try:
            if not failure and not (self.folder / name).is_file():
                if not any(os.path.exists(path) for path, *_ in found):  # a folder is at fault, not a picture
                    what = f"{found[0][0]} is not there, nor is any other of {len(found)} files"
                    raise DataError(f"{what}; every machine must have the pictures under the same paths")
                with _attempt(self.folder / f"{name}.attempts", found):
                    _write(self.folder / name, self.encoder, found, self.batch)
        except (FewshotError, OSError) as error:
            failure = str(error)
        return {"shard": np.array([name]), "failure": np.array([failure and f"on {os.uname().nodename}: {failure}"])}


@contextmanager
def _attempt(record: Path, files: list[tuple[str, int, int]]) -> Iterator[None]:
    """Count in a file how often a shard was begun, and give up where it ended every worker: Ray never would."""
    with open(record, "ab") as file:
        file.write(b".")
        number = file.tell()
    try:
        if number > ATTEMPTS:
            what = f"{ATTEMPTS} workers ended, for want of memory perhaps, over the {len(files)} files from"
            raise DataError(f"{what} {files[0][0]} to {files[-1][0]}")
        yield
    finally:
        record.unlink(missing_ok=True)


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
