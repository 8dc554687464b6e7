"""From a data set's Items to Features, embedding each picture once and remembering it by its content."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewshot.arrays import read_arrays, to_numpy, to_tensor
from fewshot.classes import ClassList
from fewshot.datasets import ImageSource, Items, Text
from fewshot.embedding import Skipped, embed_images
from fewshot.encoders import Encoder
from fewshot.encoding import encode_texts
from fewshot.errors import DataError, ImageError
from fewshot.features import Features, make_features
from fewshot.images import content_hash
from fewshot.modelfile import replacing
from fewshot.problem import embed_phrases


def items_digest(sources: Sequence[ImageSource]) -> str:
    """Hash the content of every picture; a file that cannot be read counts by its name."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(_source_digest(source).encode())
    return digest.hexdigest()


def _source_digest(source: ImageSource) -> str:
    if isinstance(source, Text):
        return content_hash(source.encode())
    if isinstance(source, Image.Image):
        return content_hash(f"{source.mode}{source.size}".encode() + source.tobytes())
    if isinstance(source, np.ndarray):
        return content_hash(f"{source.dtype}{source.shape}".encode() + source.tobytes())
    try:
        return content_hash(source)
    except ImageError:
        return f"unreadable {source!r}"


def embed_items(
    name: str, items: Items, encoder: Encoder | None, *, cache: Path | None = None, progress: bool = False
) -> tuple[Features, list[str]]:
    """Embed pictures and the classes' phrases, or take the features there are; with notes on what was skipped.

    `encoder` may be None for data that is embedded already. With `cache`, embeddings are kept there, known by the
    encoder's fingerprint and the content of the pictures; where they cannot be, a note says so.

    Raises
    ------
    DataError
        when the data does not fit together, or a picture of the data's own episodes cannot be read.
    """
    if items.features is not None:
        return _features(name, items, list(range(len(items.labels))), to_tensor(items.features)), []
    if encoder is None:
        raise DataError(f"{name} holds pictures and needs an encoder; pass --encoder")
    rows = _embed(name, items.sources, encoder, cache, progress)
    features = _features(name, items, rows.kept, rows.x, encoder)
    return dataclasses.replace(features, embedded_per_second=rows.per_second), rows.notes


class _Rows(NamedTuple):
    """Embeddings [n, D] of the sources at the positions `kept`, what was skipped, and items embedded a second."""

    x: Tensor
    kept: list[int]
    notes: list[str]
    per_second: float


def _embed(name: str, sources: Sequence[ImageSource], encoder: Encoder, cache: Path | None, progress: bool) -> _Rows:
    file = None
    if cache is not None:
        key = hashlib.sha256(f"{encoder.fingerprint} {items_digest(sources)}".encode()).hexdigest()[:32]
        file = cache / f"{key}.npz"
        known = _read_cache(file)
        if known is not None:
            return known
    begin = time.perf_counter()
    texts = [str(source) for source in sources if isinstance(source, Text)]
    if texts:  # a table holds texts or pictures, not both
        x, kept, notes = encode_texts(encoder, texts), list(range(len(texts))), []
    else:
        found = embed_images(encoder, sources, progress=progress)
        x, kept = found.embeddings, list(found.kept)
        notes = [f"{name}: skipped {_title(s)}: {s.reason}" for s in found.skipped]
    rows = _Rows(x, kept, notes, len(kept) / (time.perf_counter() - begin))
    if file is not None:
        try:
            _write_cache(file, rows)
        except OSError as error:  # what was embedded is worth more than the place for it
            reason = error.strerror or str(error)
            notes.append(f"{name}: embeddings are not kept in {file.parent} ({reason}); --cache names another folder")
    return rows


def _write_cache(file: Path, rows: _Rows) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, overwrite=True) as part, part.open("wb") as out:
        np.savez(
            out,
            x=to_numpy(rows.x),
            kept=np.array(rows.kept),
            notes=np.array(json.dumps(rows.notes)),
            per_second=np.array(rows.per_second),
        )


def _read_cache(file: Path) -> _Rows | None:
    """Read a cache file; a damaged one counts as absent and is written again."""
    if not file.exists():
        return None
    try:
        found = read_arrays(file)
        per_second = float(found["per_second"]) if "per_second" in found else math.nan
        return _Rows(
            to_tensor(np.asarray(found["x"], np.float32)),
            found["kept"].tolist(),
            json.loads(str(found["notes"])),
            per_second,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _features(name: str, items: Items, kept: list[int], x: Tensor, encoder: Encoder | None = None) -> Features:
    labels = [items.labels[i] for i in kept]
    classes = sorted(set(labels))
    text, weight = None, None
    if items.text is not None:
        text = to_tensor(items.text)
    elif encoder is not None and "text" in encoder.modalities:
        text, weight = class_text(encoder, classes, items)
    missing = [c for c in classes if items.attributes and c not in items.attributes]
    if missing:
        raise DataError(f"{name}: class {missing[0]!r} has no attributes")
    attributes = torch.tensor([items.attributes[c] for c in classes]) if items.attributes else None
    return make_features(
        name,
        x,
        labels,
        splits=[items.splits[i] for i in kept] if items.splits else (),
        text=text,
        text_weight=weight,
        attributes=attributes,
        unseen=items.unseen,
        fixed=_moved(name, items, kept),
        encoder=encoder.name if encoder else items.encoder[0],
        fingerprint=encoder.fingerprint if encoder else items.encoder[1] or _hash(x),
        sources=[items.sources[i] for i in kept] if items.sources else (),
    )


def class_text(encoder: Encoder, classes: Sequence[str], items: Items) -> tuple[Tensor, Tensor]:
    """Embed each class's phrases, or its name in the encoder's templates.  -> [C, P, D], [C, P]"""
    listed = ClassList(tuple(classes), tuple(items.phrases.get(c, ()) for c in classes))
    return embed_phrases(encoder, listed.prompts(None, encoder.templates))


def _title(skip: Skipped) -> str:
    """Name a picture that could not be read."""
    return str(skip.source) if isinstance(skip.source, str | Path) else f"picture {skip.position}"


def _moved(name: str, items: Items, kept: list[int]) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Return the data's own episodes as rows of what was kept."""
    row = {position: i for i, position in enumerate(kept)}
    lost = {p for run in items.fixed for side in run for p in side} - set(row)
    if lost:
        raise DataError(f"{name}: picture {min(lost)} of its own episodes cannot be read")
    return tuple((tuple(row[p] for p in s), tuple(row[p] for p in q)) for s, q in items.fixed)


def _hash(x: Tensor) -> str:
    values: NDArray[np.float32] = to_numpy(x)
    return f"features-{hashlib.sha256(values.tobytes()).hexdigest()[:16]}"
