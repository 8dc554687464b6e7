"""Pictures turned and moved: by symmetries, which make classes of their own, and by small affine maps, which do not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fewshot.encoders.convnet import warp

TURN = 10.0  # largest turn, degrees
STRETCH = 0.15  # largest log of a stretch
SHEAR = 0.15
SHIFT = 0.06  # largest shift, share of the side
SYMMETRIES = {"none": 1, "rotations": 4, "all": 8}  # turns by quarters; all: of the mirror image, too


def symmetric(pixels: Tensor, number: int) -> Tensor:
    """Turn by `number` quarters; from 4 on, of the mirror image.  [..., h, w], h = w"""
    turned = torch.rot90(pixels, number % 4, (-2, -1))
    return turned.flip(-1) if number >= 4 else turned


def jitter(x: Tensor, strength: float, noise: torch.Generator) -> Tensor:
    """Turn, stretch, shear and shift each picture a little, at random.  [n, c, h, w] -> [n, c, h, w]"""
    if not strength:
        return x
    draw = (torch.rand(6, len(x), generator=noise) * 2 - 1) * strength  # [6, n]
    angle = draw[0] * math.radians(TURN)
    wide, high = torch.exp(draw[1] * STRETCH), torch.exp(draw[2] * STRETCH)
    shear, cos, sin = draw[3] * SHEAR, angle.cos(), angle.sin()
    rows = [
        torch.stack([cos * wide, (cos * shear - sin) * high, draw[4] * 2 * SHIFT], -1),  # a picture spans -1 to 1
        torch.stack([sin * wide, (sin * shear + cos) * high, draw[5] * 2 * SHIFT], -1),
    ]
    return warp(x, torch.stack(rows, 1).to(x.device))
