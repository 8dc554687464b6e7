"""Source and support as one: what every other way of transfer has to beat. Daume 2007 ("All"), arXiv:0907.1815."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot_plugins._alignment import Alignment, Space
from fewshot_plugins._domains import Domains


@dataclass(frozen=True)
class Pooled(Alignment):
    """Learn from source and support together as if they were one domain, with the strategy `then`.

    The baseline "All" of the paper: no alignment, no weights, source items of the task's classes [N, D] count like
    support. It shows whether a source helps or hurts as it is.
    """

    name = "pooled"
    paper = "Daume 2007, arXiv:0907.1815"
    then: str = option("ridge", "strategy that learns from source and support together")

    def align(self, both: Domains, task: Task) -> tuple[Tensor, Space | None]:
        """Leave both domains as they are."""
        return both.source, None


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `pooled`."""
    register(Pooled)
