"""The pictures of a fine-tuning run as its first trained stage sees them: computed once, kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.datasets import Items
from fewshot.embedding import Skipped
from fewshot.encoders import Encoder
from fewshot.encoders.body import Body
from fewshot.errors import DataError
from fewshot.training.bank import load_pictures

BATCH = 32


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a body's first part made of every picture, as it is and mirrored, with the labels."""

    inputs: Tensor  # [N, 2, ...] of each picture and of its mirror image
    labels: Tensor  # [N] int64
    classes: tuple[str, ...]


def read_pictures(items: Items, encoder: Encoder, body: Body, stage: int) -> tuple[Pictures, list[Skipped]]:
    """Prepare all pictures and run what precedes a stage; those that cannot be read are skipped.

    Raises
    ------
    DataError
        when fewer than two classes are left.
    """
    prepared, kept, skipped = load_pictures(items.sources, encoder.prepare)
    labels = [items.labels[i] for i in kept]
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise DataError(f"{len(classes)} classes have readable pictures; fine-tuning needs at least two")
    parts: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(prepared), BATCH):
            batch = torch.stack(prepared[start : start + BATCH])  # [n, 3, h, w]
            sides = [body.before(x, stage).cpu() for x in (batch, batch.flip(-1))]
            parts.append(torch.stack(sides, 1))
    number = {name: i for i, name in enumerate(classes)}
    return Pictures(torch.cat(parts), torch.tensor([number[label] for label in labels]), classes), skipped


def of_split(items: Items, name: str | None) -> Items:
    """Keep one split of the items, or all of them.

    Raises
    ------
    DataError
        when they have no such split.
    """
    if name is None:
        return items
    rows = [i for i, split in enumerate(items.splits) if split == name]
    if not rows:
        known = ", ".join(sorted(set(items.splits))) or "none"
        raise DataError(f"the data has no split {name!r}; it has: {known}")
    return Items(tuple(items.sources[i] for i in rows), tuple(items.labels[i] for i in rows))


def split(labels: Tensor, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out a share of each class, at least one where it has two or more.  -> positions to train on, held out"""
    rng = np.random.default_rng([seed, 1])
    train: list[int] = []
    held: list[int] = []
    for number in range(int(labels.max()) + 1):
        order = rng.permutation(np.flatnonzero(labels.numpy() == number)).tolist()
        out = min(max(1, round(len(order) * share)), len(order) - 1) if share else 0
        held += order[:out]
        train += order[out:]
    if share and not held:
        raise DataError("no class has two pictures, so none can be held out to stop by; add some, or pass --hold-out 0")
    return np.sort(np.array(train)), np.sort(np.array(held, dtype=np.int64))


def batches(positions: Sequence[int] | NDArray[np.int64], size: int, rng: np.random.Generator) -> list[Tensor]:
    """Cut positions, shuffled, into batches."""
    return list(torch.split(torch.from_numpy(rng.permutation(positions)), size))
