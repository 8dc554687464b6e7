"""From pictures to embeddings: read ahead, encoded in a thread of its own, handed on; bad pictures are skipped."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewshot.datasets import ImageSource
from fewshot.encoders import Encoder
from fewshot.errors import InvalidOption, MissingInput
from fewshot.progress import Progress
from fewshot.reading import Loaded, load_ahead

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

    `batch` defaults to 32 on a CPU and 256 on a GPU. `workers` threads or processes (default: one a core) read, decode
    and prepare; at most `BATCHES_AHEAD` batches wait, and one more is being encoded while a batch is looked at. Given
    `known`, files are hashed, and those whose hash is in `known`, or was met since, are not embedded again; whoever
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
    with ThreadPoolExecutor(1, thread_name_prefix="encode") as thread:
        before: Future[Batch] | None = None
        for pixels, rest in _batches(load_ahead(encoder, sources, known, workers, BATCHES_AHEAD * batch), known, batch):
            coming = thread.submit(_encode, encoder, pixels, rest)
            if before is not None:
                yield before.result()
            before = coming
        if before is not None:
            yield before.result()


def _batches(
    loaded: Iterable[Loaded], known: Container[str] | None, batch: int
) -> Iterator[tuple[Tensor | None, Batch]]:
    """Collect what is to be encoded together, [n, 3, H, W], and what else came with it."""
    pixels: list[Tensor] = []
    rest = Batch(torch.empty(0))
    seen: set[str] = set()  # hashes of this batch
    before: set[str] = set()  # and of the one that is being encoded, which are not in `known` yet
    for item in loaded:
        if item.reason:
            rest.skipped.append(Skipped(item.position, item.source, item.reason, item.digest))
        elif item.pixels is None or any(
            item.digest in there for there in (seen, before, () if known is None else known)
        ):
            rest.known.append((item.position, item.digest))
        else:
            pixels.append(item.pixels)
            rest.kept.append(item.position)
            rest.digests.append(item.digest)
            seen.update([item.digest] if item.digest else [])
        if len(pixels) == batch or len(rest.known) + len(rest.skipped) >= 1000:
            yield _stacked(pixels), rest
            pixels, rest, before, seen = [], Batch(torch.empty(0)), seen, set()
    if pixels or rest.known or rest.skipped:
        yield _stacked(pixels), rest


def _stacked(pixels: list[Tensor]) -> Tensor | None:
    """Put pictures together, colours of a pixel side by side if they are so now.  n [3, H, W] -> [n, 3, H, W]"""
    if pixels and all(p.permute(1, 2, 0).is_contiguous() for p in pixels):
        return torch.stack([p.permute(1, 2, 0) for p in pixels]).permute(0, 3, 1, 2)
    return torch.stack(pixels) if pixels else None


def _encode(encoder: Encoder, pixels: Tensor | None, rest: Batch) -> Batch:
    with torch.no_grad():
        rest.embeddings = torch.zeros(0, encoder.dim) if pixels is None else _encode_pixels(encoder, pixels)  # [n, D]
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
