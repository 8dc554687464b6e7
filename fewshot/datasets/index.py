"""index: the labelled pictures of an index that `fewshot index build` made, embedded already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fewshot.datasets import Dataset, Items
from fewshot.errors import DataError
from fewshot.hookspecs import hookimpl
from fewshot.store import Store


def read_index(path: Path) -> Items:
    """Read the embeddings and labels of an index; pictures without a label are left out.

    Raises
    ------
    DataError
        when fewer than two labels are in it.
    FormatError
        when `path` is no index.
    """
    with Store.open(path) as store:
        entries = [entry for entry in store.entries() if entry.label is not None]
        labels = tuple(str(entry.label) for entry in entries)
        if len(set(labels)) < 2:
            raise DataError(f"index {path} has {len(set(labels))} labels; a benchmark needs at least two")
        rows = np.array(store.embeddings()[[entry.row for entry in entries]])  # [n, D] a copy
        pictures = tuple(Path(entry.path) for entry in entries)
        return Items(pictures, labels, features=rows, encoder=(store.encoder, store.fingerprint))


class Index(Dataset):
    """Labelled pictures of an index."""

    name = "index"
    about = "the labelled pictures of an index"

    def load(self, path: Path | None = None) -> Items:
        """Read the index at `path`; raises as `read_index` does."""
        if path is None:
            raise DataError("dataset 'index' needs a path: the folder that `fewshot index build` made")
        return read_index(path)


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Register `index`."""
    register(Index)
