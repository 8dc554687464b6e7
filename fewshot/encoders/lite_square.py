"""The largest centre square at 224 pixels by torch's vectorised kernel, as `lite_image.prepare` has it, but faster.

torch scales what begins at a whole pixel, and sees nothing beyond it. The exact square often begins at half a pixel,
and near its edges the picture around it counts. So a larger part is scaled by the same step and the square cut out of
the result: it begins m steps before the square, with m such that this is at a whole pixel, or very nearly so.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fewshot.encoders.lite_image import SIZE, prepare
from fewshot.pixels import Pixels, upright

TORCH_SQUARE = "torch bicubic of the square amid its surroundings"  # part of the fingerprint
MARGIN, REACH = 2, 64  # pixels of the result before the square: at least what the bicubic kernel sees, and at most
SHIFT = 0.005  # pixels of the result by which the square may be off
ROUND_UP = 1 + 1e-9  # else 223.99... pixels would become 223


class Part(NamedTuple):
    """A stretch of pixels along one side, and how many results precede those of the square."""

    first: int
    end: int
    before: int


def prepare_pixels(pixels: Pixels) -> Tensor:
    """Do as `prepare` does, to 1 in 255 but for few pixels.  -> [3, 224, 224] uint8

    Pictures smaller than the result, tall ones, and those where no m does, most of them nearly square, are left to
    `prepare`.
    """
    side = min(pixels.width, pixels.height)
    across, down = (part(total, side) for total in (pixels.width, pixels.height))
    tall = 2 * pixels.width < pixels.height + SIZE  # then PIL scales columns before rows, which rounds differently
    if side < SIZE or tall or across is None or down is None:
        image = Image.fromarray(pixels.rows.numpy())
        return upright(prepare(image, pixels.width, pixels.height), pixels.orientation)
    rows = pixels.rows.numpy()[down.first : down.end, across.first : across.end]
    planes = torch.from_numpy(np.ascontiguousarray(rows)).permute(2, 0, 1)[None]  # torch would copy with all threads
    scaled = F.interpolate(planes, scale_factor=SIZE / side * ROUND_UP, mode="bicubic", antialias=True)[0]
    square = scaled[:, down.before : down.before + SIZE, across.before : across.before + SIZE]
    return upright(square, pixels.orientation)


def part(total: float, side: float) -> Part | None:
    """Return what to scale of `total` pixels for the square of `side` in the middle, or None if nothing fits."""
    start, step, whole = (total - side) / 2, side / SIZE, math.ceil(total)
    if start == 0:
        return Part(0, whole, 0)
    places = {m: start - m * step for m in range(MARGIN, min(REACH, int(start / step)) + 1)}
    if not places:
        return None
    before = min(places, key=lambda m: abs(places[m] - round(places[m])))
    first = round(places[before])
    if abs(places[before] - first) > SHIFT * step:
        return None
    return Part(first, min(whole, math.ceil(first + (before + SIZE + MARGIN) * step)), before)
