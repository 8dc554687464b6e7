"""Pictures read, decoded and prepared ahead of the encoder, by threads or, for a GPU, by processes; memory is bounded.

Threads of one Python process share a lock that decoding holds about half of the time: beyond two of them little is
gained. That is enough beside a network that runs on the CPU, and starves a GPU. Until the first process is ready,
which takes some seconds, threads read there as well, a few pictures at a time, so that they soon hand over.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fewshot.blame import blamed
from fewshot.datasets import ImageSource
from fewshot.decoders import Decoders
from fewshot.encoders import Encoder
from fewshot.errors import ImageError
from fewshot.images import content_hash, memory_kept, read_file
from fewshot.turns import by_turns

MANY = 256  # pictures that pay for starting processes, even where they turn out not to be needed
CORES = 4  # fewer do not
CHUNK = 16  # pictures that a process is given at a time
FEW = 4  # pictures that a thread takes while no process is ready
Job = TypeVar("Job")
Done = TypeVar("Done")
Known = Callable[[Sequence[str]], Collection[str]]  # tells those of some content hashes that need no embedding
Chunk = list[tuple[int, ImageSource]]  # positions and sources
Told = list[tuple[str, str]]


class Loaded(NamedTuple):
    """A picture as the encoder takes it, or why there is none; without either its content is known already."""

    position: int
    source: ImageSource
    digest: str  # content hash of a file, when asked for
    pixels: Tensor | None
    reason: str


def load_ahead(
    encoder: Encoder,
    sources: Iterable[ImageSource],
    known: Known | None,
    workers: int | None,
    ahead: int,
    total: int | None = None,
) -> Iterator[Loaded]:
    """Yield prepared pictures in the order of the sources, at most `ahead` of them waiting, and a few a worker.

    Files are hashed if `known` is given, and threads do not decode what it knows. Where the encoder is on a GPU and
    there are cores enough, processes read, unless there are but few pictures in `total`.
    """
    jobs: Iterator[tuple[int, ImageSource]] = enumerate(sources)
    count = workers or cores()
    if encoder.device.type == "cuda" and count >= CORES and (total is None or total >= MANY):
        yield from _in_processes(encoder, jobs, known, count, -(-ahead // CHUNK))
    else:
        yield from _in_threads(partial(load, encoder, known=known), jobs, count, ahead)


def _in_processes(
    encoder: Encoder, jobs: Iterator[tuple[int, ImageSource]], known: Known | None, count: int, ahead: int
) -> Iterator[Loaded]:
    with Decoders(load_chunk if known is None else load_hashed, encoder, count) as decoders:

        def read(chunk: Chunk) -> tuple[Chunk, Told, Tensor, Collection[str]]:
            told, pixels = decoders.do(chunk)
            return chunk, told, pixels, () if known is None else known([digest for digest, _ in told])

        for chunk, told, pixels, there in _in_threads(read, _chunks(jobs, decoders), count, ahead):
            decoded = iter(pixels)
            for (position, source), (digest, reason) in zip(chunk, told, strict=True):
                picture = None if reason else next(decoded)
                yield Loaded(position, source, digest, None if digest in there else picture, reason)


def _in_threads(work: Callable[[Job], Done], jobs: Iterable[Job], workers: int, ahead: int) -> Iterator[Done]:
    """Do the jobs in threads, and yield what comes of each in their order, `ahead` and a few a worker being done."""
    queue: deque[Future[Done]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    with memory_kept(workers):
        try:
            for job in jobs:
                queue.append(pool.submit(work, job))
                if len(queue) >= ahead + workers:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _chunks(jobs: Iterator[tuple[int, ImageSource]], decoders: Decoders) -> Iterator[Chunk]:
    while chunk := [*islice(jobs, CHUNK if decoders.pids else FEW)]:
        yield chunk


def load_chunk(encoder: Encoder, chunk: Chunk, known: Known | None = None) -> tuple[Told, Tensor]:
    """Read and prepare pictures.  -> content hash and what is wrong, of each; pixels of the others [n, 3, H, W]"""
    found = [load(encoder, job, known) for job in chunk]
    pixels = [item.pixels for item in found if item.pixels is not None]
    return [(item.digest, item.reason) for item in found], stacked(pixels) if pixels else torch.zeros(0)


def stacked(pixels: Sequence[Tensor], pinned: bool = False) -> Tensor:
    """Put pictures together, colours of a pixel side by side if they are so now.  n >= 1 [3, H, W] -> [n, 3, H, W]

    Memory that is pinned, which needs a GPU, is sooner there, and is used again.
    """
    last = all(p.permute(1, 2, 0).is_contiguous() for p in pixels)
    parts = [p.permute(1, 2, 0) if last else p for p in pixels]
    out = torch.empty((len(parts), *parts[0].shape), dtype=parts[0].dtype, pin_memory=pinned)
    if pinned and out.dtype != torch.bfloat16:  # torch would wait for threads on every core; these are busy decoding
        np.stack([p.numpy() for p in parts], out=out.numpy())
    else:
        torch.stack(parts, out=out)
    return out.permute(0, 3, 1, 2) if last else out


def load_hashed(encoder: Encoder, chunk: Chunk) -> tuple[Told, Tensor]:
    """Do the same and hash the files."""
    return load_chunk(encoder, chunk, lambda _: ())


def load(encoder: Encoder, job: tuple[int, ImageSource], known: Known | None) -> Loaded:
    """Read and prepare one picture, unless its content is known."""
    (position, source), digest = job, ""
    try:
        content: ImageSource = source
        if known is not None and isinstance(source, str | Path | bytes):
            content = source if isinstance(source, bytes) else read_file(source)
            digest = content_hash(content)
            if digest in known([digest]):
                return Loaded(position, source, digest, None, "")
        with by_turns(), blamed(encoder):
            return Loaded(position, source, digest, encoder.prepare_source(content), "")
    except ImageError as error:
        return Loaded(position, source, digest, None, error.reason)


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
