"""Every check lets an honest strategy pass and catches a strategy sabotaged for it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from fewshot import Head, LinearHead, Strategy, Task, option
from fewshot.testing import STRATEGY_CHECKS, strategy_checks, toy_queries, toy_task


def prototypes(task: Task) -> LinearHead:
    hot = task.one_hot()
    mean = hot.mT @ task.support / hot.sum(-2).clamp_min(1).unsqueeze(-1)
    return LinearHead(20 * mean, -10 * mean.square().sum(-1))


@dataclass(frozen=True)
class Honest(Strategy):
    """Nearest class mean."""

    name = "honest"
    paper = "made for this test"
    strength: float = option(1.0, "does nothing")

    def fit(self, task: Task) -> Head:
        return prototypes(task)


def saboteur(fit: Callable[[Any, Task], Any], **declared: object) -> type[Strategy]:
    body = {"__doc__": "Sabotaged.", "fit": fit, "__module__": __name__, **declared}
    return dataclass(frozen=True)(type("Sabotaged", (Honest,), body))


@dataclass(frozen=True)
class Centred:
    """Centres the queries by their own mean."""

    inner: LinearHead

    def logits(self, query: Tensor) -> Tensor:
        return self.inner.logits(query - query.mean(-2, keepdim=True))


@dataclass(frozen=True)
class Counting:
    """Answers differently each time, as heads that keep state do."""

    inner: LinearHead
    calls: Any = field(default_factory=lambda: count(1))

    def logits(self, query: Tensor) -> Tensor:
        return self.inner.logits(query) * next(self.calls)


@dataclass(frozen=True)
class Forgetful:
    """Hides a tensor outside its fields."""

    inner: LinearHead

    def logits(self, query: Tensor) -> Tensor:
        return self.inner.logits(query) + getattr(self, "hidden", 0.0)


def scaled(factor: Callable[[Task], Any]) -> Callable[[Any, Task], Head]:
    def fit(self: Any, task: Task) -> Head:
        head = prototypes(task)
        return replace(head, weight=head.weight * factor(task))

    return fit


def keep_note(self: Any, task: Task) -> Head:
    object.__setattr__(self, "fitted", True)
    return prototypes(task)


def zero_support(self: Any, task: Task) -> Head:
    head = prototypes(task)
    task.support[..., 0, :].zero_()
    return head


def use_global_random(self: Any, task: Task) -> Head:
    torch.rand(1)
    return prototypes(task)


def hide(self: Any, task: Task) -> Head:
    head = Forgetful(prototypes(task))
    object.__setattr__(head, "hidden", 1.0)
    return head


def count_padding(self: Any, task: Task) -> Head:
    return scaled(lambda t: 1 + t.labels.shape[-1])(self, task)


def plain_text_mean(self: Any, task: Task) -> Head:
    return LinearHead(10 * task.text.mean(-2))


def plain_source_mean(self: Any, task: Task) -> Head:
    return LinearHead(prototypes(task).weight - task.source.mean(-2).unsqueeze(-2))


def first_row_matters(name: str) -> Callable[[Any, Task], Head]:
    def fit(self: Any, task: Task) -> Head:
        head = prototypes(task)
        return replace(head, weight=head.weight * (2 + getattr(task, name)[..., :1, :1]))

    return fit


def logits_like(change: Callable[[Tensor], Tensor]) -> Callable[[Any, Task], Head]:
    def fit(self: Any, task: Task) -> Head:
        head = prototypes(task)
        return LinearHead(change(head.weight), None if head.bias is None else change(head.bias))

    return fit


def rounding(self: Any, task: Task) -> Head:
    return Rounded(prototypes(task))


@dataclass(frozen=True)
class Rounded:
    """Forgets the dtype of the query."""

    inner: LinearHead

    def logits(self, query: Tensor) -> Tensor:
        return self.inner.logits(query).float()


@dataclass(frozen=True)
class Elsewhere:
    """Forgets the device of the query."""

    inner: LinearHead

    def logits(self, query: Tensor) -> Tensor:
        return self.inner.logits(query).to("meta")


@dataclass(frozen=True)
class Eager(Honest):
    """Options of a type that JSON has no word for."""

    levels: tuple[float, ...] = option((1.0,), "does nothing")


@dataclass
class Thawed(Strategy):
    """Not frozen."""

    name: ClassVar[str] = "thawed"
    paper: ClassVar[str] = "made for this test"

    def fit(self, task: Task) -> Head:
        return prototypes(task)


@dataclass(frozen=True)
class Silent(Honest):
    """An option without help."""

    quiet: float = 1.0


honest = Honest.fit
plus_text = frozenset({"support", "text"})
numbers = iter(range(1, 10**6))

SABOTAGE: list[tuple[str, str, Callable[[], Strategy]]] = [
    ("declarations", "paper is empty", saboteur(honest, paper="")),
    ("declarations", "speed must be", saboteur(honest, speed="fast")),
    ("declarations", "needs is empty", saboteur(honest, needs=frozenset())),
    ("declarations", "needs and uses", saboteur(honest, uses=frozenset({"luck"}))),
    ("declarations", "not in heads", saboteur(lambda self, task: Centred(prototypes(task)))),
    ("declarations", "no help", Silent),
    ("shapes", r"logits are \[5?", saboteur(lambda self, task: LinearHead(prototypes(task).weight[..., 1:, :]))),
    ("shapes", "NaN", saboteur(scaled(lambda t: float("nan") if t.dim < 10 else 1.0))),
    ("batch_equals_loop", "differ", saboteur(scaled(lambda t: t.support.norm()))),
    ("pointwise_queries", "alone", saboteur(lambda self, task: Centred(prototypes(task)))),
    ("pointwise_queries", "differ", saboteur(lambda self, task: Counting(prototypes(task)))),
    ("class_order", "another order", saboteur(scaled(lambda t: torch.arange(1.0, t.classes + 1)[:, None]))),
    ("item_order", "support items", saboteur(first_row_matters("support"))),
    ("item_order", "source items", saboteur(first_row_matters("source"), needs=frozenset({"support", "source"}))),
    (
        "item_order",
        "unlabeled items",
        saboteur(first_row_matters("unlabeled"), needs=frozenset({"support", "unlabeled"})),
    ),
    ("padding_ignored", "support padded", saboteur(count_padding)),
    ("padding_ignored", "text padded", saboteur(plain_text_mean, needs=plus_text)),
    ("padding_ignored", "source padded", saboteur(plain_source_mean, needs=frozenset({"support", "source"}))),
    ("degenerate_support_finite", "one shot", saboteur(scaled(lambda t: 1 / (t.counts() - 1)[:, None]))),
    ("degenerate_support_finite", "copies", saboteur(scaled(lambda t: float("inf") if len(t.support) > 4 else 1.0))),
    (
        "unseen_classes",
        "NaN",
        saboteur(scaled(lambda t: torch.sqrt(t.counts() - 1)[:, None]), unseen=True, needs=plus_text),
    ),
    ("larger_is_better", "accuracy", saboteur(logits_like(torch.neg))),
    ("inputs_survive", "changed the support", saboteur(zero_support)),
    ("inputs_survive", "left .*fitted", saboteur(keep_note)),
    ("inputs_survive", "random state", saboteur(use_global_random)),
    ("options_survive_json", "Invalid|come back", Eager),
    ("options_survive_json", "frozen", Thawed),
    ("dtype_and_device_kept", "float64 gives logits of torch.float32", saboteur(rounding)),
    ("dtype_and_device_kept", "on meta", saboteur(lambda self, task: Elsewhere(prototypes(task)))),
    ("heads_save", "a saved head against", saboteur(hide, heads=(Forgetful,))),
    ("heads_save", "unknown head type", saboteur(lambda self, task: Centred(prototypes(task)))),
    ("heads_save", "a head's field calls", saboteur(lambda self, task: Counting(prototypes(task)))),
    ("deterministic", "different logits", saboteur(scaled(lambda t: torch.rand(1, dtype=t.dtype)))),
    ("deterministic", "different logits", saboteur(scaled(lambda t: float(next(numbers))))),
]


@pytest.mark.parametrize("check", STRATEGY_CHECKS)
def test_an_honest_strategy_passes(check: str) -> None:
    STRATEGY_CHECKS[check](Honest())


@pytest.mark.parametrize(("check", "text", "make"), SABOTAGE, ids=[f"{c}-{t[:16]}" for c, t, _ in SABOTAGE])
def test_a_sabotaged_strategy_is_caught(check: str, text: str, make: Callable[[], Strategy]) -> None:
    strategy = make()
    with pytest.raises(AssertionError, match=rf"strategy '{strategy.name}' fails check {check}: .*({text})"):
        STRATEGY_CHECKS[check](strategy)
    with pytest.raises(AssertionError, match="fails check"):
        strategy_checks(strategy)


def test_every_check_has_a_saboteur() -> None:
    assert {check for check, _, _ in SABOTAGE} == set(STRATEGY_CHECKS)


def test_a_crash_is_reported_as_a_failure_of_its_check() -> None:
    broken = saboteur(lambda self, task: 1 / 0)
    with pytest.raises(AssertionError, match="fails check declarations: ZeroDivisionError: division by zero"):
        strategy_checks(broken)


def test_toy_task_holds_what_is_asked_for() -> None:
    task = toy_task(
        {"support", "text", "attributes", "unlabeled", "source"}, batch=(2,), unseen=1, shots=3, ragged=True
    )
    assert task.support.shape == (2, 9, 24)
    assert task.text.shape[:2] == (2, 4)
    assert task.attributes.shape[:2] == (2, 4)
    assert min(task.unlabeled.shape[1], task.source.shape[1]) > 0
    assert task.counts()[:, :3].min() >= 1
    assert task.counts()[:, 3].max() == 0
    assert (task.labels == -1).any()
    torch.testing.assert_close(task.support.norm(dim=-1), torch.ones(2, 9, dtype=torch.float64))
    query, truth = toy_queries(task)
    assert query.shape == (2, len(truth), 24)
    assert toy_task().text.shape == (4, 0, 24)


def test_toy_task_depends_on_its_seed_only() -> None:
    state = torch.get_rng_state()
    assert torch.equal(toy_task(seed=1).support, toy_task(seed=1).support)
    assert not torch.equal(toy_task(seed=1).support, toy_task(seed=2).support)
    assert torch.equal(torch.get_rng_state(), state)
