"""Subspace alignment. Fernando, Habrard, Sebban, Tuytelaars 2013, ICCV, doi:10.1109/ICCV.2013.368."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot.arrays import unit
from fewshot.transfer.spectrum import spectrum
from fewshot_plugins._alignment import Alignment, Space
from fewshot_plugins._domains import Domains


def principal_axes(x: Tensor, most: int) -> Tensor:
    """Directions of largest variance of centred rows, largest first, at most so many.  [n, D] -> [D, M]"""
    left, energy = spectrum(x)  # [n, R], [R] rising
    axes: Tensor = (x.mT @ left / energy.sqrt())[:, -most:].flip(-1)
    return axes


@dataclass(frozen=True)
class Subspace(Alignment):
    """Turn the source's principal axes onto the target's, then learn from source and support together.

    With P_s and P_t the first `dims` principal axes [D, M] of either domain, the source goes to (x - m_s) P_s P_s' P_t
    and the target to (z - m_t) P_t, and both are scaled to length 1. The paper takes 20 to 100 axes; here 50, or as
    many as the smaller domain spans.
    """

    name = "subspace"
    paper = "Fernando, Habrard, Sebban, Tuytelaars 2013, doi:10.1109/ICCV.2013.368"
    dims: int = option(50, "number of principal axes, at most", min=1)
    then: str = option("ridge", "strategy that learns from source and support once they are aligned")

    def align(self, both: Domains, task: Task) -> tuple[Tensor, Space | None]:
        """Find both bases and turn the source."""
        x, m = both.source - both.source.mean(0), both.items.mean(0)
        ours, theirs = principal_axes(both.items - m, self.dims), principal_axes(x, self.dims)  # [D, M] each
        if not ours.shape[1] or not theirs.shape[1]:  # all items of a domain are alike
            return both.source, None
        space = Space(ours, m @ ours, both.items[:0], 1.0)
        return unit(x @ theirs @ (theirs.mT @ ours)), space


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `subspace`."""
    register(Subspace)
