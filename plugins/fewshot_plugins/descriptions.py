"""Descriptions of classes: DCLIP, Menon, Vondrick 2022, arXiv:2210.07183; CuPL, Pratt et al. 2022, arXiv:2209.03320."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fewshot import LinearHead, Strategy, Task, hookimpl, option
from fewshot.arrays import unit
from fewshot_plugins.zero_shot import phrase_means


@dataclass(frozen=True)
class Descriptions(Strategy):
    """Score a query against several written descriptions of each class, given as the class's phrases.

    `dclip` averages cosines, logit_k = scale mean_p z.e_kp = scale z.(mean_p e_kp), so the head is linear and a class
    whose descriptions agree scores higher. `cupl` averages the embeddings and re-normalises, as `zero_shot` does.
    Phrases may be weighted. Write descriptions into the classes file, e.g. {"hen": ["hen, which has a red comb"]}.
    """

    name = "descriptions"
    needs = frozenset({"text"})
    unseen = True
    paper = "Menon, Vondrick 2022, arXiv:2210.07183; Pratt et al. 2022, arXiv:2209.03320"
    mode: str = option("dclip", "dclip: mean of the cosines; cupl: cosine to the mean", choices=("dclip", "cupl"))
    scale: float = option(30.0, "factor on the cosine; higher is more confident (100 for CLIP)", min=0.0)

    def fit(self, task: Task) -> LinearHead:
        """Average the descriptions of each class.  -> weight [*B, C, D]"""
        mean = phrase_means(task)  # [*B, C, D]
        return LinearHead(self.scale * (mean if self.mode == "dclip" else unit(mean)))


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `descriptions`."""
    register(Descriptions)
