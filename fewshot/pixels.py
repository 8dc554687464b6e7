"""Pictures as arrays that torch reads: JPEG files are decoded straight into them, at a reduced scale if allowed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewshot.datasets import ImageSource
from fewshot.errors import ImageError
from fewshot.images import MAX_PIXELS, open_image, orientation, pillow_at_ease, read_file

SCALES = (8, 4, 2)  # at which a JPEG can be decoded in less time


class Pixels(NamedTuple):
    """A picture as it lies in its file; `upright` turns what is made of it."""

    rows: Tensor  # [H, W, 3] uint8
    width: float  # of the whole picture in these pixels: W, or up to one less where the scale is reduced
    height: float
    orientation: int = 1  # 1 to 8, as EXIF has it


def open_pixels(source: ImageSource, smallest_side: int = 0) -> Pixels:
    """Open a picture as `open_image` does, without the copies that an ordinary JPEG file costs there.

    With `smallest_side` a JPEG is decoded at a half, a quarter or an eighth of its size, as long as its shorter side
    keeps that many pixels.

    Raises
    ------
    ImageError
        as `open_image` does.
    """
    if isinstance(source, str | Path):
        try:
            return open_pixels(read_file(source), smallest_side)
        except ImageError as error:
            raise ImageError(error.reason, str(source)) from error.__cause__
    found = _decode(source, smallest_side) if isinstance(source, bytes) else None
    return found or pixels_of(open_image(source))


def pixels_of(image: Image.Image) -> Pixels:
    """Return the pixels of an RGB picture as they are."""
    return Pixels(_rows(image), *image.size)


def upright(planes: Tensor, orientation: int) -> Tensor:
    """Turn a picture as the EXIF orientation of its file says.  [3, H, W] -> [3, H, W] or [3, W, H]"""
    turned = planes.mT if orientation >= 5 else planes
    sides = {2: [2], 3: [1, 2], 4: [1], 6: [2], 7: [1, 2], 8: [1]}.get(orientation, [])
    return turned.flip(sides) if sides else turned


def _decode(content: bytes, smallest_side: int) -> Pixels | None:
    """Decode a colour JPEG, or return None for whatever `open_image` should look at."""
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        with pillow_at_ease():
            image = Image.open(io.BytesIO(content), formats=["JPEG", "MPO"])
            width, height = image.size
            if image.mode != "RGB" or width * height > MAX_PIXELS:
                return None
            turned = orientation(image)
            scale = next((s for s in SCALES if smallest_side and min(width, height) >= s * smallest_side), 1)
            if scale > 1:
                image.draft(None, (width // scale, height // scale))
                return Pixels(_rows(image), width / scale, height / scale, turned)
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        planes = decode_jpeg(data, mode=ImageReadMode.RGB)  # [3, H, W], a view of rows
        return Pixels(planes.permute(1, 2, 0), width, height, turned)
    except Exception:  # noqa: BLE001 - on damaged files decoders raise anything, and `open_image` says what is wrong
        return None


def _rows(image: Image.Image) -> Tensor:
    rows: Tensor = torch.utils.dlpack.from_dlpack(np.asarray(image))  # [H, W, 3]
    return rows
