"""Search an index by text, by picture or by any vector."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from fewshot.classes import check_text
from fewshot.datasets import ImageSource
from fewshot.encoders import Encoder, load_encoder
from fewshot.encoding import checked, encode_texts
from fewshot.errors import DataError, InvalidOption, MissingInput
from fewshot.images import open_image
from fewshot.kept_index import open_index
from fewshot.scan import of_equals
from fewshot.store import Store
from fewshot.walk import has_image_suffix


@dataclass(frozen=True, slots=True)
class Hit:
    """One picture found: `score` is the inner product of unit vectors, in [-1, 1], the larger the closer.

    That of equal ones is 1 up to rounding, and counts as 1 where a least score is asked for.
    """

    path: str
    label: str | None
    score: float


class Searcher:
    """An open index together with the encoder it was built with; a context manager."""

    def __init__(self, index: str | Path, *, encoder: Encoder | None = None, device: str = "auto") -> None:
        with ExitStack() as cleanup:
            self.store = cleanup.enter_context(Store.open(index))
            self.encoder = encoder or load_encoder(self.store.encoder, device)
            self.store.check_encoder(self.encoder)
            self.index = open_index(self.store, device)
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.__exit__(kind, error, trace)

    def embed(self, query: ImageSource) -> Tensor:
        """Embed one query: a string that is no image file is a text, anything else a picture.  -> [D]

        Raises
        ------
        DataError
            for a string that looks like an image file that is not there, or is a folder, or is no text.
        ImageError
            for a picture that cannot be read.
        MissingInput
            when the encoder takes no text.
        """
        if isinstance(query, str) and not is_image_query(query):
            if "text" not in self.encoder.modalities:
                raise MissingInput(f"encoder {self.encoder.name!r} takes no text; query with a picture instead")
            check_text(query, "query")
            return encode_texts(self.encoder, [query])[0]
        picture = open_image(query)
        return checked(self.encoder, 1, lambda: self.encoder.encode_images([picture]))[0]

    def search(
        self,
        vectors: Tensor,
        *,
        top: int = 10,
        labels: Sequence[str] = (),
        globs: Sequence[str] = (),
        least: float | None = None,
    ) -> list[list[Hit]]:
        """Find the `top` pictures for each row of `vectors` [Q, D], best first; identical files are all listed.

        Only pictures of the given labels count, and whose path matches one of the globs, if any are given; and only
        those that score `least` or more. Scores are exact; an approximate kind of index may miss a picture.

        Raises
        ------
        UnknownName
            for a label that no picture of the index has.
        InvalidOption
            for a `top` below 1.
        FormatError
            when another process has compacted the index since it was opened.
        """
        if top < 1:
            raise InvalidOption(f"top must be 1 or more, got {top}")
        allowed = self.store.mask(labels, globs, count=len(self.index.rows)) if labels or globs else None
        if least is None:
            most = min(top, max(len(self.index), 1))  # FAISS takes time and memory for all that it is asked for
            answers = list(zip(*self.index.search(vectors, most, allowed), strict=True))
        else:
            least = min(least, of_equals(self.index.rows))
            answers = [(s[:top], r[:top]) for s, r in self.index.range_search(vectors, least, allowed)]
        rows = sorted({int(row) for _, found in answers for row in found if row >= 0})
        entries = self.store.entries_of(rows, labels, globs)
        hits = [
            [
                Hit(e.path, e.label, min(float(score), 1.0))
                for score, row in zip(*pair, strict=True)
                for e in entries.get(row, ())
            ]
            for pair in answers
        ]
        return [found[:top] for found in hits]


def query(
    index: str | Path,
    queries: Sequence[ImageSource],
    *,
    top: int = 10,
    labels: Sequence[str] = (),
    globs: Sequence[str] = (),
    least: float | None = None,
    encoder: Encoder | None = None,
    device: str = "auto",
) -> list[list[Hit]]:
    """Open an index and return the `top` pictures for each text or picture; see `Searcher.embed` and `Searcher.search`.

    ::

        for hit in fewshot.search.query("my.index", ["a red dress"])[0]:
            print(hit.score, hit.path)
    """
    with Searcher(index, encoder=encoder, device=device) as searcher:
        if not queries:
            return []
        vectors = torch.stack([searcher.embed(one) for one in queries])  # [Q, D]
        return searcher.search(vectors, top=top, labels=labels, globs=globs, least=least)


def is_image_query(text: str) -> bool:
    """Tell whether a query is an existing file, and so a picture, rather than a text; a lone word is no folder's path.

    Raises
    ------
    DataError
        for a name with the suffix of a picture when no such file exists, a folder's path, and an empty text.
    """
    if not text.strip():
        raise DataError("an empty query; give a text or a picture")
    if os.path.isfile(text):
        return True
    if os.sep in text and os.path.isdir(text):
        raise DataError(f"{text!r} is a folder; give a picture or a text")
    if has_image_suffix(text):
        raise DataError(f"no such image file: {text!r}; a text query must not end like a file name")
    return False
