"""Strategy: how a Task becomes a Head; Head: a fitted classifier, an immutable bag of tensors."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from fewshot.blame import blamed
from fewshot.errors import MissingInput, PluginError
from fewshot.task import Task, check_task

NEEDS = {
    "support": "labelled examples: pass --support DIR, or Task.support and Task.labels",
    "text": "class names or phrases: pass --classes or --classes-file, or Task.text",
    "attributes": "a table of class attributes: pass --attributes CSV, or Task.attributes",
    "unlabeled": "unlabelled items to adapt to: pass --unlabeled DIR, or Task.unlabeled",
    "source": "labelled examples of another domain: pass --source DIR, or Task.source and Task.source_labels",
}


@runtime_checkable
class Head(Protocol):
    """A fitted classifier: a frozen dataclass of tensors, plain scalars, and other heads."""

    def logits(self, query: Tensor) -> Tensor:
        """Score each query on its own: the answer for one never depends on the others.  [*B, Q, D] -> [*B, Q, C]"""
        ...


@dataclass(frozen=True, slots=True)
class LinearHead:
    """`query @ weight.mT + bias`: prototypes, ridge, logistic regression, GDA, zero-shot, ESZSL ..."""

    weight: Tensor  # [*B, C, D]
    bias: Tensor | None = None  # [*B, C]

    def logits(self, query: Tensor) -> Tensor:
        """Score queries.  [*B, Q, D] -> [*B, Q, C]"""
        scores = query @ self.weight.mT  # [*B, Q, C]
        return scores if self.bias is None else scores + self.bias.unsqueeze(-2)


@dataclass(frozen=True, slots=True)
class StackedHead:
    """Heads of the tasks of a batch, one each, for strategies whose `fit` takes one task at a time."""

    heads: tuple[Head, ...]
    shape: tuple[int, ...]  # *B

    def logits(self, query: Tensor) -> Tensor:
        """Score queries.  [*B, Q, D] -> [*B, Q, C]"""
        flat = query.flatten(0, -3)  # [prod(*B), Q, D]
        scores = torch.stack([head.logits(q) for head, q in zip(self.heads, flat, strict=True)])
        return scores.reshape(*self.shape, *scores.shape[-2:])


class Strategy(ABC):
    """A way to turn a Task into a Head. Subclass as a frozen dataclass whose fields are its options.

    Nothing learned lives on a strategy: `fit` is pure and returns everything in the head.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"support"})
    uses: ClassVar[frozenset[str]] = frozenset()  # taken when there, not required
    batched: ClassVar[bool] = True  # fit() accepts leading batch dims; False: the engine loops and stacks
    unseen: ClassVar[bool] = False  # answers for classes that have no example
    speed: ClassVar[str] = "closed-form"  # "closed-form" | "iterative" | "gradient"
    paper: ClassVar[str] = ""  # authors, year, arXiv id
    heads: ClassVar[tuple[type, ...]] = (LinearHead,)  # the types fit() may return, for loading

    @abstractmethod
    def fit(self, task: Task) -> Head:
        """Solve a task. Pure: changes neither the task nor the strategy."""

    def phrases(self, names: Sequence[str]) -> list[list[str]] | None:
        """Texts to embed for each class in place of the usual prompts; None, as here, for the usual ones."""
        return None

    @property
    def transductive(self) -> bool:
        """Whether `fit` looks at unlabelled items."""
        return "unlabeled" in self.needs | self.uses

    def replace(self, **options: Any) -> Self:
        """Return the strategy with other options."""
        return dataclasses.replace(self, **options)  # type: ignore[type-var]


def fit(strategy: Strategy, task: Task) -> Head:
    """Solve a task, or a batch of tasks, with a strategy.

    Raises
    ------
    MissingInput
        when the task lacks what the strategy needs, or a class has neither an example nor anything else to know it by.
    InvalidTask
        when the task's tensors do not fit each other or hold NaN.
    PluginError
        when the strategy's code fails or returns no head.
    """
    check_task(task)
    check_needs(strategy, task)
    if strategy.batched or not task.batch_shape:
        return _solve(strategy, task)
    return StackedHead(tuple(_solve(strategy, one) for one in _flatten(task)), tuple(task.batch_shape))


def _solve(strategy: Strategy, task: Task) -> Head:
    with blamed(strategy):
        head = strategy.fit(task)
    if not isinstance(head, Head):
        raise PluginError(
            f"strategy {strategy.name!r} returns a {type(head).__name__} from fit, which has no logits(query); "
            "return a head, e.g. LinearHead(weight)"
        )
    return head


def check_needs(strategy: Strategy, task: Task) -> None:
    """Raise MissingInput when `task` lacks what `strategy` needs."""
    for need in sorted(strategy.needs):
        tensor: Tensor = getattr(task, need)
        absent = tensor.shape[-2] == 0 if need != "attributes" else tensor.shape[-1] == 0
        if absent or (need == "support" and not bool((task.labels >= 0).any(-1).all())):
            raise MissingInput(f"strategy {strategy.name!r} needs {NEEDS[need]}")
    if task.classes < 2:
        raise MissingInput(f"strategy {strategy.name!r} needs at least 2 classes to tell apart, got {task.classes}")
    if "support" in strategy.needs and not strategy.unseen:
        empty = (~task.seen()).nonzero()
        if len(empty):
            raise MissingInput(
                f"strategy {strategy.name!r} needs an example of every class; class number {int(empty[0, -1])} has none"
            )


def _flatten(task: Task) -> Sequence[Task]:
    names = [f.name for f in dataclasses.fields(task)]
    flat = {n: getattr(task, n).flatten(0, len(task.batch_shape) - 1) for n in names}
    count = flat["support"].shape[0]
    return [Task(**{n: t[i] for n, t in flat.items()}) for i in range(count)]
