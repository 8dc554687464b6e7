"""cifar_fs: CIFAR-100 classes split for episodes (Bertinetto et al. 2019, arXiv:1805.08136), 32x32 pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fewshot.arrays import read_arrays
from fewshot.columns import read_columns
from fewshot.datasets import Dataset, Items
from fewshot.errors import DataError
from fewshot.hookspecs import hookimpl

CLASSES = {"train": 64, "val": 16, "test": 20}
ANIMALS = 20  # CIFAR-100 classes that AwA2 has too


def read_cifar_fs(folder: Path) -> Items:
    """Read `cifar_fs_subset.npz` (images [n, 32, 32, 3] uint8), `index.csv` (row, split, name) and `splits.json`.

    Raises
    ------
    DataError
        when a file is missing, or classes or counts do not agree.
    """
    try:
        images = read_arrays(folder / "cifar_fs_subset.npz")["images"]
        listed = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
        classes = {split: set(listed[split]) for split in CLASSES}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder} does not hold CIFAR-FS as it should: {error}") from error
    rows = read_columns(folder / "index.csv", "row", "split", "name")
    labels, splits = tuple(r["name"] for r in rows), tuple(r["split"] for r in rows)
    if [r["row"] for r in rows] != [str(i) for i in range(len(images))] or images.shape[1:] != (32, 32, 3):
        raise DataError(f"{folder}: index.csv lists {len(rows)} rows for images of shape {list(images.shape)}")
    for split, wanted in CLASSES.items():
        found = {label for label, s in zip(labels, splits, strict=True) if s == split}
        if len(found) != wanted or found != classes[split]:
            raise DataError(f"{folder}: split {split!r} has {len(found)} classes; CIFAR-FS has {wanted} listed ones")
    return Items(tuple(images), labels, splits)


def read_cifar_awa2(folder: Path, attributes: Path) -> Items:
    """Read the CIFAR-FS classes that are Animals with Attributes 2 classes, with their attributes scaled to [0, 1].

    Classes of the proposed test split (Xian et al. 2018, arXiv:1707.00600) are the unseen ones. An attribute that the
    table does not give (-1) takes the mean over classes.

    Raises
    ------
    DataError
        as `read_cifar_fs` does, or when an attribute table is missing or lacks a class.
    """
    items = read_cifar_fs(folder)
    listed = read_columns(attributes / "awa2_class_attributes.csv", "class", "proposed_split")
    pairs = read_columns(attributes / "awa2_class_map.csv", "dataset", "dataset_class", "awa2_class")
    table = {row.pop("class"): row for row in listed}
    twins = {row["dataset_class"]: row["awa2_class"] for row in pairs if row["dataset"] == "cifar100"}
    unseen = {name for name, row in table.items() if row.pop("proposed_split") == "test"}
    try:
        values = {name: np.array([float(v) for v in row.values()]) for name, row in table.items()}
        signatures = {name: values[twin] for name, twin in twins.items()}
    except (KeyError, ValueError) as error:
        raise DataError(f"{attributes} does not hold the AwA2 tables as it should: {error}") from error
    if len(signatures) != ANIMALS:
        raise DataError(f"{attributes}: awa2_class_map.csv names {len(signatures)} CIFAR-100 classes, not {ANIMALS}")
    known = np.stack(list(values.values()))
    mean = np.nanmean(np.where(known < 0, np.nan, known), axis=0)
    kept = [i for i, label in enumerate(items.labels) if label in twins]
    return Items(
        tuple(items.sources[i] for i in kept),
        tuple(items.labels[i] for i in kept),
        tuple(items.splits[i] for i in kept),
        attributes={n: tuple((np.where(v < 0, mean, v) / 100).tolist()) for n, v in signatures.items()},
        unseen=tuple(sorted(name for name, twin in twins.items() if twin in unseen)),
    )


class CifarFs(Dataset):
    """Small photographs of 100 kinds of things."""

    name = "cifar_fs"
    about = "CIFAR-FS, 32x32 pixels, splits train, val and test of different classes"

    def load(self, path: Path | None = None) -> Items:
        """Read the folder at `path`; raises DataError as `read_cifar_fs` does."""
        if path is None:
            raise DataError("dataset 'cifar_fs' needs a path: the folder of cifar_fs_subset.npz")
        return read_cifar_fs(path)


class CifarAwa2(Dataset):
    """Animals among the CIFAR-FS classes, with attributes."""

    name = "cifar_awa2"
    about = "20 animals of CIFAR-FS with the attributes of AwA2, for (generalised) zero-shot"

    def load(self, path: Path | None = None) -> Items:
        """Read CIFAR-FS at `path` and the tables in `attributes` beside it; raises DataError as the readers do."""
        if path is None:
            raise DataError("dataset 'cifar_awa2' needs a path: the folder of cifar_fs_subset.npz, beside attributes")
        return read_cifar_awa2(path, path.parent / "attributes")


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Register `cifar_fs` and `cifar_awa2`."""
    register(CifarFs)
    register(CifarAwa2)
