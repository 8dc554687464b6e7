"""A small convolutional network for drawings and other small pictures, trained from scratch by `finetune --episodic`.

Convolutions of stride 2 with batch norm and ReLU, none after the last; what comes out is flattened, so that an
embedding keeps the places of strokes. Strides in place of the usual pooling (conv-4: Vinyals 2016, arXiv:1606.04080;
Snell 2017, arXiv:1703.05175) make it four times as quick to train on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from fewshot.arrays import unit

STEM = 5  # pixels a side of the first kernel; 3 of the others
SHIFT, TURN, ZOOM = 0.05, 7.0, 1.1  # views beside the picture itself: share of the side, degrees, factor


@dataclass(frozen=True, slots=True)
class Plan:
    """All that makes the network and its input, besides the weights."""

    size: int  # pixels a side
    widths: tuple[int, ...]  # channels of each convolution
    channels: int  # 1 grey, 3 colour
    paper: float  # the commonest value of a pixel, 0..255: what lies around a picture
    spread: float  # standard deviation of the pixels, 0..255

    @property
    def dim(self) -> int:
        """Numbers in an embedding."""
        side = self.size
        for _ in self.widths:
            side = (side + 1) // 2
        return self.widths[-1] * side**2


def build(plan: Plan) -> nn.Sequential:
    """Make the network with torch's random weights; it takes what `normalise` gives."""
    layers: list[nn.Module] = []
    before = plan.channels
    for i, width in enumerate(plan.widths):
        kernel = STEM if i == 0 else 3
        layers += [nn.Conv2d(before, width, kernel, stride=2, padding=kernel // 2, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(inplace=True)] if i + 1 < len(plan.widths) else [nn.Flatten()]
        before = width
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def prepare(image: Image.Image, plan: Plan) -> Tensor:
    """Scale the largest square around the centre.  -> [channels, size, size] uint8"""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    mode = "L" if plan.channels == 1 else "RGB"
    scaled = image.convert(mode).resize((plan.size, plan.size), Image.Resampling.BILINEAR, box)
    return torch.from_numpy(np.array(scaled)).reshape(plan.size, plan.size, -1).permute(2, 0, 1)


def normalise(pixels: Tensor, plan: Plan) -> Tensor:
    """Make paper 0, which is also what `warp` puts around a picture.  [n, c, h, w] uint8 -> float32"""
    x = (pixels.float() - plan.paper) / plan.spread
    return x.contiguous(memory_format=torch.channels_last)


def warp(x: Tensor, maps: Tensor) -> Tensor:
    """Sample pictures at affinely mapped places, 0 outside.  [n, c, h, w], [n, 2, 3] -> [n, c, h, w]"""
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)  # [n, h, w, 2]
    return F.grid_sample(x, grid, align_corners=False)


def views() -> Tensor:
    """Return the affine maps whose embeddings are averaged: itself, four shifts, two turns, two sizes.  -> [9, 2, 3]"""
    shifts = ((SHIFT, 0.0), (-SHIFT, 0.0), (0.0, SHIFT), (0.0, -SHIFT))
    found = [_similar(0.0, 1.0, 0.0, 0.0), *(_similar(0.0, 1.0, dx, dy) for dx, dy in shifts)]
    found += [_similar(turn, 1.0, 0.0, 0.0) for turn in (TURN, -TURN)]
    found += [_similar(0.0, zoom, 0.0, 0.0) for zoom in (ZOOM, 1 / ZOOM)]
    return torch.tensor(found)


def _similar(degrees: float, zoom: float, right: float, down: float) -> list[list[float]]:
    cos, sin = math.cos(math.radians(degrees)) * zoom, math.sin(math.radians(degrees)) * zoom
    return [[cos, -sin, 2 * right], [sin, cos, 2 * down]]  # a picture spans -1 to 1


def embed(network: nn.Module, pixels: Tensor, plan: Plan) -> Tensor:
    """Average the embeddings of a picture's views, each of unit norm.  [n, c, size, size] uint8 -> [n, D] unit norm"""
    x = normalise(pixels, plan)
    total = torch.zeros(len(x), plan.dim, device=x.device)
    for one in views().to(x.device):
        total += unit(network(warp(x, one.expand(len(x), 2, 3))))  # [n, D]
    return unit(total)


def plan_of(values: Mapping[str, object]) -> Plan:
    """Read a plan from a file's header; raises TypeError, ValueError or KeyError for anything else."""
    widths = values["widths"]
    if not isinstance(widths, list):
        raise ValueError("widths is not a list")
    size, channels, paper, spread = (values[name] for name in ("size", "channels", "paper", "spread"))
    plan = Plan(
        int(str(size)), tuple(int(w) for w in widths), int(str(channels)), float(str(paper)), float(str(spread))
    )
    if not (0 < plan.size <= 4096 and plan.widths and min(plan.widths) > 0 and plan.channels in (1, 3)):
        raise ValueError("its sizes are out of range")
    if not plan.spread > 0:
        raise ValueError("its spread is not positive")
    return plan
