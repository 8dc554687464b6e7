"""caltech101: 100 kinds of objects in the split of CoOp (Zhou et al. 2022, arXiv:2109.01134), seed 1 of 16 shots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fewshot.classes import spoken
from fewshot.columns import read_columns
from fewshot.datasets import Dataset, Items
from fewshot.errors import DataError
from fewshot.hookspecs import hookimpl

COUNTS = {"train16_seed1": 1600, "test": 2465}
CLASSES = 100


def read_caltech101(folder: Path) -> Items:
    """Read `index.csv` (path, split, label, name), in its order: the first k items of a class are CoOp's k shots.

    Raises
    ------
    DataError
        when a column or picture is missing, or the split has other sizes than CoOp's.
    """
    index = folder / "index.csv"
    rows = read_columns(index, "path", "split", "label", "name")
    sources = tuple(folder / row["path"] for row in rows)
    splits, labels = tuple(row["split"] for row in rows), tuple(row["name"] for row in rows)
    found = dict(Counter(splits))
    if found != COUNTS or len(set(labels)) != CLASSES:
        raise DataError(f"{index} holds {found} of {len(set(labels))} classes; CoOp's split has {COUNTS} of {CLASSES}")
    lost = next((s for s in sources if not s.is_file()), None)
    if lost is not None:
        raise DataError(f"{index} lists {lost}, which is not there")
    phrases = {name: (f"a photo of a {spoken(name)}.",) for name in set(labels)}  # CoOp's template for this set
    return Items(sources, labels, splits, phrases)


class Caltech101(Dataset):
    """Objects in CoOp's split."""

    name = "caltech101"
    about = "Caltech-101 in CoOp's split (use --split 'train16_seed1>test' --set first=true)"

    def load(self, path: Path | None = None) -> Items:
        """Read the folder at `path`; raises DataError as `read_caltech101` does."""
        if path is None:
            raise DataError("dataset 'caltech101' needs a path: the folder of its index.csv and images")
        return read_caltech101(path)


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Register `caltech101`."""
    register(Caltech101)
