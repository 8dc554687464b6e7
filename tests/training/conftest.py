"""Tiny models, and drawn strokes as labelled pictures, small enough to train on in a second."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fewshot.datasets import Items
from tiny_models import clip_file, timm_file

__all__ = ["characters", "clip_file", "colours", "timm_file"]


def stroke(alphabet: int, character: int, drawer: int) -> Image.Image:
    """A character of three strokes; every drawer's hand shakes."""
    rng = np.random.default_rng([alphabet, character])
    shake = np.random.default_rng([alphabet, character, drawer])
    points = rng.uniform(3, 29, (4, 2)) + shake.normal(0, 1, (4, 2))
    picture = Image.new("L", (32, 32), 255)
    ImageDraw.Draw(picture).line([tuple(p) for p in points], fill=0, width=2)
    return picture


@pytest.fixture(scope="session")
def characters() -> Items:
    """4 alphabets of 6 characters by 6 drawers."""
    found = [(a, c, d) for a in range(4) for c in range(6) for d in range(6)]
    return Items(tuple(stroke(*k) for k in found), tuple(f"alphabet{a}/character{c}" for a, c, _ in found))


@pytest.fixture(scope="session")
def colours() -> Items:
    """3 classes of 6 coloured pictures."""
    made, labels = [], []
    for number, name in enumerate(("red", "green", "blue")):
        for i in range(6):
            pixels = np.random.default_rng([number, i]).integers(0, 120, (40, 40, 3))
            pixels[..., number] += 100
            made.append(Image.fromarray(pixels.astype(np.uint8)))
            labels.append(name)
    return Items(tuple(made), tuple(labels))
