"""npz: embeddings made elsewhere, in a numpy file of the arrays x, labels and maybe split, text, classes, encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewshot.arrays import read_arrays
from fewshot.datasets import Dataset, Items
from fewshot.errors import DataError
from fewshot.hookspecs import hookimpl


def read_npz(path: Path) -> Items:
    """Read `x` [n, D] and `labels` [n]; `split` [n]; `text` [C, D] or [C, P, D] in the order of `classes` [C].

    Raises
    ------
    DataError
        when an array is missing or does not fit the others.
    """
    try:
        found = read_arrays(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no .npz file of plain arrays: {error}") from error
    missing = {"x", "labels"} - set(found)
    if missing:
        raise DataError(f"{path} lacks the array {min(missing)!r}; it has {', '.join(sorted(found)) or 'none'}")
    x, labels = found["x"], found["labels"].astype(str)
    if x.ndim != 2 or labels.shape != (len(x),) or not np.issubdtype(x.dtype, np.floating):
        raise DataError(f"{path}: wants x [n, D] of floats and labels [n], got {x.shape} {x.dtype} and {labels.shape}")
    splits = found["split"].astype(str) if "split" in found else np.zeros(0, dtype=str)
    if len(splits) not in (0, len(x)):
        raise DataError(f"{path}: split has {len(splits)} entries for {len(x)} rows")
    name = str(found["encoder"]) if "encoder" in found else "features"
    return Items(
        (),
        tuple(labels.tolist()),
        tuple(splits.tolist()),
        features=x.astype(np.float32),
        text=_text(path, found, labels),
        encoder=(name, ""),
    )


def _text(path: Path, found: dict[str, NDArray[np.generic]], labels: NDArray[np.str_]) -> NDArray[np.float32] | None:
    """Bring `text` into the order of the sorted labels.  -> [C, P, D]"""
    if "text" not in found:
        return None
    used = np.unique(labels)
    names = found["classes"].astype(str).tolist() if "classes" in found else used.tolist()
    text = found["text"].astype(np.float32)
    text = text[:, None] if text.ndim == 2 else text
    if text.ndim != 3 or len(text) != len(names) or text.shape[2] != found["x"].shape[1]:
        raise DataError(f"{path}: text has shape {text.shape}, which does not fit {len(names)} classes and x")
    absent = [name for name in used.tolist() if name not in names]
    if absent:
        raise DataError(f"{path}: label {absent[0]!r} is not among its classes")
    return text[[names.index(name) for name in used.tolist()]]


class Npz(Dataset):
    """Embeddings made elsewhere."""

    name = "npz"
    about = "embeddings made elsewhere: a .npz of x, labels and maybe split, text, classes"

    def load(self, path: Path | None = None) -> Items:
        """Read the file at `path`; raises DataError as `read_npz` does."""
        if path is None:
            raise DataError("dataset 'npz' needs a path: a .npz file with the arrays x and labels")
        return read_npz(path)


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Register `npz`."""
    register(Npz)
