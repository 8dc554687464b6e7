"""The largest centre square at 224 pixels by torch's vectorised kernel, as `lite_image.prepare` has it, but faster.

torch scales what begins at a whole pixel, and sees nothing beyond it. The exact square often begins at half a pixel,
and near its edges the picture around it counts. So a larger part is scaled and the square cut out of the result: it
begins m steps before the square, with m such that this is at a whole pixel, or nearly so. With e pixels in between,
each step is e / (m + 112) shorter: the square is right in its middle, and off by e / 2 or less on average. Where the
part begins outside of the picture, black stands there, and where the square sees it, the few results are PIL's.

Nothing is copied if the part lies inside of the picture: its rows are read where they are, as long as the picture's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewshot.encoders.lite_image import SIZE, prepare, scale
from fewshot.pixels import Pixels, upright
from fewshot.slabs import uninitialised

TORCH_SQUARE = (
    "torch bicubic of the square amid its surroundings, steps to fit, edges by PIL, in its order"  # of the fingerprint
)
MARGIN, REACH = 2, 128  # pixels of the result before the square: what the bicubic kernel sees, and at most
LARGE = 2 * SIZE  # pixels of the shorter side of a picture that is worth it
SHIFT, CLOSE = 0.004, 0.002  # pixels of the result by which the square may be off on average, and need not be
SUPPORT = 2 - 0.5  # pixels of the result before the square that its first sees: half the kernel, from its middle


class Part(NamedTuple):
    """A stretch of pixels along one side, how many results precede those of the square, and pixels for each."""

    first: int  # below 0 if there are not as many pixels before the square
    end: int
    before: int
    step: float


def prepare_pixels(pixels: Pixels) -> Tensor:
    """Do as `prepare` does with the upright picture, to 1 in 255 but for few pixels.  -> [3, 224, 224] uint8

    Pictures smaller than the result, and those where no m does, are left to `prepare`.
    """
    side = min(pixels.width, pixels.height)
    across, down = (part(total, side) for total in (pixels.width, pixels.height))
    turned = pixels.orientation >= 5
    width, height = (pixels.height, pixels.width) if turned else (pixels.width, pixels.height)
    if side < SIZE or across is None or down is None:
        rows = pixels.rows.transpose(0, 1).contiguous() if turned else pixels.rows
        result = prepare(Image.fromarray(rows.numpy()), width, height)
        return upright(result.mT if turned else result, pixels.orientation)
    step = side / SIZE
    size = down.before + SIZE, across.before + SIZE
    planes = _whole_rows(pixels.rows, down, across).permute(2, 0, 1)[None]
    tall = 2 * width < height + SIZE  # then PIL scales columns before rows; the order decides how results are rounded
    for goal in [(size[0], planes.shape[3])] * (tall != turned) + [size]:
        planes = torch.ops.aten._upsample_bicubic2d_aa(planes, goal, False, 1 / down.step, 1 / across.step)
    square: Tensor = planes[0, :, down.before :, across.before :]
    stored, start, breadth = pixels.rows.numpy(), abs(pixels.width - pixels.height) / 2, MARGIN * step
    reach = math.ceil(start + 2 * breadth)
    at_edge = start < SUPPORT * step  # where PIL sees nothing beyond, as torch does where its pixels begin
    if across.first < 0 and at_edge:
        near = Image.fromarray(np.ascontiguousarray(stored[:, :reach]))
        square[:, :, :MARGIN] = scale(near, (MARGIN, SIZE), (start, 0, start + breadth, side))
    if down.first < 0 and at_edge:
        square[:, :MARGIN] = scale(Image.fromarray(stored[:reach]), (SIZE, MARGIN), (0, start, side, start + breadth))
    return upright(square, pixels.orientation)


def part(total: float, side: float) -> Part | None:
    """Return what to scale of `total` pixels for the square of `side` in the middle, or None if nothing fits."""
    start, step, whole = (total - side) / 2, side / SIZE, math.ceil(total)
    if start == 0:
        return Part(0, whole, 0, step)

    def late(m: int) -> float:  # pixels by which what begins m steps before the square begins too late
        return round(start - m * step) + m * step - start

    middle = SIZE / 2
    off = {m: abs(late(m)) / step * middle / 2 / (m + middle) for m in range(MARGIN, REACH + 1)}
    before = min(off, key=lambda m: (off[m] // CLOSE, m * step > start, m))
    if off[before] > SHIFT:
        return None
    first = round(start - before * step)
    end = math.ceil(first + (before + SIZE + MARGIN) * step)
    return Part(first, min(whole, end), before, step - late(before) / (before + middle))


def _whole_rows(rows: Tensor, down: Part, across: Part) -> Tensor:
    """Return rows that begin with those of a part and may go on behind them.  [H, W, 3] -> [h, w, 3], in one piece

    As long as the picture's they end in what comes next in memory; at least `before` steps behind the square, which
    does not see as far.
    """
    height, width = down.end - down.first, rows.shape[1]
    begin = 3 * (down.first * width + across.first)
    room = rows.untyped_storage().nbytes() - rows.storage_offset()
    if min(down.first, across.first) >= 0 and begin + 3 * height * width <= room:
        return rows.as_strided((height, width, 3), (3 * width, 3, 1), rows.storage_offset() + begin)
    return torch.from_numpy(cut(rows.numpy(), down, across))  # torch would copy with all threads


def cut(rows: NDArray[np.uint8], down: Part, across: Part) -> NDArray[np.uint8]:
    """Cut a part out, in one piece; what lies before the picture is black.  [H, W, 3] -> [h, w, 3]"""
    above, left = max(0, -down.first), max(0, -across.first)
    inside = rows[max(0, down.first) : down.end, max(0, across.first) : across.end]
    out = uninitialised(len(inside) + above, inside.shape[1] + left, 3)
    out[:above], out[above:, :left], out[above:, left:] = 0, 0, inside
    return out
