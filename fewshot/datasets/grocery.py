"""grocery_fruit: 28 kinds of fruit in shops, with a studio picture and a description each (Klasson et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fewshot.columns import read_columns
from fewshot.datasets import Dataset, Items
from fewshot.errors import DataError
from fewshot.hookspecs import hookimpl

CLASSES = 28
SPLITS = ("train", "test")  # of shelves
COLUMNS = ("path", "split", "fine")


def read_grocery(folder: Path) -> Items:
    """Read `index.csv` (path, split, fine) and `classes.csv` (fine, iconic, description).

    Splits are train and test (shelves) and iconic (one studio picture a class); the descriptions are the phrases.

    Raises
    ------
    DataError
        when a table is missing, has other classes than the 28, or a picture is not there.
    """
    rows = [(row["path"], row["split"], row["fine"]) for row in read_columns(folder / "index.csv", *COLUMNS)]
    listed = read_columns(folder / "classes.csv", "fine", "iconic", "description")
    classes = {row["fine"]: row for row in listed}
    for split in SPLITS:
        found = {name for _, s, name in rows if s == split}
        if len(classes) != CLASSES or found != set(classes):
            raise DataError(
                f"{folder}: classes.csv has {len(classes)} classes and split {split!r} of index.csv {len(found)}, "
                f"not the same {CLASSES}"
            )
    rows += [(row["iconic"], "iconic", name) for name, row in classes.items()]
    phrases = {name: (row["description"],) for name, row in classes.items()}
    lost = next((path for path, _, _ in rows if not (folder / path).is_file()), None)
    if lost is not None:
        raise DataError(f"{folder} lists {lost}, which is not there")
    return Items(
        tuple(folder / path for path, _, _ in rows),
        tuple(name for _, _, name in rows),
        tuple(split for _, split, _ in rows),
        phrases,
    )


class GroceryFruit(Dataset):
    """Fruit on shelves, in studio pictures and in words."""

    name = "grocery_fruit"
    about = "28 kinds of fruit: shelves (train, test), studio pictures (iconic), descriptions"

    def load(self, path: Path | None = None) -> Items:
        """Read the folder at `path`; raises DataError as `read_grocery` does."""
        if path is None:
            raise DataError("dataset 'grocery_fruit' needs a path: the folder of its index.csv and classes.csv")
        return read_grocery(path)


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Register `grocery_fruit`."""
    register(GroceryFruit)
