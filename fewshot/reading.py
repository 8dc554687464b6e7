"""Pictures read, decoded and prepared ahead of the encoder, by threads or, for a GPU, by processes; memory is bounded.

Threads of one Python process share a lock that decoding holds about half of the time: beyond two of them little is
gained. That is enough beside a network that runs on the CPU, and starves a GPU.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from fewshot.datasets import ImageSource
from fewshot.decoders import Decoders
from fewshot.encoders import Encoder
from fewshot.errors import ImageError
from fewshot.images import content_hash, memory_kept, read_file

FEW = 1024  # pictures that do not pay for starting processes
CORES = 4  # nor do fewer cores
CHUNK = 32  # pictures that a process is given at a time
Job = TypeVar("Job")
Done = TypeVar("Done")
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
    encoder: Encoder, sources: Iterable[ImageSource], known: Container[str] | None, workers: int | None, ahead: int
) -> Iterator[Loaded]:
    """Yield prepared pictures in the order of the sources, at most `ahead` of them waiting, and a few a worker.

    Files are hashed if `known` is given, and threads do not decode what is in it. After the first 1,024 pictures
    processes take over where the encoder is on a GPU and there are cores enough.
    """
    jobs, count = enumerate(sources), workers or cores()
    if encoder.device.type != "cuda" or count < CORES:
        yield from _in_threads(partial(load, encoder, known=known), jobs, count, ahead)
        return
    yield from _in_threads(partial(load, encoder, known=known), islice(jobs, FEW), count, ahead)
    first = next(jobs, None)
    if first is None:
        return
    with Decoders(load_chunk if known is None else load_hashed, encoder, count) as decoders:

        def read(chunk: Chunk) -> tuple[Chunk, Told, Tensor]:
            return chunk, *decoders.do(chunk)

        for chunk, told, pixels in _in_threads(read, _chunks(chain([first], jobs)), count, -(-ahead // CHUNK)):
            decoded = iter(pixels)
            for (position, source), (digest, reason) in zip(chunk, told, strict=True):
                yield Loaded(position, source, digest, None if reason else next(decoded), reason)


def _in_threads(work: Callable[[Job], Done], jobs: Iterable[Job], workers: int, ahead: int) -> Iterator[Done]:
    """Do the jobs in threads, and yield what comes of each in their order, `ahead` and a few a worker being done."""
    queue: deque[Future[Done]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    with memory_kept():
        try:
            for job in jobs:
                queue.append(pool.submit(work, job))
                if len(queue) >= ahead + workers:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _chunks(jobs: Iterator[tuple[int, ImageSource]]) -> Iterator[Chunk]:
    while chunk := [*islice(jobs, CHUNK)]:
        yield chunk


def load_chunk(encoder: Encoder, chunk: Chunk, known: Container[str] | None = None) -> tuple[Told, Tensor]:
    """Read and prepare pictures.  -> content hash and what is wrong, of each; pixels of the others [n, 3, H, W]"""
    found = [load(encoder, job, known) for job in chunk]
    pixels = [item.pixels for item in found if item.pixels is not None]
    return [(item.digest, item.reason) for item in found], torch.stack(pixels) if pixels else torch.zeros(0)


def load_hashed(encoder: Encoder, chunk: Chunk) -> tuple[Told, Tensor]:
    """Do the same and hash the files."""
    return load_chunk(encoder, chunk, ())


def load(encoder: Encoder, job: tuple[int, ImageSource], known: Container[str] | None) -> Loaded:
    """Read and prepare one picture, unless its content is known."""
    (position, source), digest = job, ""
    try:
        content: ImageSource = source
        if known is not None and isinstance(source, str | Path | bytes):
            content = source if isinstance(source, bytes) else read_file(source)
            digest = content_hash(content)
            if digest in known:
                return Loaded(position, source, digest, None, "")
        return Loaded(position, source, digest, encoder.prepare_source(content), "")
    except ImageError as error:
        return Loaded(position, source, digest, None, error.reason)


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
