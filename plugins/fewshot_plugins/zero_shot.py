"""Zero-shot classification by phrases: prompt ensembles. Radford et al. 2021, arXiv:2103.00020."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fewshot import LinearHead, Strategy, Task, hookimpl, option
from fewshot.arrays import unit
from fewshot.errors import MissingInput


def phrase_means(task: Task) -> Tensor:
    """Weighted mean of each class's unit-norm phrase embeddings.  -> [*B, C, D]

    Raises
    ------
    MissingInput
        when a class has no phrase of positive weight.
    """
    weight = task.text_weight.unsqueeze(-1)  # [*B, C, P, 1]
    total = weight.sum(-2)  # [*B, C, 1]
    bare = (total.squeeze(-1) <= 0).nonzero()
    if len(bare):
        raise MissingInput(f"class number {int(bare[0, -1])} has no phrase; give each class at least its name")
    return (weight * unit(task.text)).sum(-2) / total  # [*B, C, D]


@dataclass(frozen=True)
class ZeroShot(Strategy):
    """Score a query by its cosine to the mean of each class's phrases.

    With e_kp the unit embedding of phrase p of class k and v_kp its weight, w_k = unit(sum_p v_kp e_kp) and
    logit_k = scale z.w_k: the ensemble is taken in embedding space and re-normalised (section 3.1.4 of the paper).
    """

    name = "zero_shot"
    needs = frozenset({"text"})
    unseen = True
    paper = "Radford et al. 2021, arXiv:2103.00020"
    scale: float = option(30.0, "factor on the cosine; higher is more confident (100 for CLIP)", min=0.0)

    def fit(self, task: Task) -> LinearHead:
        """Average the phrases of each class.  -> weight [*B, C, D]"""
        return LinearHead(self.scale * unit(phrase_means(task)))


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `zero_shot`."""
    register(ZeroShot)
