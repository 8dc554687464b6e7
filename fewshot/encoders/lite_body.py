"""EfficientNet-Lite0 with other weights: which there are, stage by stage, and the network that runs on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot.encoders.body import Body, check_fit
from fewshot.encoders.lite_image import STAGES, Block, Conv, Lite0, first_block

STEM, TOP = 0, len(STAGES) + 1  # stages beside those of blocks, which are numbered from 1


def named_convs(net: Lite0) -> dict[str, Conv]:
    """Name the convolutions, in the order in which they are run."""
    blocks = {f"blocks.{i}.{j}": conv for i, block in enumerate(net.blocks) for j, conv in enumerate(block.convs)}
    return {"stem": net.stem, **blocks, "top": net.top}


def named_tensors(net: Lite0) -> dict[str, Tensor]:
    """Name the weights and biases of the convolutions; the classifier is not among them."""
    return {
        f"{name}.{part}": getattr(conv, part) for name, conv in named_convs(net).items() for part in ("weight", "bias")
    }


def stage_of(name: str) -> int:
    """Return the number of the stage that a tensor belongs to."""
    first, _, rest = name.partition(".")
    if first != "blocks":
        return STEM if first == "stem" else TOP
    number = int(rest.partition(".")[0])
    return next(stage for stage in range(1, TOP) if number < first_block(stage))


def replaced(net: Lite0, tensors: Mapping[str, Tensor]) -> Lite0:
    """Return the network with other values for some tensors; the others are shared."""

    def conv(name: str, old: Conv) -> Conv:
        weight, bias = (tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
        return Conv(
            old.weight if weight is None else weight, old.bias if bias is None else bias, old.stride, old.groups
        )

    blocks = [
        Block(tuple(conv(f"blocks.{i}.{j}", old) for j, old in enumerate(block.convs)), block.residual)
        for i, block in enumerate(net.blocks)
    ]
    return dataclasses.replace(net, stem=conv("stem", net.stem), blocks=tuple(blocks), top=conv("top", net.top))


def before(net: Lite0, pixels: Tensor, stage: int) -> Tensor:
    """Run what precedes a stage; before the stem that is nothing."""
    return net.maps(pixels, stage - 1) if stage > STEM else pixels


def after(net: Lite0, x: Tensor, stage: int) -> tuple[Tensor, Tensor]:
    """Run the rest on what `before` gave.  -> features [n, 1280], logits [n, 1000]"""
    return net.finish(x, stage - 1) if stage > STEM else net(x)


def body(net: Lite0) -> Body:
    """Return the network as a function of its weights. The norms are folded into the convolutions: gain and bias."""
    tensors = named_tensors(net)
    stages = tuple(tuple(name for name in tensors if stage_of(name) == stage) for stage in range(TOP + 1))
    weights = frozenset(name for name in tensors if name.endswith(".weight"))
    return Body(
        tensors,
        stages,
        norms=frozenset(tensors) - weights,
        gains=weights,
        before=lambda pixels, stage: before(net, pixels, stage),
        after=lambda values, x, stage: after(replaced(net, values), x, stage)[0],
    )


@dataclass(frozen=True, slots=True)
class Tuned:
    """Features of the tuned network, ImageNet logits of the one it came from; what precedes both is run once."""

    base: Lite0
    tuned: Lite0
    stage: int  # first that differs

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """[n, 3, 224, 224] uint8 -> features [n, 1280], logits [n, 1000]"""
        x = before(self.base, pixels, self.stage)
        return after(self.tuned, x, self.stage)[0], after(self.base, x, self.stage)[1]

    @classmethod
    def of(cls, base: Lite0, tensors: Mapping[str, Tensor]) -> Tuned:
        """Put tuned tensors into a copy of the network; raises FormatError when they do not fit it."""
        own = named_tensors(base)
        for name, value in tensors.items():
            check_fit(name, value, own)
        place = base.stem.weight.device
        shaped = {name: _as_run(value.to(place)) for name, value in tensors.items()}
        return cls(base, replaced(base, shaped), min(map(stage_of, tensors), default=TOP))


def _as_run(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
