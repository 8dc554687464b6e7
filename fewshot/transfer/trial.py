"""Does the source help? Strategies with and without it, paired over repeated splits of the labelled target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.errors import DataError, MissingInput
from fewshot.metrics.interval import Estimate, t_quantile
from fewshot.registry import registry
from fewshot.strategy import Strategy, fit
from fewshot.task import make_task
from fewshot.transfer.spectrum import spectrum

ALONE = "ridge"  # what the target is learned with when the source is left out, and what pooling learns with
SAME = ("pooled", "biased_ridge", "coral", "subspace", "tca", "jda", "kmm", "tradaboost", "multi_task", "bayes")
OTHER = ("multi_task", "bayes")  # for a source whose classes are not the target's; `dann` takes long: name it
HELD_OUT = 4  # one in so many items of a class, and at least one, is held out
MOST = 600  # source items a trial learns from; more are sampled, evenly over classes
Ints = NDArray[np.int64]


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
    """Accuracy of each strategy on the held-out items of each split; `ridge` is without the source."""

    accuracy: dict[str, NDArray[np.float64]]  # [J] in [0, 1]
    ratio: float  # held-out items over items learned from, which the interval needs
    left_out: dict[str, str]  # strategies that could not be tried, and why

    def gain(self, name: str, over: str = ALONE) -> Estimate:
        """Difference of two strategies' accuracies with its 95 % half width."""
        return corrected(self.accuracy[name] - self.accuracy[over], self.ratio)

    def best(self) -> str:
        """The strategy of highest mean accuracy; on equal ones the earlier, and so the simpler."""
        return max(self.accuracy, key=lambda name: float(self.accuracy[name].mean()))


def corrected(differences: NDArray[np.float64], ratio: float) -> Estimate:
    """Mean of differences over splits that share their items, with a t interval of the corrected variance.

    Nadeau, Bengio 2003, Machine Learning 52: the variance of the mean is s^2 (1 / J + n_test / n_train), since splits
    overlap and so are not independent.
    """
    count = len(differences)
    if count < 2:
        return Estimate(float(differences.mean()), math.nan, count)
    error = math.sqrt(float(differences.var(ddof=1)) * (1 / count + ratio))
    return Estimate(float(differences.mean()), t_quantile(0.975, count - 1) * error, count)


def splits(labels: Ints, repeats: int, seed: int) -> list[tuple[Ints, Ints]]:
    """Rows to learn from and rows held out, of every class, `repeats` times.

    Raises
    ------
    DataError
        when a class has fewer than two items.
    """
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    found = []
    for _ in range(repeats):
        held = [rng.permutation(g)[: max(1, len(g) // HELD_OUT)] for g in groups]
        test = np.sort(np.concatenate(held))
        found.append((np.setdiff1d(np.arange(len(labels)), test), test))
    return found


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
        raise DataError(
            f"class {few!r} of the target has {count.min()} labelled items; advice needs at least 2 of each class, one "
            "to learn from and one to test with"
        )
    if not len(pair.source_labels):
        raise DataError("the source has no labels; put its items into class folders, or list them with a label")
    if len(torch.unique(pair.source_labels)) < 2:
        raise DataError("the source has one class only; a source that tells nothing apart has nothing to transfer")


def candidates(pair: Pair, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Strategies to try: those named, or those that suit the source's classes and are installed."""
    known = registry().strategies
    return tuple(names) or tuple(n for n in (SAME if pair.shared > 1 else OTHER) if n in known)


def try_out(pair: Pair, names: Sequence[str], *, repeats: int = 10, seed: int = 0) -> Trial:
    """Fit every strategy on the same splits of the target, and the target alone.

    All is done in the span of the items, which loses nothing and saves time where items are fewer than dims.

    Raises
    ------
    DataError
        as `check_size` does.
    """
    check_size(pair)
    pair = spanned(thinned(pair, seed))
    return run_parts(pair, names, splits(pair.labels.numpy(), repeats, seed))


def run_parts(pair: Pair, names: Sequence[str], parts: Sequence[tuple[Ints, Ints]]) -> Trial:
    """Accuracy of every strategy, and of the target alone, on the given rows to learn from and to test with."""
    accuracy: dict[str, NDArray[np.float64]] = {}
    left_out: dict[str, str] = {}
    for name in (ALONE, *names):
        strategy = registry().strategy(name)()
        try:
            accuracy[name] = np.array([held_out_accuracy(strategy, pair, *part) for part in parts])
        except MissingInput as error:
            left_out[name] = str(error)
    return Trial(accuracy, len(parts[0][1]) / len(parts[0][0]), left_out)


def held_out_accuracy(strategy: Strategy, pair: Pair, learn: Ints, test: Ints) -> float:
    """Accuracy on some rows of the target after learning from others, with the source if the strategy takes one."""
    rows = torch.from_numpy(learn)
    wanted = "source" in strategy.needs | strategy.uses
    task = make_task(
        pair.target[rows],
        pair.labels[rows],
        source=pair.source if wanted else None,
        source_labels=pair.source_labels if wanted else None,
        classes=len(pair.classes),
    )
    held = torch.from_numpy(test)
    return float((fit(strategy, task).logits(pair.target[held]).argmax(-1) == pair.labels[held]).double().mean())


def thinned(pair: Pair, seed: int) -> Pair:
    """The pair with at most MOST source items: of each class in turn one, while there are any."""
    if len(pair.source) <= MOST:
        return pair
    labels = pair.source_labels.numpy()
    order = np.random.default_rng(seed).permutation(len(labels))
    rank = np.empty(len(labels), np.int64)
    for c in np.unique(labels):
        mine = order[labels[order] == c]
        rank[mine] = np.arange(len(mine))
    rows = torch.from_numpy(np.sort(order[np.argsort(rank[order], kind="stable")][:MOST]))
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
