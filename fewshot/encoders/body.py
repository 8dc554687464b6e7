"""The network of an encoder as a function of its weights, stage by stage: what training further needs to know."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewshot.errors import FormatError

STAGE = re.compile(r"(?:.*?\.)?(?:layers?|blocks?|resblocks|stages?|features)\.?\d+(?=\.)")
LAST = ("proj", "head")  # by their names these come after the last block, wherever the module lists them


@dataclass(frozen=True, slots=True)
class Body:
    """Weights by name, the names by depth, and two functions that together make features of prepared pictures.

    `before(pixels, s)` runs what precedes stage s, once for all where it is frozen; `after(weights, x, s)` runs the
    rest on any values of the weights and gives [n, D], not of unit norm.
    """

    tensors: dict[str, Tensor]
    stages: tuple[tuple[str, ...], ...]  # first to last
    norms: frozenset[str]  # weights and biases of normalisation layers
    gains: frozenset[str]  # convolutions with a norm folded in: its gain scales their output channels
    before: Callable[[Tensor, int], Tensor]
    after: Callable[[Mapping[str, Tensor], Tensor, int], Tensor]


def module_body(module: nn.Module, normalise: Callable[[Tensor], Tensor]) -> Body:
    """Make a body of any torch module; it stays in the mode for use. `normalise` makes its input of prepared pictures.

    What a module computes before a stage cannot be told from its names: `before` only does that.
    """
    tensors = {name: p.detach() for name, p in module.named_parameters()}
    kinds = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)
    owners = [name for name, part in module.named_modules() if isinstance(part, kinds)]
    norms = frozenset(name for name in tensors if name.rpartition(".")[0] in owners)

    def before(pixels: Tensor, stage: int) -> Tensor:
        return normalise(pixels).contiguous(memory_format=torch.channels_last)

    def after(weights: Mapping[str, Tensor], x: Tensor, stage: int) -> Tensor:
        features: Tensor = torch.func.functional_call(module, dict(weights), (x,))
        return features

    return Body(tensors, stages_of(list(tensors)), norms, frozenset(), before, after)


def stages_of(names: list[str]) -> tuple[tuple[str, ...], ...]:
    """Group names by `layer3`, `blocks.11`, `stages.2` and the like, or else by top-level module.

    What precedes the first of them is one stage; what follows the last belongs to it.
    """
    matches = {name: STAGE.match(name) for name in names}
    keys = {name: found[0] if found else "" for name, found in matches.items()}
    if not any(keys.values()):
        keys = {name: name.partition(".")[0] for name in names}
    end = max(i for i, key in enumerate(keys.values()) if key)
    last = keys[names[end]]
    found: dict[str, list[str]] = {}
    for i, (name, key) in enumerate(keys.items()):
        ends = i > end or name.partition(".")[0] in LAST
        found.setdefault(key or (last if ends else ""), []).append(name)
    order = [key for key in found if key != last] + [last]
    return tuple(tuple(found[key]) for key in order)


def put(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy values into parameters of a module.

    Raises
    ------
    FormatError
        when it has no such parameter, or one of another shape.
    """
    own = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in tensors.items():
            check_fit(name, value, own)
            own[name].copy_(value)


def check_fit(name: str, value: Tensor, own: Mapping[str, Tensor]) -> None:
    """Raise FormatError when `own` has no tensor of that name and shape."""
    if name not in own or own[name].shape != value.shape:
        has = list(own[name].shape) if name in own else "nothing"
        raise FormatError(f"the weights do not fit their base: {name!r} is {list(value.shape)}, there it is {has}")
