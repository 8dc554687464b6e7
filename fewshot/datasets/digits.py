"""digits: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fewshot.datasets import Dataset, Items
from fewshot.errors import DataError
from fewshot.hookspecs import hookimpl

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Digits(Dataset):
    """Handwritten digits, dark ink on white paper, enlarged so that an encoder trained on photographs sees strokes."""

    name = "digits"
    about = "1,797 handwritten digits that come with scikit-learn"

    def load(self, path: Path | None = None) -> Items:
        """Make a 128x128 picture of each digit; labels are the English names.

        Raises
        ------
        DataError
            when scikit-learn is not installed.
        """
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError("dataset 'digits' comes with scikit-learn: pip install 'fewshot[demo]'") from error
        data = load_digits()
        grey = (255 - data.images * (255 / 16)).round().astype(np.uint8)  # [1797, 8, 8]
        pictures = [Image.fromarray(g).resize((128, 128), Image.Resampling.BICUBIC).convert("RGB") for g in grey]
        return Items(tuple(pictures), tuple(NAMES[label] for label in data.target))


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Register `digits`."""
    register(Digits)
