"""Labelled pictures in memory, ready to be drawn from: by class, and classes by group where their names have one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewshot.datasets import ImageSource, Items
from fewshot.embedding import Skipped
from fewshot.errors import DataError, ImageError
from fewshot.images import open_image
from fewshot.turns import by_turns

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bank:
    """Pictures, where those of each class are, and the classes of each group.

    A class `Latin/character03` is of group `Latin`: what stands before the last slash. Other classes are one group.
    """

    pixels: Tensor  # [N, c, h, w] uint8
    members: tuple[Ints, ...]  # of each class, positions of its pictures
    groups: tuple[Ints, ...]  # of each group, its classes

    def part(self, groups: Sequence[int]) -> Bank:
        """Keep some groups."""
        return Bank(self.pixels, self.members, tuple(self.groups[i] for i in groups))


def load_pictures(
    sources: Sequence[ImageSource], prepare: Callable[[Image.Image], Tensor]
) -> tuple[list[Tensor], list[int], list[Skipped]]:
    """Prepare pictures in threads: those that can be read, where they stood, and what was skipped."""

    def load(source: ImageSource) -> Tensor | str:
        try:
            with by_turns():
                return prepare(open_image(source))
        except ImageError as error:
            return error.reason

    with ThreadPoolExecutor() as pool:
        loaded = list(pool.map(load, sources))
    skipped = [Skipped(i, sources[i], found) for i, found in enumerate(loaded) if isinstance(found, str)]
    kept = [(i, found) for i, found in enumerate(loaded) if isinstance(found, Tensor)]
    return [x for _, x in kept], [i for i, _ in kept], skipped


def read_bank(items: Items, prepare: Callable[[Image.Image], Tensor], least: int) -> tuple[Bank, list[Skipped]]:
    """Prepare every picture, skip those that cannot be read, and leave out classes with fewer than `least`.

    Raises
    ------
    DataError
        when fewer than two classes are left.
    """
    prepared, readable, skipped = load_pictures(items.sources, prepare)
    labels = [items.labels[i] for i in readable]
    by_class: dict[str, list[int]] = {}
    for position, label in enumerate(labels):
        by_class.setdefault(label, []).append(position)
    names = sorted(label for label, found in by_class.items() if len(found) >= least)
    if len(names) < 2:
        raise DataError(
            f"{len(names)} of {len(by_class)} classes have the {least} readable pictures that an episode takes; "
            "add pictures, or lower --shot and --query"
        )
    by_group: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        by_group.setdefault(name.rpartition("/")[0], []).append(number)
    members = tuple(np.array(by_class[name]) for name in names)
    return Bank(torch.stack(prepared), members, tuple(map(np.array, by_group.values()))), skipped


def paper_and_spread(pixels: Tensor) -> tuple[float, float]:
    """Return the commonest value of a pixel and the standard deviation, both 0..255, at least 1.  [N, c, h, w] uint8"""
    counts = torch.bincount(pixels.flatten(), minlength=256).double()
    level = torch.arange(256, dtype=torch.float64)
    mean = float((counts * level).sum() / counts.sum())
    spread = float(((counts * (level - mean) ** 2).sum() / counts.sum()).sqrt())
    return float(counts.argmax()), max(round(spread, 3), 1.0)
