"""miniimagenet, tieredimagenet, cub: published lists of classes over a folder of class folders that the user has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from fewshot.datasets import Dataset, Items
from fewshot.datasets.omniglot import find_split_file
from fewshot.errors import DataError
from fewshot.hookspecs import hookimpl
from fewshot.images import find_images


def read_class_list(file: Path) -> list[str]:
    """Read a JSON list of class names, or an object that holds one under `class_names`.

    Raises
    ------
    DataError
        when it is neither.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    names = content.get("class_names") if isinstance(content, dict) else content
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise DataError(f"{file} must hold a list of class names")
    return names


class ClassLists(Dataset):
    """A folder of class folders, split by lists of classes that lie in it, in its `splits` or in `splits` beside it."""

    pattern: ClassVar[str]  # name of a list, with {} for the split
    counts: ClassVar[dict[str, int]]  # classes in each split

    def load(self, path: Path | None = None) -> Items:
        """Read the pictures of every listed class; other folders are left alone.

        Raises
        ------
        DataError
            when a list has another length than the published one, or a class has no folder or no pictures.
        """
        if path is None or not path.is_dir():
            raise DataError(f"dataset {self.name!r} needs a path: the folder that holds its class folders, got {path}")
        sources: list[Path] = []
        labels: list[str] = []
        splits: list[str] = []
        for split, wanted in self.counts.items():
            file = find_split_file(path, self.pattern.format(split))
            names = read_class_list(file)
            if len(names) != wanted:
                raise DataError(f"{file} lists {len(names)} classes, not {wanted}")
            absent = [name for name in names if not (path / name).is_dir()]
            if absent:
                raise DataError(f"{path} lacks {len(absent)} of {wanted} {split} classes, first {absent[0]!r}")
            for name in names:
                found = find_images([path / name])
                if not found:
                    raise DataError(f"class folder {path / name} holds no pictures")
                sources += found
                labels += [name] * len(found)
                splits += [split] * len(found)
        return Items(tuple(sources), tuple(labels), tuple(splits))


class MiniImageNet(ClassLists):
    """Ravi and Larochelle 2017."""

    name = "miniimagenet"
    about = "your miniImageNet folder (64, 16, 20 classes of Ravi and Larochelle 2017)"
    pattern = "miniimagenet_ravi_{}_classes.json"
    counts: ClassVar = {"train": 64, "val": 16, "test": 20}


class TieredImageNet(ClassLists):
    """Ren et al. 2018, arXiv:1803.00676."""

    name = "tieredimagenet"
    about = "your tieredImageNet folder (351, 97, 160 classes of Ren et al. 2018)"
    pattern = "tieredimagenet_{}.json"
    counts: ClassVar = {"train": 351, "val": 97, "test": 160}


class Cub(ClassLists):
    """Wah et al. 2011."""

    name = "cub"
    about = "your CUB-200-2011 images folder (140, 30, 30 classes)"
    pattern = "cub_{}.json"
    counts: ClassVar = {"train": 140, "val": 30, "test": 30}


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Register `cub`, `miniimagenet` and `tieredimagenet`."""
    register(Cub)
    register(MiniImageNet)
    register(TieredImageNet)
