"""Which weights move, and how: all of a tensor, a low-rank part of it, or the gains of its channels.

LoRA (Hu 2021, arXiv:2106.09685): W + B A with A [R, in] random and B [out, R] zero, so that it starts at W. A kernel
[out, in, k, k] counts as the matrix [out, in k k]; kernels of one input channel are too small for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot.encoders.body import Body
from fewshot.errors import InvalidOption


@dataclass(frozen=True, slots=True)
class Choice:
    """What to train: the names of the tensors by depth, last stage first, and the first stage among them."""

    first: int  # stage; those before it are run as they are
    stages: tuple[tuple[str, ...], ...]  # last to first; a stage may have no names
    lora: int  # rank, or 0


def choose(body: Body, freeze: str, lora: int) -> Choice:
    """Read `--freeze all | none | norm | stages:N` (train the last N stages) and `--lora R`.

    Raises
    ------
    InvalidOption
        for another word, more stages than there are, or a rank that no tensor is large enough for.
    """
    count = len(body.stages)
    word, _, number = freeze.partition(":")
    if word not in ("all", "none", "norm", "stages") or (word == "stages") != number.isdecimal():
        raise InvalidOption(f"--freeze is all, none, norm or stages:N, got {freeze!r}")
    if lora < 0 or (lora and word in ("all", "norm")):
        raise InvalidOption(f"--lora {lora} does not go with --freeze {freeze}; use none or stages:N")
    depth = {"all": 0, "stages": int(number or 0)}.get(word, count)
    if depth > count:
        raise InvalidOption(f"--freeze stages:{depth} trains more stages than the {count} there are")
    stages = tuple(body.stages[count - 1 - i] for i in range(depth))
    if word == "norm":
        stages = tuple(tuple(n for n in names if n in body.norms or n in body.gains) for names in stages)
    if lora:
        stages = tuple(tuple(n for n in names if _has_rank(body.tensors[n], lora)) for names in stages)
    if depth and not any(stages):
        raise InvalidOption(f"--freeze {freeze} --lora {lora} leaves nothing to train in this encoder")
    first = min((count - 1 - i for i, names in enumerate(stages) if names), default=count - 1)
    return Choice(first, stages, lora)


def _has_rank(tensor: Tensor, rank: int) -> bool:
    return tensor.ndim in (2, 4) and min(tensor.shape[:2]) > rank


def parameters(body: Body, choice: Choice, freeze: str, noise: torch.Generator) -> dict[str, Tensor]:
    """Make what the optimiser moves, named `KIND TENSOR`; `effective` of it is where the body starts."""
    found: dict[str, Tensor] = {}
    for name in (name for names in choice.stages for name in names):
        tensor = body.tensors[name]
        if choice.lora:
            rows, columns = len(tensor), tensor[0].numel()
            down = torch.randn(choice.lora, columns, generator=noise) / math.sqrt(columns)
            found[f"down {name}"] = down.to(tensor.device)
            found[f"up {name}"] = torch.zeros(rows, choice.lora, device=tensor.device)
        elif freeze == "norm" and name in body.gains:
            found[f"gain {name}"] = torch.ones(len(tensor), device=tensor.device)
        else:
            found[f"full {name}"] = tensor.detach().clone()
    return {name: value.requires_grad_() for name, value in found.items()}


def effective(body: Body, moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of the tensors that parameters stand for."""
    values: dict[str, Tensor] = {}
    for key, value in moved.items():
        kind, _, name = key.partition(" ")
        tensor = body.tensors[name]
        if kind == "full":
            values[name] = value
        elif kind == "gain":
            values[name] = tensor * value.reshape(-1, *[1] * (tensor.ndim - 1))
        elif kind == "up":
            values[name] = tensor + (value @ moved[f"down {name}"]).reshape(tensor.shape)  # [out, in, ...]
    return values
