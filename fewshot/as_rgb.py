"""Pictures with deep pixels or alpha as 8-bit RGB, tile by tile: a large one takes its own memory and its result's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from PIL import Image

TILE = 512  # pixels along a side


def on_white(image: Image.Image) -> Image.Image:
    """Composite a picture of any mode that Pillow makes RGBA of on white.  -> RGB"""

    def flat(tile: Image.Image) -> Image.Image:
        return Image.alpha_composite(Image.new("RGBA", tile.size, "white"), tile.convert("RGBA"))

    return _tile_by_tile(image, flat)


def scaled(image: Image.Image) -> Image.Image:
    """Scale 16-bit integers by their range, 32-bit and float pixels by theirs or else by what they hold.  -> RGB

    A pixel that is NaN comes out black, and so does a picture that holds an infinity.
    """

    def by_range(tile: Image.Image) -> Image.Image:
        return Image.fromarray((np.asarray(tile) // 257).astype(np.uint8))

    def by_content(tile: Image.Image) -> Image.Image:
        pixels = (np.asarray(tile).astype(np.float64) - low) * factor
        return Image.fromarray(np.nan_to_num(pixels).clip(0, 255).astype(np.uint8))

    if image.mode.startswith("I;16"):
        return _tile_by_tile(image, by_range)
    with np.errstate(invalid="ignore"):  # of infinities
        low, factor = _scale(image)
        return _tile_by_tile(image, by_content)


def _scale(image: Image.Image) -> tuple[float, float]:
    """Return what to take off the pixels, and what to multiply the rest by."""
    tiles = (np.asarray(tile) for _, tile in _tiles(image))
    # fmin leaves NaN out as nanmin does, but says nothing where there is nothing else
    extremes = [(np.fmin.reduce(pixels, axis=None), np.fmax.reduce(pixels, axis=None)) for pixels in tiles]
    lows, highs = zip(*extremes, strict=True)
    low, high, top = float(np.fmin.reduce(lows)), float(np.fmax.reduce(highs)), 1.0 if image.mode == "F" else 65535.0
    return (low, 255 / ((high - low) or 1.0)) if low < 0 or high > top else (0.0, 255 / top)


def _tile_by_tile(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    if max(image.size) <= TILE:
        return convert(image).convert("RGB")
    page = Image.new("RGB", image.size)
    for corner, tile in _tiles(image):
        page.paste(convert(tile).convert("RGB"), corner)
    return page


def _tiles(image: Image.Image) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    """Yield parts of a picture, each with its left and upper corner in it."""
    for top, left in product(range(0, image.height, TILE), range(0, image.width, TILE)):
        yield (left, top), image.crop((left, top, min(left + TILE, image.width), min(top + TILE, image.height)))
