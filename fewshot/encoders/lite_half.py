"""EfficientNet-Lite0 in bfloat16, rounded so that every channel keeps its mean; the first layers stay in float32.

Rounding to the nearest moves a channel's output by dw * x + db on average, the same in every picture, and such shifts
add up from layer to layer. Nagel et al. 2019 (arXiv:1906.04721) need no pictures to know them: the norm before a
convolution tells mean and deviation of its input. They take the shift off the bias; a bias in bfloat16 is itself too
coarse, so here a few weights are rounded the other way until the shift is gone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fewshot.encoders.lite_image import STAGES, Block, Conv, Lite0

FULL = 5  # blocks, after the stem, that stay in float32: with them the cosine to the exact answer is 0.9999 or more
NUMERICS = f"bfloat16 after {FULL} blocks, channels keep their means"  # part of the fingerprint
FLIPS = 32  # weights of a channel rounded the other way, at most; the gain is in the first few


def halve(network: Lite0, state: dict[str, Tensor]) -> Lite0:
    """Return the network with its convolutions in bfloat16, but for the first; `state` is what it was built from."""
    means = _input_means(state)
    next(means), [next(means) for block in network.blocks[:FULL] for _ in block.convs]
    blocks = [
        Block(tuple(halve_conv(conv, next(means)) for conv in block.convs), block.residual)
        for block in network.blocks[FULL:]
    ]
    top = halve_conv(network.top, next(means))
    return dataclasses.replace(network, blocks=(*network.blocks[:FULL], *blocks), top=top)


def halve_conv(conv: Conv, mean: Tensor) -> Conv:
    """Round a convolution to bfloat16 so that an input of the given channel means `[in]` keeps its output's means."""
    weight = conv.weight.cpu()
    out, width = weight.shape[:2]
    exact = weight.flatten(1)  # [out, in / groups * k * k]
    per_output = mean.expand(1, -1) if conv.groups == 1 else mean[:, None]  # [1 or out, in / groups]
    inputs = per_output[:, :, None].expand(out, width, weight[0, 0].numel()).flatten(1)  # like `exact`
    low = exact.bfloat16()
    bias = conv.bias.cpu().bfloat16()
    shift = ((low.float() - exact) * inputs).sum(1) + bias.float() - conv.bias.cpu()  # [out]
    bits = low.view(torch.int16)
    other = (bits + torch.where((low.float() < exact) == (low > 0), 1, -1).short()).view(torch.bfloat16)
    change = (other.float() - low.float()) * inputs  # of the shift, by rounding a weight the other way
    change[(low.float() == exact) | (low == 0)] = 0
    for _ in range(FLIPS):
        best, at = (shift[:, None] + change).abs().min(1)  # [out]
        rows = (best < shift.abs()).nonzero()[:, 0]
        if not len(rows):
            break
        at = at[rows]
        low[rows, at] = other[rows, at]
        shift[rows] += change[rows, at]
        change[rows, at] = 0
    rounded = low.view_as(weight).contiguous(memory_format=torch.channels_last)
    place = conv.weight.device
    return dataclasses.replace(conv, weight=rounded.to(place), bias=bias.to(place))


def _input_means(state: dict[str, Tensor]) -> Iterator[Tensor]:
    """Yield the mean of each input channel of every convolution in turn, as the norms before it tell.  -> [in]"""
    values = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
    norms = iter(list(zip(values[1::5], values[2::5], strict=False)))  # gain and bias: deviation and mean of the output
    yield torch.zeros(3)  # pictures lie around 0
    trunk = clipped_mean(*next(norms))
    for count, _, expansion, _ in STAGES:
        for i in range(count):
            mean = trunk
            for _ in range(2 if expansion > 1 else 1):
                yield mean
                mean = clipped_mean(*next(norms))
            yield mean
            _, shift = next(norms)
            trunk = trunk + shift if i > 0 else shift  # the residual
    yield trunk


def clipped_mean(deviation: Tensor, mean: Tensor) -> Tensor:
    """Return the mean of min(max(x, 0), 6) for a normal x, by channel.  [c], [c] -> [c]"""
    s = deviation.abs().clamp(min=1e-12)
    low, high = -mean / s, (6 - mean) / s
    phi = torch.exp(-(torch.stack([low, high]) ** 2) / 2) / math.sqrt(2 * math.pi)
    below, beneath = torch.special.ndtr(torch.stack([low, high]))
    clipped: Tensor = mean * (beneath - below) + s * (phi[0] - phi[1]) + 6 * (1 - beneath)
    return clipped
