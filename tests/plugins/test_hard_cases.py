"""Tasks at the edge of what makes sense give every strategy finite answers, or a refusal that says why; never NaN."""

import math
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import fields, replace

import pytest
import torch

from fewshot import Strategy, Task, fit
from fewshot.errors import FewshotError
from fewshot.options import build, option_infos
from fewshot.registry import registry
from fewshot.testing import toy_queries, toy_task

NAMES = sorted(registry().strategies)
REFUSABLE = "a source of one item", "a source of one class", "a source of padding", "a source of other classes"


def alike(rows: torch.Tensor) -> torch.Tensor:
    """The first row in the place of all."""
    return rows[:1].expand_as(rows).clone()


def on_a_line(rows: torch.Tensor) -> torch.Tensor:
    """Rows that are all e_1 or -e_1: a covariance of rank one."""
    line = torch.zeros_like(rows)
    line[:, 0] = 1 - 2 * (torch.arange(len(rows)) % 2).to(rows.dtype)
    return line


def hard_cases(inputs: frozenset[str], dtype: torch.dtype) -> Iterator[tuple[str, Task]]:
    task = toy_task(inputs, dtype=dtype)
    yield "one shot", toy_task(inputs, dtype=dtype, shots=1)
    yield "two classes of one shot", toy_task(inputs, dtype=dtype, shots=1, classes=2)
    yield "more items than dims", toy_task(inputs, dtype=dtype, shots=6, dim=5)
    yield "one dim", toy_task(inputs, dtype=dtype, dim=1)
    if "support" in inputs:
        few = task.labels.clone()
        few[1:3] = few[4] = -1
        yield "shots of 1, 2 and 3", replace(task, labels=few)
        yield "examples all alike", replace(task, support=alike(task.support))
        yield "examples all zero", replace(task, support=torch.zeros_like(task.support))
        yield "examples on a line", replace(task, support=on_a_line(task.support))
        sign = torch.tensor([1, -1, 0]).repeat(4).to(dtype).unsqueeze(-1)
        yield "classes of mean zero", replace(task, support=sign * task.support[::3].repeat_interleave(3, 0))
    if "text" in inputs:
        yield "phrases all alike", replace(task, text=alike(task.text))
        yield "phrases all zero", replace(task, text=torch.zeros_like(task.text))
    if "attributes" in inputs:
        yield "one seen class", toy_task(inputs, dtype=dtype, unseen=3)
        yield "one seen class of one shot", toy_task(inputs, dtype=dtype, shots=1, unseen=3)
        yield "attributes all alike", replace(task, attributes=alike(task.attributes))
        yield "attributes all zero", replace(task, attributes=torch.zeros_like(task.attributes))
        yield "one attribute", replace(task, attributes=task.attributes[:, :1])
        yield "large attributes", replace(task, attributes=1e6 * task.attributes)
    if "unlabeled" in inputs:
        yield "one unlabelled item", replace(task, unlabeled=task.unlabeled[:1])
        yield "two unlabelled items", replace(task, unlabeled=task.unlabeled[:2])
        yield "unlabelled items all alike", replace(task, unlabeled=alike(task.unlabeled))
        yield "unlabelled items all zero", replace(task, unlabeled=torch.zeros_like(task.unlabeled))
        if "support" in inputs:
            yield "unlabelled items that are the examples", replace(task, unlabeled=task.support)
    if "source" in inputs:
        yield "source all alike", replace(task, source=alike(task.source))
        yield "source all zero", replace(task, source=torch.zeros_like(task.source))
        one = {name: getattr(task, name)[:1] for name in ("source", "source_labels")}
        yield "a source of one item", replace(task, **one)
        yield "a source of one class", replace(task, source_labels=torch.zeros_like(task.source_labels))
        yield "a source of padding", replace(task, source_labels=torch.full_like(task.source_labels, -1))
        yield "a source of other classes", replace(task, source_labels=task.source_labels + task.classes)


def variants(strategy: Strategy) -> Iterator[tuple[Strategy, frozenset[str]]]:
    """With and without what it can do without, and without the guard that would sidestep the hard part."""
    for inputs in {strategy.needs, strategy.needs | strategy.uses}:
        yield strategy, inputs
        if "guard" in {f.name for f in fields(strategy)}:
            yield strategy.replace(guard=False), inputs


@pytest.mark.filterwarnings("ignore::fewshot_plugins._guard.GuardWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_finite_or_refused(name: str, dtype: torch.dtype) -> None:
    for strategy, inputs in variants(registry().strategy(name)()):
        for case, task in hard_cases(inputs, dtype):
            query, _ = toy_queries(task)
            head = None
            with suppress(FewshotError) if case in REFUSABLE else nullcontext():
                head = fit(strategy, task)
            if head is None:
                continue
            for asked in (query[:1], torch.cat([query, torch.zeros_like(query[:1])])):
                logits = head.logits(asked)
                assert logits.shape == (len(asked), task.classes)
                assert bool(torch.isfinite(logits).all()), case


def ends(cls: type[Strategy]) -> Iterator[Strategy]:
    """The strategy with each number at either end of its range, or each choice, every other option as it is."""
    for info in option_infos(cls):
        if info.range.startswith("["):
            low, high = (float(end) for end in info.range.strip("[]").split(","))
            found = [end if "float" in info.type else int(end) for end in (low, high) if math.isfinite(end)]
        else:
            found = [choice.strip() for choice in info.range.split("|") if choice]
        yield from (build(cls, {info.name: value}) for value in found)


@pytest.mark.filterwarnings("ignore::fewshot_plugins._guard.GuardWarning")
@pytest.mark.parametrize("name", NAMES)
def test_options_at_the_ends_of_their_ranges_give_finite_answers(name: str) -> None:
    cls = registry().strategy(name)
    task = toy_task(cls.needs | cls.uses, dtype=torch.float32)
    query, _ = toy_queries(task)
    for strategy in ends(cls):
        assert bool(torch.isfinite(fit(strategy, task).logits(query)).all()), strategy


@pytest.mark.parametrize("name", NAMES)
def test_one_class_is_refused(name: str) -> None:
    strategy = registry().strategy(name)()
    with pytest.raises(FewshotError, match="at least 2 classes to tell apart, got 1"):
        fit(strategy, toy_task(strategy.needs, classes=1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", NAMES)
def test_a_value_that_is_not_finite_is_refused_with_its_row(name: str, value: float) -> None:
    strategy = registry().strategy(name)()
    for field in sorted(strategy.needs | strategy.uses):
        task = toy_task(strategy.needs | strategy.uses)
        bad: torch.Tensor = getattr(task, field).clone()
        bad[2, ..., -1] = value
        with pytest.raises(FewshotError, match=rf"{field} holds a value that is not finite .* first in row \[2"):
            fit(strategy, replace(task, **{field: bad}))
