"""A classifier is a query: the pictures of an index that a linear head scores highest, without scoring every one.

A linear head scores class c of a picture x by  w_c . x + b_c.  For one class b_c changes no order, so its best pictures
are the nearest to the query w_c by inner product, which is what an index answers. All classes of only those pictures
are then scored, for their probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewshot.arrays import to_tensor
from fewshot.classifier import Classifier
from fewshot.errors import InvalidOption, MissingInput, unknown
from fewshot.index import Index
from fewshot.scan import Rows, as_float32
from fewshot.store import Store
from fewshot.strategy import LinearHead

BLOCK = 65536  # rows scored at once when a head is not linear


@dataclass(frozen=True, slots=True)
class Found:
    """A picture found for a class: the head's score for that class, and its probability among all classes."""

    path: str
    label: str | None  # the picture's own, in the index
    score: float
    probability: float


def find(
    store: Store, index: Index, classifier: Classifier, *, classes: Sequence[str] = (), top: int = 1000
) -> dict[str, list[Found]]:
    """Find the `top` pictures that score highest for each of `classes`, all of them by default; best first.

    With an exact index, and for a head that is not linear, the answer is that of scoring every picture.

    Raises
    ------
    UnknownName
        for a class that the classifier does not know.
    FingerprintMismatch
        when index and classifier were made by different encoders.
    InvalidOption
        for a `top` below 1.
    """
    if top < 1:
        raise InvalidOption(f"top must be 1 or more, got {top}")
    store.check_encoder(classifier.encoder)
    for name in classes:
        if name not in classifier.classes:
            raise unknown("class", name, classifier.classes)
    if classifier.head is None:
        raise MissingInput("this classifier has not been fitted yet; call fit() first")
    wanted = list(dict.fromkeys(classes)) or list(classifier.classes)
    numbers = [classifier.classes.index(name) for name in wanted]
    most = min(top, max(len(index), 1))
    if isinstance(classifier.head, LinearHead):
        rows = nearest_rows(index, classifier.head, numbers, most)
    else:
        rows = best_rows(index, classifier.logits, numbers, most)
    return {name: _listed(store, index, classifier, name, found, top) for name, found in zip(wanted, rows, strict=True)}


def nearest_rows(index: Index, head: LinearHead, classes: Sequence[int], top: int) -> list[Rows]:
    """Return the rows that score highest for each of some classes, given by number; best first."""
    _, rows = index.search(head.weight[list(classes)], top)  # [c, top]
    return [found[found >= 0] for found in rows]


def best_rows(index: Index, score: Callable[[Tensor], Tensor], classes: Sequence[int], top: int) -> list[Rows]:
    """Do the same by scoring every row, [n, D] -> [n, C], block by block."""
    scores = torch.zeros(0, len(classes))
    rows = torch.zeros(0, len(classes), dtype=torch.int64)
    for start in range(0, len(index.rows), BLOCK):
        part = np.flatnonzero(index.alive[start : start + BLOCK]) + start
        if len(part):
            logits = score(to_tensor(index.rows[part]))[:, list(classes)]  # [n, c]
            numbers = torch.from_numpy(part)[:, None].expand(-1, len(classes))  # [n, c]
            scores, rows = torch.cat([scores, logits]), torch.cat([rows, numbers])  # [top + n, c]
            scores, order = scores.topk(min(top, len(scores)), 0)  # [top, c]
            rows = rows.gather(0, order)
    return [column.numpy() for column in rows.T]


def _listed(store: Store, index: Index, classifier: Classifier, name: str, rows: Rows, top: int) -> list[Found]:
    logits = classifier.logits(torch.from_numpy(as_float32(index.rows[rows]).copy()))  # [n, C]
    column = classifier.classes.index(name)
    entries = store.entries_of(rows.tolist())
    chances: Tensor = logits.softmax(-1)[:, column]  # [n]
    return [
        Found(entry.path, entry.label, score, chance)
        for row, score, chance in zip(rows.tolist(), logits[:, column].tolist(), chances.tolist(), strict=True)
        for entry in entries[row]
    ][:top]
