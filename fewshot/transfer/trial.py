"""Does the source help? Strategies with and without it, on every labelled target item, held out in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from fewshot.errors import DataError, MissingInput
from fewshot.metrics.interval import Estimate, mean_interval
from fewshot.registry import registry
from fewshot.strategy import Strategy, fit
from fewshot.task import make_task, one_hot
from fewshot.transfer.chance import chance_of_harm
from fewshot.transfer.spectrum import spectrum

ALONE = "ridge"  # what the target is learned with when the source is left out, and what pooling learns with
STACK = "stacking"  # weighs other strategies by their held-out scores, which the trial has
SAME = (
    "pooled", "stacking", "biased_ridge", "coral", "subspace", "tca", "jda", "kmm", "tradaboost", "multi_task", "bayes",
)  # fmt: skip
OTHER = ("multi_task", "bayes")  # for a source whose classes are not the target's; `dann` takes long: name it
FOLDS = 5  # parts of the items of a class, at most, each held out in turn
LEAST = -30.0  # log-probabilities below are taken as this
MOST = 600  # source items a trial learns from; more are sampled, evenly over classes


@dataclass(frozen=True, slots=True)
class Pair:
    """Source and target in one embedding space; labels below C are the target's classes, from C on the source's own."""

    source: Tensor  # [N, D] unit-norm float32
    source_labels: Tensor  # [N] int64
    target: Tensor  # [n, D]
    labels: Tensor  # [n] int64 in [0, C)
    classes: tuple[str, ...]  # C names
    unlabeled: Tensor = field(default_factory=lambda: torch.zeros(0, 0))  # [U, D] of the target: for the gap alone

    @property
    def shared(self) -> int:
        """How many of the target's classes the source has."""
        return len(torch.unique(self.source_labels[self.source_labels < len(self.classes)]))


@dataclass(frozen=True, slots=True)
class Trial:
    """What classifiers that were not fitted to an item say of it, for all items; `ridge` is without the source."""

    log_p: dict[str, Tensor]  # [R, n, C] log-probabilities by each strategy, in each round
    labels: Tensor  # [n]
    left_out: dict[str, str]  # strategies that could not be tried, and why

    def right(self, name: str) -> Tensor:
        """In what share of the rounds each item was classified rightly.  -> [n] in [0, 1]"""
        return (self.log_p[name].argmax(-1) == self.labels).double().mean(0)

    def brier(self, name: str) -> Tensor:
        """Squared distance of the probabilities from the truth, mean over rounds (Brier 1950).  -> [n] in [0, 2]"""
        truth = one_hot(self.labels, self.log_p[name].shape[-1], torch.float64)  # [n, C]
        return (self.log_p[name].exp() - truth).square().sum(-1).mean(0)

    def accuracy(self, name: str) -> Estimate:
        """Mean of `right` with the 95 % half width over items."""
        return mean_interval(self.right(name).numpy())

    def gain(self, name: str) -> Estimate:
        """Accuracy of a strategy less that of the target alone, with the 95 % half width over items.

        All rounds score the same items, so the items and not the rounds are what the interval counts.
        """
        return mean_interval((self.right(name) - self.right(ALONE)).numpy())

    def skill(self, name: str, other: str = ALONE) -> Estimate:
        """Brier score of the target alone, or another, less that of a strategy, so that above 0 is better.

        It sees a smaller difference than accuracy does, which only changes when an answer does.
        """
        return mean_interval((self.brier(other) - self.brier(name)).numpy())

    def chance(self, name: str) -> float:
        """How likely it is that a strategy is worse than the target alone, by `fewshot.transfer.chance`."""
        return chance_of_harm(self.gain(name), self.skill(name), self.accuracy(ALONE))

    def best(self, names: Sequence[str] = ()) -> str:
        """The strategy of least mean Brier score, of those named or of all; on equal ones the earlier."""
        return min(names or self.log_p, key=lambda name: float(self.brier(name).mean()))


