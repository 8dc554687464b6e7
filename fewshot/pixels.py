"""Pictures as arrays that torch reads; large JPEG files are decoded straight into them, without Pillow's copies."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from fewshot.datasets import ImageSource
from fewshot.images import MAX_PIXELS, orientation, pillow_at_ease, read_file
from fewshot.slabs import uninitialised
from fewshot.turns import wait_for_turn

SCALES = (8, 4, 2)  # at which a JPEG can be decoded in less time
BAND = 256  # rows that are copied at a time


class Pixels(NamedTuple):
    """A picture as it lies in its file; `upright` turns what is made of it."""

    rows: Tensor  # [H, W, 3] uint8; memory for a row may follow, and rows of that length begin at any pixel then
    width: float  # of the whole picture in these pixels: W, or up to one less where the scale is reduced
    height: float
    orientation: int = 1  # 1 to 8, as EXIF has it


def large_jpeg(source: ImageSource, large: int, smallest_side: int = 0) -> Pixels | None:
    """Decode a colour JPEG of at least `large` pixels along the shorter side; None for whatever else it is, or damage.

    With `smallest_side` it is decoded at a half, a quarter or an eighth of its size, as long as its shorter side keeps
    that many pixels; else its pixels are those of `open_image`.
    """
    if not isinstance(source, str | Path | bytes):
        return None
    try:
        content = source if isinstance(source, bytes) else read_file(source)
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        if min(width, height) < large or width * height > MAX_PIXELS:
            return None
        with pillow_at_ease():
            image = Image.open(io.BytesIO(content), formats=["JPEG", "MPO"])
            if image.mode != "RGB":
                return None
            turned = orientation(image)
            scale = next((s for s in SCALES if smallest_side and min(width, height) >= s * smallest_side), 1)
            wait_for_turn(width * height // scale**2)
            if scale > 1:
                image.draft(None, (width // scale, height // scale))
                return Pixels(_rows(image), width / scale, height / scale, turned)
        room = uninitialised(height + 1, width, 3)  # a row more: `Pixels` says why
        simplejpeg.decode_jpeg(content, "RGB", buffer=room[:height])
        return Pixels(torch.from_numpy(room)[:height], width, height, turned)
    except Exception:  # noqa: BLE001 - on damaged files decoders raise anything, and `open_image` says what is wrong
        return None


def pixels_of(image: Image.Image) -> Pixels:
    """Return the pixels of an RGB picture as they are."""
    return Pixels(_rows(image), *image.size)


def upright(planes: Tensor, orientation: int) -> Tensor:
    """Turn a picture as the EXIF orientation of its file says.  [3, H, W] -> [3, H, W] or [3, W, H]"""
    turned = planes.mT if orientation >= 5 else planes
    sides = {2: [2], 3: [1, 2], 4: [1], 6: [2], 7: [1, 2], 8: [1]}.get(orientation, [])
    return turned.flip(sides) if sides else turned


def _rows(image: Image.Image) -> Tensor:
    """Return the pixels of an RGB picture, copied a few at a time: numpy would copy all of them twice.  [H, W, 3]"""
    rows = uninitialised(image.height, image.width, 3)
    for top in range(0, image.height, BAND):
        end = min(top + BAND, image.height)
        rows[top:end] = np.asarray(image.crop((0, top, image.width, end)))
    return torch.from_numpy(rows)
