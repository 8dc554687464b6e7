"""From pictures to embeddings: read ahead, encoded in a thread of its own, handed on; bad pictures are skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewshot.datasets import ImageSource
from fewshot.encoders import Encoder
from fewshot.encoding import checked
from fewshot.errors import InvalidOption, MissingInput
from fewshot.progress import Progress
from fewshot.reading import Known, Loaded, load_ahead, stacked

LATELY = 1 << 17  # pictures, many times what is read ahead
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
        for part in stream(encoder, sources, batch=batch, total=len(sources)):
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
    known: Known | None = None,
    workers: int | None = None,
    total: int | None = None,
) -> Iterator[Batch]:
    """Yield embeddings batch by batch, in the order of the sources, which are read as they are needed.

    `batch` defaults to 32 on a CPU and 256 on a GPU. `workers` threads or processes (default: one a core) read, decode
    and prepare; at most `BATCHES_AHEAD` batches wait, and one more is being encoded while a batch is looked at. Given
    `known`, which is asked from several threads, files are hashed, and those whose hash it knows, or was met since, are
    not embedded again; whoever gives `known` has it know the hashes of a batch before taking the next. The number of
    pictures, `total`, tells whether processes pay; without it there are many.

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
        loaded = load_ahead(encoder, sources, known, workers, BATCHES_AHEAD * batch, total)
        pinned = encoder.device.type == "cuda" and torch.cuda.is_available()
        for pictures, rest in _batches(loaded, batch):
            pixels = stacked(pictures, pinned) if pictures else None
            coming = thread.submit(_encode, encoder, pixels, rest)
            if before is not None:
                yield before.result()
            before = coming
        if before is not None:
            yield before.result()


def _batches(loaded: Iterable[Loaded], batch: int) -> Iterator[tuple[list[Tensor], Batch]]:
    """Collect what is to be encoded together, n [3, H, W], and what else came with it."""
    pixels: list[Tensor] = []
    rest = Batch(torch.empty(0))
    lately: dict[str, None] = {}  # hashes that were not known yet when what is loaded now was looked up
    for item in loaded:
        if item.reason:
            rest.skipped.append(Skipped(item.position, item.source, item.reason, item.digest))
        elif item.pixels is None or item.digest in lately:
            rest.known.append((item.position, item.digest))
        else:
            pixels.append(item.pixels)
            rest.kept.append(item.position)
            rest.digests.append(item.digest)
            if item.digest:
                lately[item.digest] = None
            if len(lately) > max(LATELY, 8 * batch):
                del lately[next(iter(lately))]
        if len(pixels) == batch or len(rest.known) + len(rest.skipped) >= 1000:
            yield pixels, rest
            pixels, rest = [], Batch(torch.empty(0))
    if pixels or rest.known or rest.skipped:
        yield pixels, rest


def _encode(encoder: Encoder, pixels: Tensor | None, rest: Batch) -> Batch:
    with torch.no_grad():
        if pixels is None:
            rest.embeddings = torch.zeros(0, encoder.dim)
        else:
            rest.embeddings = checked(encoder, len(pixels), lambda: _encode_pixels(encoder, pixels))
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
