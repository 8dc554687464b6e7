"""Joint distribution adaptation. Long, Wang, Ding, Sun, Yu 2013, ICCV, doi:10.1109/ICCV.2013.274."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import Strategy, Task, fit, hookimpl, option
from fewshot_plugins._alignment import Alignment, Space, together
from fewshot_plugins._components import joint_components
from fewshot_plugins._domains import Domains


@dataclass(frozen=True)
class Jda(Alignment):
    """Match the domains' means as a whole and class by class, then learn from source and support together.

    Like `tca` with a linear kernel, with the distances of the class means added: (X'MX + mu I) A = X'HX A Phi for the
    smallest Phi, M = M_0 + sum_c M_c. Unlabelled target items count for the class that the strategy `then` gives them,
    and all is done again with the new guesses, `rounds` times or until no guess changes; without unlabelled items one
    round is all. 10 rounds and 100 components are the paper's; its mu is 0.1 to 1. Guesses come from `then` instead of
    the paper's nearest neighbour.
    """

    name = "jda"
    speed = "iterative"
    paper = "Long, Wang, Ding, Sun, Yu 2013, doi:10.1109/ICCV.2013.274"
    dims: int = option(100, "number of components, at most", min=1)
    mu: float = option(1.0, "penalty on the weights against the distance of the domains", min=1e-9)
    rounds: int = option(10, "most times that the unlabelled items are labelled anew", min=1)
    then: str = option("ridge", "strategy that learns from source and support once they are aligned")

    def align(self, both: Domains, task: Task) -> tuple[Tensor, Space | None]:
        """Alternate between components and guesses."""
        x, taught = torch.cat([both.source, both.items]), len(both.labels)
        domain = (torch.arange(len(x), device=x.device) >= len(both.source)).long()  # [n]
        guess = both.labels.new_full((len(both.items) - taught,), -1)  # [U]
        dims = min(self.dims, len(x) - 1, x.shape[1])
        for _ in range(self.rounds):
            labels = torch.cat([both.source_labels, both.labels, guess])  # [n]
            turn = joint_components(x, domain, labels, task.classes, self.mu, dims)
            space = Space(turn, x.mean(0) @ turn, x[:0], 1.0)
            source, items = space.place(both.source), space.place(both.items)
            if not len(guess):
                break
            head = fit(self.learner(), together(both, source, space, task))
            before, guess = guess, head.logits(items[taught:]).argmax(-1)
            if torch.equal(before, guess):
                break
        return source, space


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `jda`."""
    register(Jda)
