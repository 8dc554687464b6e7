"""Bring two domains together, then let any strategy learn from both: what coral, subspace, tca and jda share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewshot import Head, Strategy, Task, fit, make_task
from fewshot.arrays import unit
from fewshot.compose import parse_strategy
from fewshot.errors import InvalidOption
from fewshot.options import build
from fewshot.registry import registry
from fewshot.transfer.gap import rbf
from fewshot_plugins._domains import Domains, domains


@dataclass(frozen=True, slots=True)
class Space:
    """Where target embeddings go: unit(phi(z) turn - shift), phi the identity or the kernel with landmarks."""

    turn: Tensor  # [D or L, M]
    shift: Tensor  # [M]
    landmarks: Tensor  # [L, D], none for the identity
    width: float  # of the kernel

    def place(self, rows: Tensor) -> Tensor:
        """Move embeddings.  [..., n, D] -> [..., n, M]"""
        phi = rbf(rows, self.landmarks, self.width) if len(self.landmarks) else rows
        return unit(phi @ self.turn - self.shift)


@dataclass(frozen=True, slots=True)
class AlignedHead:
    """Move queries into the common space, then ask the head that was fitted there."""

    turn: Tensor  # [D or L, M]
    shift: Tensor  # [M]
    landmarks: Tensor  # [L, D]
    width: float
    inner: Head

    def logits(self, query: Tensor) -> Tensor:
        """Score queries.  [Q, D] -> [Q, C]"""
        return self.inner.logits(Space(self.turn, self.shift, self.landmarks, self.width).place(query))


class EveryHead:
    """The head types of all strategies, since `then` may be any; looked up when a model is loaded."""

    def __get__(self, instance: object, owner: type) -> tuple[type, ...]:
        """Collect them."""
        others = [cls for cls in registry().strategies.values() if not issubclass(cls, Alignment)]
        return (*dict.fromkeys([AlignedHead, *(head for cls in others for head in cls.heads)]),)


class Alignment(Strategy):
    """A strategy that aligns the domains and hands the task in the common space to the strategy named by `then`."""

    needs = frozenset({"source"})
    uses = frozenset({"support", "unlabeled", "text", "attributes"})
    batched = False
    heads: ClassVar[Any] = EveryHead()
    then: str

    def __post_init__(self) -> None:
        """Refuse a wrong `then` before anything is embedded."""
        self.learner()

    @abstractmethod
    def align(self, both: Domains, task: Task) -> tuple[Tensor, Space | None]:
        """Return the source's new place [N, M] and the way there for the target, None where it stays as it is."""

    def fit(self, task: Task) -> Head:
        """Align, then fit the other strategy to source and support.  -> turn [D, M], shift [M], its head in [.., M]"""
        learner = self.learner()
        both = domains(task, self.name, unseen=learner.unseen)
        source, space = self.align(both, task) if len(both.items) > 1 else (both.source, None)
        return in_space(learner, both, source, space, task)

    def moved(self, task: Task) -> tuple[Tensor, Tensor]:
        """Where the source's and the target's items go.  -> [N, M], [S + U, M]"""
        both = domains(task, self.name)
        source, space = self.align(both, task)
        return source, both.items if space is None else space.place(both.items)

    def learner(self) -> Strategy:
        """Make the strategy named by `then`, as NAME or NAME:K=V,K=V.

        Raises
        ------
        InvalidOption
            when it aligns domains itself, wants the source for itself or takes no examples, or for a wrong value.
        """
        name, options = parse_strategy(self.then)
        cls = registry().strategy(name)
        if issubclass(cls, Alignment) or "source" in cls.needs or "support" not in cls.needs | cls.uses:
            raise InvalidOption(f"{self.name}: then wants a strategy that learns from examples, got {name!r}")
        return build(cls, options)

    def phrases(self, names: Sequence[str]) -> list[list[str]] | None:
        """The other strategy's."""
        return self.learner().phrases(names)


def together(both: Domains, source: Tensor, space: Space | None, task: Task) -> Task:
    """The task with the moved source as further examples, its items and phrases in the common space, in double."""
    items, text = both.items, task.text.double()  # [S + U, D], [C, P, D]
    if space is not None:
        items, text = space.place(items), space.place(text)
    taught = len(both.labels)
    return make_task(
        torch.cat([source, items[:taught]]),
        torch.cat([both.source_labels, both.labels]),
        text=text,
        text_weight=task.text_weight.double(),
        attributes=task.attributes.double(),
        unlabeled=items[taught:],
        classes=task.classes,
    )


def in_space(learner: Strategy, both: Domains, source: Tensor, space: Space | None, task: Task) -> Head:
    """Fit a strategy to the moved source together with the support.  source [N, M] -> head for embeddings [Q, D]"""
    inner = fit(learner, together(both, source, space, task).to(task.dtype))
    if space is None:
        return inner
    turn, shift, landmarks = (t.to(task.dtype) for t in (space.turn, space.shift, space.landmarks))
    return AlignedHead(turn, shift, landmarks, space.width, inner)
