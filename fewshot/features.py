"""Features: a labelled set that is embedded already, which is all that episodes need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.arrays import unit
from fewshot.datasets import ImageSource
from fewshot.episodes import data_hash
from fewshot.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Embeddings with labels, and what else is known of the classes. Absent data is a dim of size 0."""

    name: str  # of the data set
    x: Tensor  # [n, D] unit-norm float32
    labels: NDArray[np.int64]  # [n] in [0, C)
    classes: tuple[str, ...]  # C names
    splits: tuple[str, ...]  # one an item, or none
    text: Tensor  # [C, P, D] one unit-norm embedding per phrase
    text_weight: Tensor  # [C, P] 0 for padding
    attributes: Tensor  # [C, A]
    unseen: NDArray[np.bool_] | None  # [C] classes meant for zero-shot, where the data says so
    fixed: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]  # the data's own episodes: support and query rows
    encoder: str  # name of the encoder
    fingerprint: str  # and what it did exactly
    sources: tuple[ImageSource, ...] = ()  # the pictures, one a row, where there are any
    embedded_per_second: float = math.nan  # items, when the encoder met them

    @property
    def data(self) -> str:
        """Short name of the labels and splits, which episodes carry."""
        return data_hash(self.labels, self.splits)


def make_features(
    name: str,
    x: Tensor,
    labels: Sequence[str],
    *,
    splits: Sequence[str] = (),
    text: Tensor | None = None,
    text_weight: Tensor | None = None,
    attributes: Tensor | None = None,
    unseen: Sequence[str] = (),
    fixed: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (),
    encoder: str = "features",
    fingerprint: str = "",
    sources: Sequence[ImageSource] = (),
) -> Features:
    """Build checked Features; rows of `x` and `text` are scaled to length 1, classes are sorted by name.

    Raises
    ------
    DataError
        when numbers of rows disagree or a value is not finite.
    """
    if x.ndim != 2 or len(x) != len(labels) or (splits and len(splits) != len(labels)):
        raise DataError(
            f"{name}: embeddings of shape {list(x.shape)}, {len(labels)} labels and {len(splits)} splits do not fit; "
            "give one row, one label and one or no split an item"
        )
    classes, numbers = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    text = x.new_zeros(len(classes), 0, x.shape[1]) if text is None else text
    attributes = x.new_zeros(len(classes), 0) if attributes is None else attributes
    if text.shape[::2] != (len(classes), x.shape[1]) or len(attributes) != len(classes):
        raise DataError(
            f"{name}: text {list(text.shape)} or attributes {list(attributes.shape)} do not fit "
            f"{len(classes)} classes and {x.shape[1]} columns"
        )
    for what, tensor in (("embeddings", x), ("text", text), ("attributes", attributes)):
        if not torch.isfinite(tensor).all():
            row = int((~torch.isfinite(tensor)).nonzero()[0, 0])
            raise DataError(f"{name}: {what} hold a value that is not finite (NaN or infinity), first in row {row}")
    return Features(
        name=name,
        x=unit(x.float()).contiguous(),
        labels=numbers.astype(np.int64).reshape(-1),
        classes=tuple(str(c) for c in classes),
        splits=tuple(splits),
        text=unit(text.float()),
        text_weight=text.new_ones(text.shape[:2]) if text_weight is None else text_weight,
        attributes=attributes.float(),
        unseen=np.isin(classes, list(unseen)) if len(unseen) else None,
        fixed=fixed,
        encoder=encoder,
        fingerprint=fingerprint,
        sources=tuple(sources),
    )
