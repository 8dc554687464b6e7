"""CORAL: give the source the target's covariance. Sun, Feng, Saenko 2016, arXiv:1511.05547."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot.arrays import unit
from fewshot.transfer.spectrum import spectrum
from fewshot_plugins._alignment import Alignment, Space
from fewshot_plugins._domains import Domains


def times_power(rows: Tensor, x: Tensor, power: float, shrink: float) -> Tensor:
    """Rows times the power of x's covariance, C = x'x / (n - 1) + c I with c = shrink tr / D.  [m, D], [n, D] -> [m, D]

    For centred x. With V the principal axes and e their variances, C^p = c^p I + V ((e + c)^p - c^p) V': no D x D
    matrix is formed where items are few.
    """
    n, dim = max(1, len(x) - 1), x.shape[1]
    left, energy = spectrum(x)  # [n, R], [R]
    axes = (x.mT @ left) / energy.sqrt()  # [D, R]
    least = (shrink * energy.sum() / n / dim).clamp_min(1e-12)
    change = (energy / n + least).pow(power) - least.pow(power)  # [R]
    return least.pow(power) * rows + (rows @ axes * change) @ axes.mT


def recolour(source: Tensor, target: Tensor, shrink: float) -> Tensor:
    """Whiten the source, then colour it like the target: (x - mean_s) C_s^-1/2 C_t^1/2 + mean_t.  -> [N, D]"""
    x, z = source - source.mean(0), target - target.mean(0)
    return times_power(times_power(x, x, -0.5, shrink), z, 0.5, shrink) + target.mean(0)


@dataclass(frozen=True)
class Coral(Alignment):
    """Replace the source's mean and covariance by the target's, then learn from source and support together.

    x' = (x - m_s) C_s^-1/2 C_t^1/2 + m_t, scaled to length 1, for x of the source [N, D]; m and C are mean and
    covariance of the source and of the target's items, labelled and not. C = cov + shrink tr(cov) / D I: the paper adds
    I to covariances of standardised features, whose tr(cov) / D is 1, so `shrink` 1 is the paper's choice on embeddings
    of any scale. The target stays as it is. A target of one item aligns nothing.
    """

    name = "coral"
    paper = "Sun, Feng, Saenko 2016, arXiv:1511.05547"
    shrink: float = option(1.0, "weight of the sphere that is added to the covariances", min=1e-6)
    then: str = option("ridge", "strategy that learns from source and support once they are aligned")

    def align(self, both: Domains, task: Task) -> tuple[Tensor, Space | None]:
        """Recolour the source."""
        return unit(recolour(both.source, both.items, self.shrink)), None


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `coral`."""
    register(Coral)
