"""LP++: a linear probe with learned text weights and step sizes from the data. Huang et al. 2024, arXiv:2404.02285."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import LinearHead, Strategy, Task, hookimpl, option
from fewshot.arrays import unit
from fewshot_plugins._descent import MOMENTUM, batches, cross_entropy_slope
from fewshot_plugins._spectrum import symmetric_eigen
from fewshot_plugins.prototypical import class_means
from fewshot_plugins.zero_shot import phrase_means


@dataclass(frozen=True)
class LpPlusPlus(Strategy):
    """Add to each visual class vector the class's text with a weight of its own, and learn both.

    logit_k = z.(w_k + alpha_k t_k), cross-entropy on the examples, all of them in each step with momentum 0.9
    (section 3 of the paper). Nothing is tuned: with F the examples and N their number, the step for w is
    4 N / lambda_max(F'F), and that for alpha, taken every tenth time, N / (4 max_k sum_i (z_i.t_k)^2), both from
    Lipschitz constants of the loss; w starts at the class means, alpha_k at `boost` / shots times the mean of z.t_k
    over the class's examples. The authors pick the best epoch on a validation set; this takes the last.
    """

    name = "lp_plus_plus"
    needs = frozenset({"support", "text"})
    speed = "gradient"
    paper = "Huang et al. 2024, arXiv:2404.02285"
    boost: float = option(250.0, "first weight of the text, relative to mean cosine / shots (250 in the code)")
    steps: int = option(300, "steps of gradient descent", min=0)
    every: int = option(10, "the text weights move each so many steps", min=1)

    def fit(self, task: Task) -> LinearHead:
        """Learn the class vectors and the weights of the text.  -> weight [*B, C, D]"""
        text, take = unit(phrase_means(task)), batches(task)
        weight, alpha = class_means(task), self.first_alpha(task, text)
        weight_rate, alpha_rate = rates(task, text)
        velocity, alpha_velocity = torch.zeros_like(weight), torch.zeros_like(alpha)
        for step in range(self.steps):
            query, labels = take(step)
            error = cross_entropy_slope(query @ (weight + alpha.unsqueeze(-1) * text).mT, labels)  # [*B, n, C]
            slope = error.mT @ query  # [*B, C, D]
            velocity = MOMENTUM * velocity + slope
            weight = weight - weight_rate[..., None, None] * velocity
            if step % self.every == 0:
                alpha_velocity = MOMENTUM * alpha_velocity + (slope * text).sum(-1)  # [*B, C]
                alpha = alpha - alpha_rate.unsqueeze(-1) * alpha_velocity
        return LinearHead(weight + alpha.unsqueeze(-1) * text)

    def first_alpha(self, task: Task, text: Tensor) -> Tensor:
        """Start of the text weights.  -> [*B, C]"""
        hot = task.one_hot()  # [*B, S, C]
        counts = hot.sum(-2).clamp_min(1)  # [*B, C]
        return self.boost / counts * ((task.support @ text.mT) * hot).sum(-2) / counts


def rates(task: Task, text: Tensor) -> tuple[Tensor, Tensor]:
    """Step sizes for the class vectors and for the text weights.  -> [*B], [*B]"""
    real = (task.labels >= 0).to(task.dtype).unsqueeze(-1)  # [*B, S, 1]
    x, count = task.support * real, real.sum((-2, -1))  # [*B, S, D], [*B]
    gram = x @ x.mT if x.shape[-2] < x.shape[-1] else x.mT @ x
    top = symmetric_eigen(gram)[0][..., -1]  # [*B]
    along = (x @ text.mT).square().sum(-2).amax(-1)  # [*B]
    return 4 * count / top.clamp_min(1e-9), count / (4 * along).clamp_min(1e-9)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `lp_plus_plus`."""
    register(LpPlusPlus)
