"""Pictures made RGB tile by tile, against the same done to the whole picture at once."""

import tracemalloc
import warnings

import numpy as np
import pytest
from PIL import Image

from fewshot.images import open_image

RNG = np.random.default_rng(0)
SIZE = 31, 23  # several tiles of 8, the last ones narrower


def whole(image: Image.Image) -> np.ndarray:
    """Return what the picture looks like, from all of its pixels at once.  -> [H, W, 3]"""
    if not image.mode.startswith(("I", "F")):
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        return np.asarray(page.convert("RGB"))
    pixels = np.asarray(image)
    if pixels.dtype.itemsize == 2:
        grey = (pixels.astype(np.uint32) // 257).astype(np.uint8)
    else:
        with warnings.catch_warnings(action="ignore"):
            low, high = float(np.nanmin(pixels)), float(np.nanmax(pixels))
            top = 1.0 if pixels.dtype.kind == "f" else 65535.0
            low, top = (low, high - low) if low < 0 or high > top else (0.0, top)
            scaled = np.nan_to_num((pixels.astype(np.float64) - low) * (255 / (top or 1.0)))
        grey = scaled.clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)


def noise(mode: str) -> Image.Image:
    width, height = SIZE
    image = Image.frombytes(mode, SIZE, RNG.bytes(height * len(Image.new(mode, (width, 1)).tobytes())))
    if mode in ("P", "PA"):
        image.putpalette(RNG.bytes(768))
    return image


def floats(*odd: float, scale: float = 1) -> Image.Image:
    pixels = (RNG.random(SIZE[::-1]) * scale).astype(np.float32)
    pixels.flat[RNG.permutation(pixels.size)[: 5 * len(odd)]] = np.repeat(odd, 5)
    return Image.fromarray(pixels)


def with_info(image: Image.Image, transparency: object) -> Image.Image:
    image.info["transparency"] = transparency
    return image


def with_alpha_in_palette() -> Image.Image:
    image = noise("P")
    image.putpalette(RNG.bytes(1024), "RGBA")
    return image


INF, NAN = np.inf, np.nan
PICTURES = {
    **{mode: noise(mode) for mode in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")},
    **{mode: noise(mode) for mode in ("LA", "PA", "RGBA", "RGBa", "I", "I;16", "I;16B", "I;16L")},
    "1 with a transparent value": with_info(noise("1"), 255),
    "L with a transparent value": with_info(noise("L"), 7),
    "RGB with a transparent colour": with_info(noise("RGB"), noise("RGB").getpixel((3, 3))),
    "P with a transparent entry": with_info(noise("P"), 7),
    "P with an alpha of each entry": with_info(noise("P"), RNG.bytes(256)),
    "P with a palette of RGBA": with_alpha_in_palette(),
    "I of one value": Image.new("I", SIZE, -5),
    "I of 16 bits": Image.fromarray(RNG.integers(0, 65536, SIZE[::-1], np.int32)),
    "I of few": Image.fromarray((np.arange(SIZE[0] * SIZE[1]).reshape(SIZE[::-1]) == 0).astype(np.int32)),
    "F": floats(),
    "F beyond 1": floats(scale=3e38),
    "F below 0": floats(-2),
    "F with NaN": floats(NAN),
    "F with NaN, beyond 1": floats(NAN, -3, 9),
    "F with infinity": floats(INF),
    "F with minus infinity": floats(-INF),
    "F with all of them": floats(INF, -INF, NAN),
    "F of nothing else": floats(*[NAN] * 200),
    "F of infinity": floats(*[INF] * 200),
}


@pytest.mark.parametrize("tile", [8, 512])
@pytest.mark.parametrize("name", PICTURES)
def test_pixels_are_those_of_the_whole_picture_in_silence(name, tile, monkeypatch):
    monkeypatch.setattr("fewshot.as_rgb.TILE", tile)
    got = open_image(PICTURES[name].copy())
    assert got.mode == "RGB"
    assert np.array_equal(np.asarray(got), whole(PICTURES[name]))


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_numpy_holds_tiles_only(mode):
    image = Image.new(mode, (2048, 1500))
    tracemalloc.start()
    try:
        open_image(image)
        assert tracemalloc.get_traced_memory()[1] < 12 * 1024**2  # a tile as float64 is 2 MB, all pixels 25
    finally:
        tracemalloc.stop()


def test_no_more_than_a_tile_is_composited_at_once(monkeypatch):
    real, sizes = Image.alpha_composite, []

    def composite(below, above):
        sizes.append(above.size)
        return real(below, above)

    monkeypatch.setattr(Image, "alpha_composite", composite)
    open_image(Image.new("RGBA", (700, 600)))
    assert sizes == [(512, 512), (188, 512), (512, 88), (188, 88)]
