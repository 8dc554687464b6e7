"""What a user hands over, as embeddings: paths, folders, an index, pictures, arrays, or embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewshot.arrays import to_tensor, unit
from fewshot.database import is_store
from fewshot.datasets import ImageSource, Text
from fewshot.datasets.table import read_texts
from fewshot.embedding import Skipped, embed_images
from fewshot.encoders import Encoder
from fewshot.encoding import encode_texts
from fewshot.errors import DataError, InvalidTask
from fewshot.images import find_images
from fewshot.store import Store

TABLES = (".csv", ".jsonl")  # inputs that are read as one text a row
Inputs = ImageSource | Tensor | Sequence[ImageSource]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings [n, D] of the inputs that could be read, a name for each, and what was skipped."""

    names: tuple[str, ...]
    embeddings: Tensor  # [n, D] unit-norm float32
    positions: tuple[int, ...]  # which of the inputs each row is, when they came as a sequence
    skipped: tuple[Skipped, ...] = ()


def embed_inputs(encoder: Encoder, inputs: Inputs, *, progress: bool = False) -> Embedded:
    """Embed whatever the user gave: a picture, a path, a folder, an index, a sequence of these, or embeddings [n, D].

    A CSV or JSONL file stands for the texts of its column `text`; a `Text` in a sequence is one text.

    A float array or tensor of two dims is taken as embeddings of this encoder and scaled to unit norm, an array of four
    dims, or of paths, as a sequence of pictures.

    Raises
    ------
    DataError
        when there are no pictures in it.
    InvalidTask
        for embeddings of the wrong width, or not finite.
    FingerprintMismatch
        for an index made by another encoder.
    """
    if isinstance(inputs, Tensor):
        return _from_embeddings(encoder, inputs.float())
    if isinstance(inputs, np.ndarray) and inputs.ndim in (1, 2) and np.issubdtype(inputs.dtype, np.floating):
        return _from_embeddings(encoder, to_tensor(inputs.astype(np.float32)))
    sources: list[ImageSource] = [inputs] if is_single(inputs) else list(inputs)  # type: ignore[list-item, arg-type]
    parts = [_embed_part(encoder, group, progress) for group in _grouped(sources)]
    embedded = Embedded(
        tuple(name for part in parts for name in part.names),
        torch.cat([part.embeddings for part in parts]) if parts else torch.zeros(0, encoder.dim),
        tuple(position for part in parts for position in part.positions),
        tuple(skip for part in parts for skip in part.skipped),
    )
    if not embedded.names and not embedded.skipped:
        raise DataError("no pictures found in " + ", ".join(map(str, sources)) if sources else "no pictures given")
    return embedded


def is_single(inputs: Inputs) -> bool:
    """Tell whether it is one picture, folder or table, not a sequence of them."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim in (2, 3)
    return isinstance(inputs, str | Path | bytes | Image.Image)


def _from_embeddings(encoder: Encoder, rows: Tensor) -> Embedded:
    if rows.ndim != 2 or rows.shape[-1] != encoder.dim:
        raise InvalidTask(f"embeddings of {encoder.name} have shape [n, {encoder.dim}], got {list(rows.shape)}")
    bad = (~torch.isfinite(rows)).any(-1).nonzero()
    if len(bad):
        raise InvalidTask(f"row {int(bad[0])} of the embeddings holds a value that is not finite (NaN or infinity)")
    count = range(len(rows))
    return Embedded(tuple(f"row {i}" for i in count), unit(rows.cpu()), tuple(count))


@dataclass(slots=True)
class _Group:
    """A run of pictures or of texts to embed, or one index to read."""

    sources: list[ImageSource]
    positions: list[int]
    index: Path | None = None
    written: bool = False  # its sources are texts


def _grouped(sources: Sequence[ImageSource]) -> list[_Group]:
    groups: list[_Group] = []
    for position, source in enumerate(sources):
        place = Path(source) if isinstance(source, str | Path) and not isinstance(source, Text) else None
        folder = place if place is not None and place.is_dir() else None
        if folder is not None and is_store(folder):
            groups.append(_Group([], [position], folder))
            continue
        if place is not None and place.suffix.lower() in TABLES and place.is_file():
            found: list[ImageSource] = list(read_texts(place))
        else:
            found = [source] if folder is None else list(find_images([folder]))
        written = bool(found) and isinstance(found[0], Text)
        if not groups or groups[-1].index is not None or groups[-1].written != written:
            groups.append(_Group([], [], written=written))
        groups[-1].sources += found
        groups[-1].positions += [position] * len(found)
    return [group for group in groups if group.sources or group.index is not None]


def _embed_part(encoder: Encoder, group: _Group, progress: bool) -> Embedded:
    if group.index is not None:
        return _from_index(encoder, group.index, group.positions[0])
    if group.written:
        texts = [str(source) for source in group.sources]
        return Embedded(tuple(texts), encode_texts(encoder, texts), tuple(group.positions))
    done = embed_images(encoder, group.sources, progress=progress)
    names = [_name(group.sources[i], i) for i in done.kept]
    return Embedded(tuple(names), done.embeddings, tuple(group.positions[i] for i in done.kept), tuple(done.skipped))


def _from_index(encoder: Encoder, folder: Path, position: int) -> Embedded:
    with Store.open(folder) as store:
        store.check_encoder(encoder)
        entries = store.entries()
        embeddings = to_tensor(store.embeddings()[[entry.row for entry in entries]])  # [n, D]
    return Embedded(tuple(entry.path for entry in entries), embeddings, (position,) * len(entries))


def _name(source: ImageSource, position: int) -> str:
    return str(source) if isinstance(source, str | Path) else f"picture {position}"
