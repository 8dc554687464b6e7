"""folder: pictures in one folder a class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fewshot.datasets import Dataset, Items
from fewshot.errors import DataError
from fewshot.hookspecs import hookimpl
from fewshot.images import find_images


def read_class_folders(root: Path) -> Items:
    """Read `root/CLASS/**/*.jpg`; the label of a picture is the name of the folder right beneath `root`.

    Raises
    ------
    DataError
        when there is no folder, no class folder, a class folder without pictures, or only one class.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give a folder that holds one folder of pictures a class")
    classes = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise DataError(f"{root} holds no class folders; put the pictures of each class into {root}/CLASS/")
    sources: list[Path] = []
    labels: list[str] = []
    for folder in classes:
        found = find_images([folder])
        if not found:
            raise DataError(f"class folder {folder} holds no pictures; add some or remove the folder")
        sources += found
        labels += [folder.name] * len(found)
    if len(classes) == 1:
        raise DataError(f"{root} holds one class only, {classes[0].name!r}; a classifier needs at least two")
    return Items(tuple(sources), tuple(labels))


class Folder(Dataset):
    """Pictures in one folder a class."""

    name = "folder"
    about = "your own pictures, in one folder a class"

    def load(self, path: Path | None = None) -> Items:
        """Read the folder at `path`; raises DataError as `read_class_folders` does."""
        if path is None:
            raise DataError("dataset 'folder' needs a path: the folder that holds one folder of pictures a class")
        return read_class_folders(path)


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Register `folder`."""
    register(Folder)
