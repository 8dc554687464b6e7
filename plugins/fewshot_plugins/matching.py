"""Matching networks: attention over the examples. Vinyals, Blundell, Lillicrap et al. 2016, arXiv:1606.04080."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fewshot import Strategy, Task, hookimpl, option
from fewshot_plugins._neighbours import VoteHead


@dataclass(frozen=True)
class Matching(Strategy):
    """A query attends to every example; a class's probability is the attention its examples get.

    P(c | z) = sum over i of class c of a(z, x_i), with a the softmax of cosine(z, x_i) / T over all examples (equations
    1 and 2 of the paper, without its learned encoders); logit_c = log P(c | z). Classes with more examples weigh more,
    as in the paper. The paper's T is 1, for embeddings trained with it; frozen ones want about 0.05, the best of 0.02,
    0.05, 0.1 and 0.2 over the five picture sets at 1 to 16 shots.
    """

    name = "matching"
    paper = "Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra 2016, arXiv:1606.04080"
    heads = (VoteHead,)
    temperature: float = option(0.05, "T: cosines are divided by it; lower lets the nearest decide", min=1e-3)

    def fit(self, task: Task) -> VoteHead:
        """Keep the examples.  -> support [*B, S, D], labels [*B, S]"""
        return VoteHead(task.support, task.labels, task.classes, None, self.temperature)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `matching`."""
    register(Matching)
