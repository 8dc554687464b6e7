"""Transfer component analysis. Pan, Tsang, Kwok, Yang 2011, IEEE TNN 22, doi:10.1109/TNN.2010.2091281."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot.transfer.gap import median_width, rbf
from fewshot_plugins._alignment import Alignment, Space
from fewshot_plugins._components import moments, transfer_components
from fewshot_plugins._domains import Domains


def components(source: Tensor, target: Tensor, *, mu: float, dims: int, landmarks: int = 0) -> Space:
    """The space of TCA for two domains of any size.  [N, D], [T, D]

    With a linear kernel from D x D matrices. With `landmarks`, an RBF kernel of the median width in Nystroem's form:
    phi(z) = k(z, L) k(L, L)^-1/2 has phi(x) . phi(y) about k(x, y), exactly so when all items are landmarks, and TCA
    with that kernel is linear TCA on phi. Landmarks are taken evenly from the items sorted by their first differing
    element, so that their order does not matter.
    """
    total = len(source) + len(target)
    if not landmarks:
        turn = transfer_components(source, target, mu, dims)
        centre = (moments(source)[0] + moments(target)[0]) / total
        return Space(turn, centre @ turn, source[:0].double(), 1.0)
    chosen = _evenly(torch.cat([source, target]).double(), landmarks)  # [L, D]
    width = median_width(chosen)
    values, vectors = torch.linalg.eigh(rbf(chosen, chosen, width))
    kept = values > 1e-10 * values[-1]
    root = vectors[:, kept] / values[kept].sqrt()  # [L, R]
    near, far = (rbf(x.double(), chosen, width) @ root for x in (source, target))  # [N, R], [T, R]
    inner = components(near, far, mu=mu, dims=dims)
    return Space(root @ inner.turn, inner.shift, chosen, width)


def _evenly(items: Tensor, count: int) -> Tensor:
    order = items[:, 0].argsort(stable=True)
    places = torch.linspace(0, len(items) - 1, min(count, len(items)), device=items.device).round().long()
    return items[order[places]]


@dataclass(frozen=True)
class Tca(Alignment):
    """Project both domains onto directions in which they vary alike, then learn from source and support together.

    TCA takes the first eigenvectors W of (K L K + mu I)^-1 K H K, K the kernel matrix of both domains' items, L the
    matrix of the squared distance of the domains' means and H the centring, and places items at K W; here centred and
    scaled to length 1. The linear kernel is solved exactly from D x D matrices, so memory does not grow with the square
    of the items; `landmarks` > 0 takes an RBF kernel of the median width through so many of the items. The paper's mu
    is 1 and it takes 10 to 50 dims; here 50. The domain adaptation is that of the items, labels do not enter. With
    100,000 items of 256 dims the process peaks at 1.2 GB, with 500 landmarks at 1.8, with 1,664 dims at 3.3
    (benchmarks/results/tca_memory.json).
    """

    name = "tca"
    paper = "Pan, Tsang, Kwok, Yang 2011, doi:10.1109/TNN.2010.2091281"
    dims: int = option(50, "number of components, at most", min=1)
    mu: float = option(1.0, "penalty on the weights against the distance of the domains", min=1e-9)
    landmarks: int = option(0, "landmarks of an RBF kernel; 0 takes the linear kernel", min=0)
    then: str = option("ridge", "strategy that learns from source and support once they are aligned")

    def align(self, both: Domains, task: Task) -> tuple[Tensor, Space | None]:
        """Find the components and move the source there."""
        dims = min(self.dims, len(both.source) + len(both.items) - 1)
        space = components(both.source, both.items, mu=self.mu, dims=dims, landmarks=self.landmarks)
        return space.place(both.source), space


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `tca`."""
    register(Tca)
