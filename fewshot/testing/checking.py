"""The frame of the checks: their table, how a failure reads, and how logits are compared."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fewshot.errors import PluginError
from fewshot.strategy import Strategy, fit
from fewshot.task import Task

Check = Callable[[Strategy], None]

STRATEGY_CHECKS: dict[str, Check] = {}
TOLERANCE = 1e-4  # of the largest logit, in float64: room for iterative methods that stop early


def check(function: Check) -> Check:
    """Enter a check into STRATEGY_CHECKS and make every failure, a crash too, an AssertionError that says where."""
    name = function.__name__

    @functools.wraps(function)
    def checked(strategy: Strategy) -> None:
        try:
            function(strategy)
        except Exception as error:
            own = (isinstance(error, PluginError) and error.__cause__) or error  # what the strategy itself raised
            kind = "" if isinstance(own, AssertionError) else f"{type(own).__name__}: "
            label = getattr(strategy, "name", type(strategy).__name__)
            raise AssertionError(f"strategy {label!r} fails check {name}: {kind}{own}") from error

    STRATEGY_CHECKS[name] = checked
    return checked


def variants(strategy: Strategy) -> Iterator[frozenset[str]]:
    """Sets of inputs to try: what the strategy needs, then together with what it uses when there."""
    yield strategy.needs
    if strategy.uses - strategy.needs:
        yield strategy.needs | strategy.uses


def answer(strategy: Strategy, task: Task, query: Tensor) -> Tensor:
    """Logits of the queries, through the engine's own `fit`.  [*B, Q, D] -> [*B, Q, C]"""
    return fit(strategy, task).logits(query)


def same(got: Tensor, wanted: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """Refuse logits that differ from the wanted ones by more than `tolerance` of the largest of those."""
    assert got.shape == wanted.shape, f"{what}: logits are {list(got.shape)}, wanted {list(wanted.shape)}"
    scale = float(wanted.detach().abs().max().clamp_min(1e-6)) if wanted.numel() else 1.0
    gap = float((got - wanted).abs().max()) / scale if wanted.numel() else 0.0
    assert gap <= tolerance, f"{what}: logits differ by {gap:.2g} of their size, allowed {tolerance:g}"


def finite(logits: Tensor, what: str) -> None:
    """Refuse logits that hold NaN or infinity."""
    assert bool(torch.isfinite(logits).all()), f"{what}: logits hold NaN or infinity"
