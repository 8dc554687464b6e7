"""Little pictures of one colour each, which the toy encoder tells apart; for tests of everything around the encoder."""

from pathlib import Path

import numpy as np
from PIL import Image

RGB = {"red": (230, 20, 30), "green": (20, 200, 40), "blue": (30, 40, 220)}


def colour_picture(colour: str, seed: int = 0) -> Image.Image:
    """Make a noisy 48x40 picture of one colour."""
    noise = np.random.default_rng(seed).integers(-20, 21, (40, 48, 3))
    return Image.fromarray((np.array(RGB[colour]) + noise).clip(0, 255).astype(np.uint8))


def colour_folders(root: Path, shots: int = 3, colours: tuple[str, ...] = ("red", "green", "blue")) -> Path:
    """Write `shots` pictures into root/COLOUR/ for each colour."""
    for colour in colours:
        (root / colour).mkdir(parents=True)
        for number in range(shots):
            colour_picture(colour, number).save(root / colour / f"{number}.png")
    return root
