"""omniglot: handwritten characters of 50 alphabets (Lake, Salakhutdinov, Tenenbaum 2015), from the published zips."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot.datasets import Dataset, Items
from fewshot.errors import DataError
from fewshot.hookspecs import hookimpl

ZIPS = {"images_background.zip": 19_280, "images_evaluation.zip": 13_180}  # drawings in each
SPLITS = {"train": 4112, "val": 688, "test": 1692}  # classes: characters in four rotations (Vinyals et al. 2016)
DRAWERS = 20
RUNS = 20


def read_zip(path: Path) -> dict[str, bytes]:
    """Read every file of a zip, by its name.

    Raises
    ------
    DataError
        when it is not there or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {i.filename: archive.read(i) for i in archive.infolist() if not i.is_dir()}
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(
            f"{path} cannot be read: {error}; get it from https://github.com/brendenlake/omniglot (folder python)"
        ) from error


def _drawings(folder: Path, zips: Mapping[str, int] = ZIPS) -> dict[str, list[bytes]]:
    """Drawings of each `Alphabet/characterNN`, in the order of their names."""
    found: dict[str, list[bytes]] = {}
    for name, wanted in zips.items():
        files = {k: v for k, v in read_zip(folder / name).items() if k.endswith(".png")}
        if len(files) != wanted:
            raise DataError(f"{folder / name} holds {len(files)} drawings, not {wanted}; get it anew")
        for file in sorted(files):
            found.setdefault("/".join(file.split("/")[1:3]), []).append(files[file])
    return found


def find_split_file(folder: Path, name: str) -> Path:
    """Look for a list of classes in a data set's folder, its `splits` folder, and a `splits` folder beside it.

    Raises
    ------
    DataError
        when it is in none of them.
    """
    for place in (folder, folder / "splits", folder.parent / "splits"):
        if (place / name).is_file():
            return place / name
    raise DataError(f"{name} is neither in {folder} nor in {folder / 'splits'} nor in {folder.parent / 'splits'}")


def _pixels(drawing: bytes) -> NDArray[np.uint8]:
    """Decode a drawing: 0 for ink, 255 for paper.  -> [105, 105]"""
    try:
        with Image.open(io.BytesIO(drawing)) as picture:
            return np.array(picture.convert("L"))
    except OSError as error:
        raise DataError(f"a drawing of Omniglot's zips is no picture: {error}") from error


def read_vinyals(folder: Path) -> Items:
    """Read the splits of Vinyals et al. 2016: every character in four rotations (counter-clockwise) is four classes.

    The four rotations of a drawing share their pixels, 360 MB for all splits.

    Raises
    ------
    DataError
        when a zip or a list of classes is missing or does not hold what it should.
    """
    drawings = {name: [_pixels(d) for d in found] for name, found in _drawings(folder).items()}
    sources: list[NDArray[np.uint8]] = []
    labels: list[str] = []
    splits: list[str] = []
    for split, wanted in SPLITS.items():
        file = find_split_file(folder, f"omniglot_vinyals_{split}.txt")
        classes = file.read_text(encoding="utf-8").split()
        if len(classes) != wanted:
            raise DataError(f"{file} lists {len(classes)} classes, not {wanted}")
        for name in classes:
            character, _, rotation = name.rpartition("/rot")
            if len(drawings.get(character, ())) != DRAWERS or rotation not in ("000", "090", "180", "270"):
                raise DataError(f"{file}: class {name!r} is no character with {DRAWERS} drawings in a rotation")
            sources += [np.rot90(drawing, int(rotation) // 90) for drawing in drawings[character]]
            labels += [name] * DRAWERS
            splits += [split] * DRAWERS
    return Items(tuple(sources), tuple(labels), tuple(splits))


def read_background(folder: Path) -> Items:
    """Read the 30 alphabets that methods for the challenge may learn from; labels are `Alphabet/characterNN`.

    Raises
    ------
    DataError
        when the zip is missing or does not hold what it should.
    """
    name = "images_background.zip"
    drawings = _drawings(folder, {name: ZIPS[name]})
    sources = tuple(drawing for found in drawings.values() for drawing in found)
    return Items(sources, tuple(label for label, found in drawings.items() for _ in found))


def read_challenge(folder: Path) -> Items:
    """Read the one-shot challenge `all_runs.zip`: 20 runs of 20 characters of one alphabet, one drawing each.

    Raises
    ------
    DataError
        when the zip is missing or does not hold 20 runs of 20 and 20.
    """
    files = read_zip(folder / "all_runs.zip")
    sources: list[bytes] = []
    labels: list[str] = []
    fixed: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for run in (f"run{r:02}" for r in range(1, RUNS + 1)):
        try:
            pairs = [line.split() for line in files[f"{run}/class_labels.txt"].decode().splitlines() if line.strip()]
            first = len(sources)
            for side in (sorted(training for _, training in pairs), [test for test, _ in pairs]):
                sources += [files[name] for name in side]
            labels += sorted(training for _, training in pairs) + [training for _, training in pairs]
        except (KeyError, ValueError) as error:
            raise DataError(f"{folder / 'all_runs.zip'}: {run} is not complete ({error})") from error
        if len(set(labels[first:])) != 20 or len(pairs) != 20:
            raise DataError(f"{folder / 'all_runs.zip'}: {run} has {len(pairs)} tests, not 20 of 20 characters")
        fixed.append((tuple(range(first, first + 20)), tuple(range(first + 20, first + 40))))
    return Items(tuple(sources), tuple(labels), fixed=tuple(fixed))


class Omniglot(Dataset):
    """Characters in four rotations, split as Vinyals et al. 2016 do."""

    name = "omniglot"
    about = "Omniglot from its zips: Vinyals splits with four rotations (use --split test)"

    def load(self, path: Path | None = None) -> Items:
        """Read the folder of zips at `path`; raises DataError as `read_vinyals` does."""
        if path is None:
            raise DataError("dataset 'omniglot' needs a path: the folder of images_background.zip and the others")
        return read_vinyals(path)


class OmniglotBackground(Dataset):
    """The background alphabets, to train on for the challenge."""

    name = "omniglot_background"
    about = "Omniglot's 30 background alphabets, 964 characters, for `finetune --episodic`"

    def load(self, path: Path | None = None) -> Items:
        """Read the folder with `images_background.zip` at `path`; raises DataError as `read_background` does."""
        if path is None:
            raise DataError("dataset 'omniglot_background' needs a path: the folder of images_background.zip")
        return read_background(path)


class OmniglotChallenge(Dataset):
    """The official one-shot challenge, within alphabets."""

    name = "omniglot_challenge"
    about = "Omniglot's 20 fixed one-shot runs within an alphabet (use --set fixed=true)"

    def load(self, path: Path | None = None) -> Items:
        """Read the folder with `all_runs.zip` at `path`; raises DataError as `read_challenge` does."""
        if path is None:
            raise DataError("dataset 'omniglot_challenge' needs a path: the folder of all_runs.zip")
        return read_challenge(path)


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Register `omniglot`, `omniglot_background` and `omniglot_challenge`."""
    register(Omniglot)
    register(OmniglotBackground)
    register(OmniglotChallenge)