class Stack(Protocol):
    """A strategy that blends the scores of its members."""

    members: tuple[str, ...]

    def weigh(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Weights from logits for items that members were not fitted to.  [n, C, M], [n] -> [M]"""
        ...

    def blend(self, scores: Tensor, weights: Tensor) -> Tensor:
        """Logits of all members together.  [n, C, M], [M] -> [n, C]"""
        ...


def deal(labels: Tensor, rounds: int, seed: int) -> Tensor:
    """Number the fold that holds each item out, in every round: the items of a class dealt evenly.  [n] -> [R, n]

    There are `FOLDS` folds, or as many as the smallest class has items, if fewer.
    """
    rng, folds = np.random.default_rng(seed), torch.zeros(rounds, len(labels), dtype=torch.int64)
    count = min(FOLDS, int(torch.bincount(labels).min()))
    for fold in folds:
        for c in labels.unique():
            rows = torch.from_numpy(rng.permutation(np.flatnonzero(labels.numpy() == int(c))))
            fold[rows] = (torch.arange(len(rows)) + int(rng.integers(count))) % count
    return folds


def check_size(pair: Pair) -> None:
    """Refuse a target that nothing can be held out of, and a source that tells nothing apart.

    Raises
    ------
    DataError
        naming the class, or the source's only one.
    """
    count = np.bincount(pair.labels.numpy(), minlength=len(pair.classes))
    if not pair.classes:
        raise DataError("the target has no labelled items; put them into class folders, or list them with a label")
    if len(pair.classes) < 2:
        raise DataError(f"the target has one class only, {pair.classes[0]!r}; advice needs at least two")
    if count.min() < 2:
        few = pair.classes[int(count.argmin())]
        held = "1 labelled item" if count.min() == 1 else f"{count.min()} labelled items"
        raise DataError(
            f"class {few!r} of the target has {held}; advice needs at least 2 of each class, one to learn from and one "
            "to test with"
        )
    if not len(pair.source_labels):
        raise DataError("the source has no labels; put its items into class folders, or list them with a label")
    if len(torch.unique(pair.source_labels)) < 2:
        raise DataError("the source has one class only; a source that tells nothing apart has nothing to transfer")


def candidates(pair: Pair, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Strategies to try: those named, or those that suit the source's classes and are installed."""
    known = registry().strategies
    return tuple(names) or tuple(n for n in (SAME if pair.shared > 1 else OTHER) if n in known)


def learns_from_source(name: str) -> bool:
    """Whether a strategy takes what the source holds."""
    strategy = registry().strategy(name)
    return "source" in strategy.needs | strategy.uses


def try_out(pair: Pair, names: Sequence[str], *, rounds: int = 4, seed: int = 0) -> Trial:
    """Hold every item of the target out once a round, and score it by all strategies fitted to the others.

    All is done in the span of the items, which loses nothing and saves time where items are fewer than dims. The
    members of `stacking` are tried with it; its own score of an item blends theirs, by weights from other folds' items.

    Raises
    ------
    DataError
        as `check_size` does.
    """
    check_size(pair)
    pair = spanned(thinned(pair, seed))
    folds = deal(pair.labels, rounds, seed)
    stack = cast(Stack, registry().strategy(STACK)()) if STACK in names else None
    log_p: dict[str, Tensor] = {}
    left_out: dict[str, str] = {}
    for name in dict.fromkeys([ALONE, *names, *(stack.members if stack else ())]):
        try:
            if name != STACK:
                log_p[name] = held_out(registry().strategy(name)(), pair, folds)
        except MissingInput as error:
            left_out[name] = str(error)
    if stack:
        if lacking := [name for name in stack.members if name in left_out]:
            left_out[STACK] = left_out[lacking[0]]
        else:
            log_p[STACK] = stacked(stack, torch.stack([log_p[name] for name in stack.members], -1), pair.labels, folds)
    return Trial(log_p, pair.labels, left_out)


def held_out(strategy: Strategy, pair: Pair, folds: Tensor) -> Tensor:
    """Log-probabilities of every item by the strategy fitted to the other folds.  folds [R, n] -> [R, n, C]"""
    log_p = torch.zeros(*folds.shape, len(pair.classes), dtype=torch.float64)
    for r, fold in enumerate(folds):
        for k in fold.unique():
            log_p[r, fold == k] = scores(strategy, pair, fold != k, fold == k)
    return log_p


def stacked(stack: Stack, log_p: Tensor, labels: Tensor, folds: Tensor) -> Tensor:
    """Blend the members' held-out scores of each fold by weights from the others.  [R, n, C, M] -> [R, n, C]"""
    blended = torch.zeros(log_p.shape[:-1], dtype=torch.float64)
    for r, fold in enumerate(folds):
        for k in fold.unique():
            weights = stack.weigh(log_p[r, fold != k], labels[fold != k])  # [M]
            blended[r, fold == k] = stack.blend(log_p[r, fold == k], weights).log_softmax(-1).clamp_min(LEAST)
    return blended


def scores(strategy: Strategy, pair: Pair, learn: Tensor, test: Tensor) -> Tensor:
    """Log-probabilities of some rows of the target, learned from others, with the source if the strategy takes one.

    -> [test rows, C]
    """
    wanted = "source" in strategy.needs | strategy.uses
    task = make_task(
        pair.target[learn],
        pair.labels[learn],
        source=pair.source if wanted else None,
        source_labels=pair.source_labels if wanted else None,
        classes=len(pair.classes),
    )
    return fit(strategy, task).logits(pair.target[test]).double().log_softmax(-1).clamp_min(LEAST)


def thinned(pair: Pair, seed: int, most: int = MOST) -> Pair:
    """The pair with at most so many source items: of each class in turn one, while there are any."""
    if len(pair.source) <= most:
        return pair
    labels = pair.source_labels.numpy()
    order = np.random.default_rng(seed).permutation(len(labels))
    rank = np.empty(len(labels), np.int64)
    for c in np.unique(labels):
        mine = order[labels[order] == c]
        rank[mine] = np.arange(len(mine))
    rows = torch.from_numpy(np.sort(order[np.argsort(rank[order], kind="stable")][:most]))
    return Pair(pair.source[rows], pair.source_labels[rows], pair.target, pair.labels, pair.classes)


def spanned(pair: Pair) -> Pair:
    """The pair in coordinates of the span of its items: all inner products stay, dims may become fewer."""
    both = torch.cat([pair.source, pair.target])
    if len(both) >= both.shape[1]:
        return pair
    left, energy = spectrum(both)
    flat = (left * energy.sqrt()).float()  # [N + n, R]
    n = len(pair.source)
    return Pair(flat[:n], pair.source_labels, flat[n:], pair.labels, pair.classes)
