"""Labelled sources: where pictures, or ready embeddings, and their labels come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot.errors import DataError

ImageSource = str | Path | bytes | Image.Image | NDArray[np.generic]  # whatever `images.open_image` opens


class Text(str):
    """A text to embed, where a plain str would be the path of a picture."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Items:
    """Labelled items: `sources[i]` has the label `labels[i]` and, where the data comes split, lies in `splits[i]`."""

    sources: tuple[ImageSource, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...] = ()  # e.g. "train" or "test", one an item; empty when the data comes in one piece
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what to call a class, if not its label
    features: NDArray[np.float32] | None = None  # [n, D] for data that is embedded already; its sources may be unknown
    text: NDArray[np.float32] | None = None  # [C, P, D] embedded phrases of `classes`, beside `features`
    attributes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # signature of each class
    unseen: tuple[str, ...] = ()  # classes meant to be met without examples
    fixed: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()  # the data's own episodes: support, query positions
    encoder: tuple[str, str] = ("features", "")  # name and fingerprint of what made `features`

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return tuple(sorted(set(self.labels)))


class Dataset(ABC):
    """A labelled source that `fewshot datasets` lists, known by `name`."""

    name: ClassVar[str]
    about: ClassVar[str] = ""

    @abstractmethod
    def load(self, path: Path | None = None) -> Items:
        """Read the items and their labels; `path` says where the files are, for data that comes from files.

        Raises
        ------
        DataError
            when the files are missing or are not what the dataset should hold.
        """


def read_items(path: Path) -> Items:
    """Read labelled pictures or texts from a folder of class folders or a CSV/JSONL table, whichever `path` is.

    Raises
    ------
    DataError
        when `path` is neither, or as the reader of its kind says.
    """
    from fewshot.datasets.folder import read_class_folders
    from fewshot.datasets.table import read_table

    if path.suffix.lower() in (".csv", ".jsonl") and path.is_file():
        return read_table(path)
    if path.is_dir():
        return read_class_folders(path)
    raise DataError(f"{path} is neither a folder of class folders nor a .csv or .jsonl table of path and label")
