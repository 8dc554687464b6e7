"""Prototypical networks: nearest class mean. Snell, Swersky, Zemel 2017, arXiv:1703.05175."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fewshot import LinearHead, Strategy, Task, hookimpl, option


def class_means(task: Task) -> Tensor:
    """Mean embedding of each class, zero for a class without examples.  -> [*B, C, D]"""
    hot = task.one_hot()  # [*B, S, C]
    return hot.mT @ task.support / hot.sum(-2).clamp_min(1).unsqueeze(-1)  # [*B, C, D]


@dataclass(frozen=True)
class Prototypical(Strategy):
    """Score a query by its squared Euclidean distance to the mean of each class.

    With c_k the mean of class k, -t |z - c_k|^2 = t (2 z.c_k - |c_k|^2) - t |z|^2; the last term is the same for every
    class, so the head is linear: weight 2 t c_k, bias -t |c_k|^2 (section 2.4 of the paper).
    """

    name = "prototypical"
    paper = "Snell, Swersky, Zemel 2017, arXiv:1703.05175"
    temperature: float = option(10.0, "factor t on the squared distances; higher is more confident", min=0.0)

    def fit(self, task: Task) -> LinearHead:
        """Average the examples of each class.  -> weight [*B, C, D], bias [*B, C]"""
        mean = class_means(task)  # [*B, C, D]
        return LinearHead(2 * self.temperature * mean, -self.temperature * mean.square().sum(-1))


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `prototypical`."""
    register(Prototypical)
