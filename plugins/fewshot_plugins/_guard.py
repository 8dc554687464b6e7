"""The guard of the transductive strategies: whether the unlabelled items of a task are likely to help."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import LinearHead

SPREAD, EVENNESS = 0.7, 0.94  # least effective share of the classes, by the class means and after k-means
WIDENING = 1.05  # of the effective number of classes, by what an adapted answer may exceed the inductive one


class GuardWarning(UserWarning):
    """A transductive strategy gave the inductive answer, because its unlabelled items would not have helped."""


@dataclass(frozen=True, slots=True)
class AdaptedHead(LinearHead):
    """A linear head that records for each task whether the unlabelled items shaped it."""

    used: Tensor | None = None  # [*B] bool; False: the guard fell back to the inductive answer


def usable(
    name: str, *judged: tuple[Tensor, float], per_class: float, guard: bool = True, adapted: Tensor | None = None
) -> Tensor:
    """Decide for each task whether to adapt to its unlabelled items, and warn when some are better left alone.

    Items are too few when there are less than `per_class` for each class. They are too skewed when the classes
    predicted for them are, in effect, less than a share of all: with n_k items predicted to be of class k and
    U = sum_k n_k, the effective number of classes is exp(-sum_k n_k/U log n_k/U). Each task is judged on its own, so a
    batch gives what a loop gives.

    Parameters
    ----------
    name
        the strategy's, for the warning.
    judged
        logits for the unlabelled items [*B, U, C], the inductive answer's first, each with the least effective number
        of classes as a share of C, in [0, 1]; 0 accepts any skew.
    per_class
        least number of unlabelled items a class.
    guard
        False accepts everything.
    adapted
        logits of the adapted answer [*B, U, C], for a method that bears skewed items unless they make it spread them
        over more classes, in effect, than the inductive answer does: then its pull towards equal shares has won.

    Returns
    -------
    bool [*B], True where the items may be used.
    """
    logits = judged[0][0]
    items, classes = logits.shape[-2:]
    used = torch.ones(logits.shape[:-2], dtype=torch.bool, device=logits.device)  # [*B]
    if not guard:
        return used
    wanted = per_class * classes
    if items < wanted:
        problem = f"{items} unlabelled items for {classes} classes are too few to adapt to (wanted {wanted:g} or more)"
        used = ~used
    else:
        problem = f"the unlabelled items seem to lie in few of the {classes} classes, or very unevenly"
        for answer, share in judged:
            if share > 0:
                used = used & (effective_classes(answer) >= share * classes)  # [*B]
        if adapted is not None:
            used = used & (effective_classes(adapted) <= WIDENING * effective_classes(logits))
    if not bool(used.all()):
        text = f"{name}: {problem}, so the answer is the inductive one; guard=off adapts all the same"
        warnings.warn(text, GuardWarning, stacklevel=4)
    return used


def effective_classes(logits: Tensor) -> Tensor:
    """Exponential of the entropy of the predicted classes' frequencies, in [1, C].  [*B, U, C] -> [*B]"""
    best = (logits == logits.amax(-1, keepdim=True)).to(logits.dtype)  # [*B, U, C] ties count for every class
    share = best.sum(-2)  # [*B, C]
    share = share / share.sum(-1, keepdim=True)
    entropy: Tensor = torch.special.entr(share).sum(-1)  # [*B]
    return entropy.exp()


def choose(used: Tensor, adapted: Tensor, inductive: Tensor) -> Tensor:
    """Take the adapted tensor of a task where its unlabelled items were used.  used [*B], others [*B, ...]"""
    return torch.where(used.reshape(*used.shape, *[1] * (adapted.ndim - used.ndim)), adapted, inductive)
