"""The demo's pictures and what is true of them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from fewshot.attributes import AttributeTable
from fewshot.datasets.digits import NAMES
from fewshot.errors import DataError

# file in scikit-image's or scikit-learn's package: what the photograph shows, and how one would call it
PHOTOGRAPHS = {
    "astronaut.png": "astronaut",
    "brick.png": "brick wall",
    "chelsea.png": "cat",
    "china.jpg": "temple",
    "coffee.png": "cup of coffee",
    "coins.png": "coins",
    "flower.jpg": "flower",
    "grass.png": "grass",
    "gravel.png": "gravel",
    "hubble_deep_field.jpg": "galaxies",
    "moon.png": "moon",
    "motorcycle_left.png": "motorcycle",
    "page.png": "printed page",
    "rocket.jpg": "rocket",
}
QUERIES = ("a kitten", "something to drink", "a space ship taking off", "money", "a building in Asia", "a motorbike")

# What a drawn digit is like. Columns: closed loops, long straight strokes, horizontal strokes, parts open to the left,
# parts open to the right, loop in the upper half, loop in the lower half.
DIGIT_ATTRIBUTES = {
    "zero": (1, 0, 0, 0, 0, 1, 1),
    "one": (0, 1, 0, 0, 0, 0, 0),
    "two": (0, 0, 1, 1, 1, 0, 0),
    "three": (0, 0, 0, 2, 0, 0, 0),
    "four": (0, 2, 1, 0, 0, 0, 0),
    "five": (0, 0, 1, 1, 1, 0, 0),
    "six": (1, 0, 0, 0, 1, 0, 1),
    "seven": (0, 1, 1, 1, 0, 0, 0),
    "eight": (2, 0, 0, 0, 0, 1, 1),
    "nine": (1, 1, 0, 1, 0, 1, 0),
}
ATTRIBUTE_NAMES = ("loops", "straight", "horizontal", "open left", "open right", "upper loop", "lower loop")


def write_photographs(folder: Path) -> dict[Path, str]:
    """Copy the photographs into `folder` as JPEG files and return what each shows.

    Raises
    ------
    DataError
        when scikit-image or scikit-learn is not installed.
    """
    try:
        import skimage.data
        import sklearn.datasets
    except ImportError as error:
        raise DataError("the demo's pictures come with two packages: pip install 'fewshot[demo]'") from error
    homes = (Path(skimage.data.__file__).parent, Path(sklearn.datasets.__file__).parent / "images")
    folder.mkdir(parents=True, exist_ok=True)
    shown = {}
    for name, label in PHOTOGRAPHS.items():
        source = next((home / name for home in homes if (home / name).is_file()), None)
        if source is None:
            continue  # another version of the package may come with fewer photographs
        target = folder / f"{source.stem}.jpg"
        with Image.open(source) as picture:
            picture.convert("RGB").save(target, quality=92)
        shown[target] = label
    return shown


def digit_attributes() -> AttributeTable:
    """Return the attribute table of the ten digits."""
    import torch

    values = torch.tensor([DIGIT_ATTRIBUTES[name] for name in NAMES], dtype=torch.float32)  # [10, 7]
    return AttributeTable(NAMES, ATTRIBUTE_NAMES, values)
