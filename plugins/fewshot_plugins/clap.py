"""CLAP: class-adaptive linear probe anchored to the text. Silva-Rodriguez et al. 2024, arXiv:2312.12730."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import LinearHead, Strategy, Task, hookimpl, option
from fewshot.arrays import unit
from fewshot_plugins._descent import batches, cosine_rate, cosine_slope, cross_entropy_slope, sgd
from fewshot_plugins.zero_shot import phrase_means

WARM_UP = 1e-5  # learning rate of the first step


def zero_shot_trust(task: Task, text: Tensor, scale: float) -> Tensor:
    """Mean zero-shot probability of the true class, for the examples of each class; 1 where there are none.  -> [*B, C]

    It weighs the pull towards the text: a class that its phrases already find stays near them.
    """
    hot = task.one_hot()  # [*B, S, C]
    probability = (scale * task.support @ text.mT).softmax(-1)  # [*B, S, C]
    counts = hot.sum(-2)  # [*B, C]
    return torch.where(counts > 0, (probability * hot).sum(-2) / counts.clamp_min(1), 1.0)


@dataclass(frozen=True)
class Clap(Strategy):
    """Train class vectors that start at the text and are pulled back to it, each class by what the text is worth.

    min_w CE(scale z.w_k/|w_k|) + mean_k lambda_k |w_k - t_k|^2 from w = t, by gradient descent with momentum. lambda_k
    is the mean zero-shot probability of class k's own examples: the multiplier after one outer step of the augmented
    Lagrangian, then kept fixed (section 4.2 of the paper), so nothing is tuned on a validation set. `anchor=0` is the
    paper's ZS-LP. Rates, momentum and 300 epochs are the authors'; all examples take part in each step.
    """

    name = "clap"
    needs = frozenset({"support", "text"})
    unseen = True
    speed = "gradient"
    paper = "Silva-Rodriguez et al. 2024, arXiv:2312.12730"
    anchor: float = option(1.0, "factor on the pull towards the text; 0: none", min=0.0)
    scale: float = option(100.0, "factor on the cosine (CLIP's own is 100)", min=0.0)
    rate: float = option(0.1, "learning rate at the start; it falls along a cosine", min=0.0)
    steps: int = option(300, "steps of gradient descent", min=0)

    def fit(self, task: Task) -> LinearHead:
        """Train the class vectors.  -> weight [*B, C, D]"""
        text, take = unit(phrase_means(task)), batches(task)
        pull = 2 * self.anchor / task.classes * zero_shot_trust(task, text, self.scale).unsqueeze(-1)  # [*B, C, 1]

        def slope(weight: Tensor, step: int) -> Tensor:
            query, labels = take(step)
            error = cross_entropy_slope(self.scale * query @ unit(weight).mT, labels)  # [*B, n, C]
            return cosine_slope(weight, self.scale * error.mT @ query) + pull * (weight - text)

        rates = [WARM_UP, *(cosine_rate(step, self.steps, self.rate) for step in range(1, self.steps))][: self.steps]
        return LinearHead(self.scale * unit(sgd(text, slope, rates)))


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `clap`."""
    register(Clap)
