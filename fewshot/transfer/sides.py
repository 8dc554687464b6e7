"""Source or target as the user gives it: class folders, a table or an index, in one encoder's space."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fewshot.arrays import to_tensor
from fewshot.database import is_store
from fewshot.datasets import Text, read_items
from fewshot.datasets.table import read_table
from fewshot.encoders import Encoder
from fewshot.errors import DataError
from fewshot.inputs import TABLES
from fewshot.problem import embed_labelled
from fewshot.store import Store
from fewshot.transfer.crossmap import CrossMap
from fewshot.transfer.trial import Pair

SAME = 1e-3
BLOCK = 4096  # items compared at a time
SHOWN = 5  # class names that a message lists


@dataclass(frozen=True, slots=True)
class Side:
    """Embeddings of one domain with a label for each item, None where it has none."""

    x: Tensor  # [n, D]
    labels: tuple[str | None, ...]  # n
    encoder: str
    fingerprint: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, sorted."""
        return tuple(sorted({label for label in self.labels if label is not None}))

    def labelled(self) -> tuple[Tensor, list[str]]:
        """The items that have a label.  -> [m, D], m"""
        rows = [i for i, label in enumerate(self.labels) if label is not None]
        return self.x[rows], [str(self.labels[i]) for i in rows]


def read_index_side(path: Path) -> Side:
    """Read an index: all embeddings, and the labels there are."""
    with Store.open(path) as store:
        entries = store.entries()
        if not entries:
            raise DataError(f"index {path} is empty; add pictures with: fewshot index add {path} DIR")
        x = to_tensor(store.embeddings()[[entry.row for entry in entries]])  # [n, D]
        return Side(x, tuple(entry.label for entry in entries), store.encoder, store.fingerprint)


def read_labels(path: Path) -> Side:
    """Read what `read_side` does, but for the embeddings, which have width 0: enough to check the labels by.

    Raises
    ------
    DataError
        when nothing can be read, or there is one class only.
    """
    if not path.exists():
        raise DataError(f"{path} is not there; give a folder of class folders, a table of path and label, or an index")
    labels = read_index_side(path).labels if is_store(path) else read_items(path).labels
    return Side(torch.zeros(len(labels), 0), labels, "", "")


def read_side(path: Path, encoder: Encoder, *, progress: bool = False) -> Side:
    """Read a folder of class folders, a table, or an index.

    Raises
    ------
    DataError
        when nothing can be read, or there is one class only.
    FingerprintMismatch
        for an index of another encoder.
    """
    if is_store(path):
        with Store.open(path) as store:
            store.check_encoder(encoder)
        return read_index_side(path)
    embedded, labels = embed_labelled(encoder, path, None, progress)
    return Side(embedded.embeddings, tuple(labels), encoder.name, encoder.fingerprint)


def holds_texts(path: Path) -> bool:
    """Whether this is a table of texts, which encoders of pictures cannot take.

    Raises
    ------
    DataError
        when it is a table that cannot be read.
    """
    return path.suffix.lower() in TABLES and path.is_file() and isinstance(read_table(path).sources[0], Text)


def apart(source: Side, target: Side) -> tuple[Side, int]:
    """Take out of the source what is in the target too: there, what is held out would be learned from.

    Two embeddings are of one item when they differ by a thousandth of their length at most: it may have been embedded
    twice, in different company.  -> the rest of the source, number of items taken out

    Raises
    ------
    DataError
        when nothing is left.
    """
    parts = []
    for x in source.x.split(BLOCK):
        near = target.x[(x @ target.x.T).argmax(1)]  # [n, D]
        parts.append((x - near).norm(dim=1) > SAME * x.norm(dim=1))
    kept = torch.cat(parts).nonzero()[:, 0].tolist()
    if not kept:
        raise DataError("every item of the source is in the target too; give a source of other items")
    left = replace(source, x=source.x[kept], labels=tuple(source.labels[i] for i in kept))
    return left, len(source.labels) - len(kept)


def pair_up(source: Side, target: Side, *, other_classes: bool = False) -> Pair:
    """Number the labelled items of both domains for a trial.

    Raises
    ------
    DataError
        when they share fewer than two classes and `other_classes` does not say that this is meant.
    """
    classes = target.classes
    shared = [name for name in source.classes if name in classes]
    if len(shared) < 2 and not other_classes:
        raise DataError(
            f"source and target share {len(shared)} classes: the source has {_listed(source.classes)}, the target "
            f"{_listed(classes)}; name them alike, or pass --other-classes if they are meant to differ"
        )
    number = {name: i for i, name in enumerate([*classes, *(n for n in source.classes if n not in classes)])}
    x, labels = source.labelled()
    z, own = target.labelled()
    numbers, owns = (torch.tensor([number[n] for n in names], dtype=torch.int64) for names in (labels, own))
    bare = target.x[[label is None for label in target.labels]]  # [U, D]
    return Pair(x, numbers, z, owns, classes, bare)


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more


def moved(side: Side, through: tuple[CrossMap, str, str], encoder: str, fingerprint: str) -> Side:
    """The source in the space of the target's encoder by a map learned between the two.

    Raises
    ------
    DataError
        when the map starts or ends at another encoder.
    """
    crossing, start, end = through
    if (start, end) != (side.fingerprint, fingerprint):
        raise DataError(
            f"--map leads from {start} to {end}, but the source is of {side.encoder} ({side.fingerprint}) and the "
            f"target of {encoder} ({fingerprint}); give two indexes made by these two, source's first"
        )
    return Side(crossing.place(side.x), side.labels, encoder, fingerprint)
