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

ImageSource = str | Path | bytes | Image.Image | NDArray[np.generic]  # whatever `images.open_image` opens


@dataclass(frozen=True, slots=True)
class Items:
    """Labelled items: `sources[i]` has the label `labels[i]` and, where the data comes split, lies in `splits[i]`."""

    sources: tuple[ImageSource, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...] = ()  # e.g. "train" or "test", one an item; empty when the data comes in one piece
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what to call a class, if not its label

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
