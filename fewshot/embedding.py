"""From pictures to embeddings: threads decode ahead of the encoder in bounded memory; bad pictures are skipped."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fewshot.datasets import ImageSource
from fewshot.encoders import Encoder
from fewshot.errors import ImageError, InvalidOption, MissingInput
from fewshot.images import content_hash, memory_kept, read_file
from fewshot.progress import Progress

BATCHES_AHEAD = 2  # decoded batches that may wait for the encoder
CPU_BATCH, GPU_BATCH = 32, 256  # unless the user says otherwise; on a GPU halved as often as its memory demands


@dataclass(frozen=True, slots=True)
class Skipped:
    """A picture that could not be read: where it stood among the sources, what it was, and why."""

    position: int
    source: ImageSource
    reason: str
    digest: str = ""  # content hash of a file that could be read but not decoded


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings `[n, D]` of the sources at the positions `kept`, in order, and what was skipped."""

    embeddings: Tensor
    kept: list[int]
    skipped: list[Skipped]


@dataclass(slots=True)
class Batch:
    """Up to `batch` embedded pictures and whatever else the stream met since the one before."""

    embeddings: Tensor  # [n, D]
    kept: list[int] = field(default_factory=list)  # n positions
    digests: list[str] = field(default_factory=list)  # n content hashes, when asked for
    known: list[tuple[int, str]] = field(default_factory=list)  # position, content hash: no need to embed again
    skipped: list[Skipped] = field(default_factory=list)


class _Loaded(NamedTuple):
    position: int
    source: ImageSource
    digest: str
    pixels: Tensor | None
    reason: str


def embed_images(
    encoder: Encoder, sources: Sequence[ImageSource], *, batch: int | None = None, progress: bool = False
) -> Embedded:
    """Embed pictures (paths, bytes, PIL images, arrays); those that cannot be read are skipped with their reason.

    With `progress` a bar is shown where stderr is a terminal, and one line at the end names device and images a second.

    Raises
    ------
    MissingInput
        when the encoder takes no images.
    """
    parts, kept, skipped = [torch.zeros(0, encoder.dim)], [], []
    with Progress(len(sources), str(encoder.device), show=progress) as meter:
        for part in stream(encoder, sources, batch=batch):
            parts.append(part.embeddings)
            kept += part.kept
            skipped += part.skipped
            meter.advance(len(part.kept), len(part.skipped))
    return Embedded(torch.cat(parts), kept, skipped)


def stream(
    encoder: Encoder,
    sources: Iterable[ImageSource],
    *,
    batch: int | None = None,
    known: Container[str] | None = None,
    workers: int | None = None,
) -> Iterator[Batch]:
    """Yield embeddings batch by batch, in the order of the sources, which are read as they are needed.

    `batch` defaults to 32 on a CPU and 256 on a GPU. `workers` threads (default: one a core) read, decode and prepare;
    at most `BATCHES_AHEAD` batches wait, and one is encoded while the caller has the one before. Given `known`, files
    are hashed, and those whose hash is in `known` already, or in a batch under way, are not embedded again; whoever
    gives `known` adds the hashes of a batch to it before taking the next.

    Raises
    ------
    MissingInput
        when the encoder takes no images.
    InvalidOption
        for a batch below 1.
    """
    if "image" not in encoder.modalities:
        raise MissingInput(f"encoder {encoder.name!r} takes no images; use one that does, e.g. lite")
    if batch is None:
        batch = GPU_BATCH if encoder.device.type == "cuda" else CPU_BATCH
    if batch < 1:
        raise InvalidOption(f"batch must be 1 or more, got {batch}")
    loaded = _load_ahead(encoder, sources, known, workers or _cores(), batch)
    under_way: Future[Batch] | None = None
    pool = ThreadPoolExecutor(1, thread_name_prefix="encode")
    try:
        for pixels, rest in _batches(loaded, known, batch, encoder.dim):
            before, under_way = under_way, pool.submit(_encode, encoder, pixels, rest)
            if before is not None:
                yield before.result()
        if under_way is not None:
            yield under_way.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _batches(
    loaded: Iterable[_Loaded], known: Container[str] | None, batch: int, dim: int
) -> Iterator[tuple[Tensor | None, Batch]]:
    """Yield up to `batch` prepared pictures at a time, [n, 3, H, W], with what is known of them and was met besides."""
    pixels, rest = [], Batch(torch.zeros(0, dim))
    seen: set[str] = set()  # hashes of this batch, and of the one before, which may not have reached `known` yet
    for item in loaded:
        if item.reason:
            rest.skipped.append(Skipped(item.position, item.source, item.reason, item.digest))
        elif item.pixels is None or item.digest in seen or (known is not None and item.digest in known):
            rest.known.append((item.position, item.digest))
        else:
            pixels.append(item.pixels)
            rest.kept.append(item.position)
            rest.digests.append(item.digest)
            seen.update([item.digest] if item.digest else [])
        if len(pixels) == batch or len(rest.known) + len(rest.skipped) >= 1000:
            seen = set(rest.digests) - {""}
            yield _stacked(pixels), rest
            pixels, rest = [], Batch(torch.zeros(0, dim))
    if pixels or rest.known or rest.skipped:
        yield _stacked(pixels), rest


def _stacked(pixels: list[Tensor]) -> Tensor | None:
    """Put pictures together, colours of a pixel side by side if they are so now.  n [3, H, W] -> [n, 3, H, W]"""
    if pixels and all(p.permute(1, 2, 0).is_contiguous() for p in pixels):
        return torch.stack([p.permute(1, 2, 0) for p in pixels]).permute(0, 3, 1, 2)
    return torch.stack(pixels) if pixels else None


def _encode(encoder: Encoder, pixels: Tensor | None, rest: Batch) -> Batch:
    if pixels is not None:
        with torch.no_grad():
            rest.embeddings = _encode_pixels(encoder, pixels)  # [n, D]
    return rest


def _encode_pixels(encoder: Encoder, pixels: Tensor) -> Tensor:
    """Encode a batch at once, or in halves where the GPU's memory does not suffice.  [n, 3, H, W] -> [n, D]"""
    try:
        return encoder.encode_prepared(pixels)
    except torch.cuda.OutOfMemoryError:
        if len(pixels) == 1:
            raise
    torch.cuda.empty_cache()
    return torch.cat([_encode_pixels(encoder, half) for half in pixels.split((len(pixels) + 1) // 2)])


def _load_ahead(
    encoder: Encoder, sources: Iterable[ImageSource], known: Container[str] | None, workers: int, batch: int
) -> Iterator[_Loaded]:
    """Yield prepared pictures in order while threads work on those that follow."""
    queue: deque[Future[_Loaded]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    with memory_kept():
        try:
            for position, source in enumerate(sources):
                queue.append(pool.submit(_load, encoder, position, source, known))
                if len(queue) >= BATCHES_AHEAD * batch + workers:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _load(encoder: Encoder, position: int, source: ImageSource, known: Container[str] | None) -> _Loaded:
    digest = ""
    try:
        content: ImageSource = source
        if known is not None and isinstance(source, str | Path | bytes):
            content = source if isinstance(source, bytes) else read_file(source)
            digest = content_hash(content)
            if digest in known:
                return _Loaded(position, source, digest, None, "")
        return _Loaded(position, source, digest, encoder.prepare_source(content), "")
    except ImageError as error:
        return _Loaded(position, source, digest, None, error.reason)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
