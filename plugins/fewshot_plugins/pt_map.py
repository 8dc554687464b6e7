"""Power transform and maximum a posteriori (PT-MAP). Hu, Gripon, Pateux 2020, arXiv:2006.03806."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot.arrays import TINY, unit
from fewshot_plugins._gram import Span, centred, span
from fewshot_plugins._guard import EVENNESS, SPREAD, choose, usable
from fewshot_plugins._sinkhorn import balance


def power_transform(x: Tensor, power: float) -> Tensor:
    """`sign(x) |x|^power`, scaled to length 1: the paper's transform, extended to negative features.  [..., D]"""
    return x if power == 1 else unit(torch.copysign(x.abs().pow(power), x))


@dataclass(frozen=True, slots=True)
class PtMapHead:
    """Nearest prototype of transformed and centred features, with a potential for each class."""

    weight: Tensor  # [*B, C, D]
    bias: Tensor  # [*B, C]
    centre: Tensor  # [*B, D] taken from the transformed features
    power: float
    used: Tensor  # [*B] bool; False: the guard fell back to the inductive answer

    def logits(self, query: Tensor) -> Tensor:
        """Score queries.  [*B, Q, D] -> [*B, Q, C]"""
        rows = power_transform(query, self.power)  # [*B, Q, D]
        dots = rows @ torch.cat([self.weight, self.centre.unsqueeze(-2)], -2).mT  # [*B, Q, C + 1]
        square = self.centre.square().sum(-1)[..., None, None]  # [*B, 1, 1]
        # |f - m|^2 with |f| = 1, so that f - m, as large as all the queries, is never formed
        length = (1 + square - 2 * dots[..., -1:]).clamp_min(TINY).sqrt()  # [*B, Q, 1]
        shift = self.weight @ self.centre.unsqueeze(-1)  # [*B, C, 1]
        return (dots[..., :-1] - shift.mT) / length + self.bias.unsqueeze(-2)


def transport(space: Span, regularisation: float, rate: float, steps: int) -> tuple[Tensor, Tensor]:
    """Move prototypes towards the items assigned to them.  -> their coefficients [*B, C, n], potentials [*B, C]

    Algorithm 1 of the paper, in the span of the rows: assign the unlabelled items by balanced transport to the
    prototypes, then move each prototype by `rate` towards the mean of its support and its assigned items.
    """
    support = space.hot.shape[-1]
    coeff, assigned = space.means, space.means.new_zeros(space.means.shape)  # [*B, C, n] each
    assigned[..., :support] = space.hot
    potential = coeff.new_zeros(coeff.shape[:-1])  # [*B, C]
    for step in range(steps + 1):
        scores = space.scores(coeff)[..., support:].mul_(2 * regularisation)  # [*B, C, U]
        plan, potential = balance(scores, potential)
        if step < steps:
            assigned[..., support:] = plan
            coeff = coeff.lerp(assigned / assigned.sum(-1, keepdim=True), rate)
    return coeff, potential


@dataclass(frozen=True)
class PtMap(Strategy):
    """Balanced optimal transport between the unlabelled items and prototypes that move towards them.

    With f(z) = sign(z) |z|^b scaled to length 1, centred on the mean of its set (support: the mean of the class means;
    unlabelled: their mean) and scaled to length 1 again, costs L_ik = |f(z_i) - c_k|^2 and P the plan that minimises
    sum P L - H(P)/r with rows summing to 1 and columns to U/C (a real number: U need not be a multiple of C),

        c_k <- c_k + rate ((sum_S y_ik f(z_i) + sum_Q P_ik f(z_i)) / (sum_S y_ik + sum_Q P_ik) - c_k)

    The head is softmax(-r |f(z) - c_k|^2 + v_k) with the transport's class potentials v, so that it gives an unlabelled
    item its row of the plan. r, rate and steps are the paper's; it has b = 0.5 for ReLU features, but b = 1 (no
    transform) was better by 3.7 points on average over five sets of pictures, whose embeddings have negative values;
    centring is from the authors' code and gained 1.2 points there.
    """

    name = "pt_map"
    needs = frozenset({"support", "unlabeled"})
    speed = "iterative"
    paper = "Hu, Gripon, Pateux 2020, arXiv:2006.03806"
    heads = (PtMapHead,)
    power: float = option(1.0, "exponent b of the power transform (paper: 0.5, for ReLU features)", min=0.0, max=1.0)
    center: bool = option(True, "subtract the mean of the support and of the unlabelled items")
    regularisation: float = option(10.0, "factor r on the squared distances (paper: 10)", min=0.0)
    rate: float = option(0.2, "share of the way that prototypes move in a step (paper: 0.2)", min=0.0, max=1.0)
    steps: int = option(20, "moves of the prototypes (paper: 20)", min=0)
    guard: bool = option(True, "give the inductive answer when the unlabelled items are too few or too skewed")

    def fit(self, task: Task) -> PtMapHead:
        """Transport.  -> weight [*B, C, D], bias [*B, C], centre [*B, D]"""
        support, items = power_transform(task.support, self.power), power_transform(task.unlabeled, self.power)
        space = span(task, support, items)
        mean = space.prototypes(space.means)  # [*B, C, D]
        plain = space.scores(space.means)[..., support.shape[-2] :].mT  # [*B, U, C]
        used = usable(self.name, (plain, SPREAD), (space.settle(), EVENNESS), per_class=2, guard=self.guard)
        centre = items.mean(-2) if self.center else torch.zeros_like(items[..., 0, :])  # [*B, D]
        if self.center:
            space = centred(space, mean.mean(-2), centre)
        coeff, potential = transport(space, self.regularisation, self.rate, self.steps)
        prototypes = choose(used, space.prototypes(coeff), mean)  # [*B, C, D]
        bias = choose(used, potential, torch.zeros_like(potential))  # [*B, C]
        bias = bias - self.regularisation * prototypes.square().sum(-1)
        centre = choose(used, centre, torch.zeros_like(centre))
        return PtMapHead(2 * self.regularisation * prototypes, bias, centre, self.power, used)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `pt_map`."""
    register(PtMap)
