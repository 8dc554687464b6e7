"""Checks of what a strategy declares, leaves alone and keeps: shapes, inputs, options, dtype, saved heads."""

from __future__ import annotations

import json
from dataclasses import fields

import torch

from fewshot.headfile import head_from_tensors, head_to_tensors
from fewshot.options import build, option_infos, to_json
from fewshot.strategy import NEEDS, StackedHead, Strategy, fit
from fewshot.testing.checking import answer, check, finite, same, variants
from fewshot.testing.toy import toy_queries, toy_task


@check
def declarations(strategy: Strategy) -> None:
    """Name, inputs and speed class are declared, and the head is of a declared type."""
    inputs = strategy.needs | strategy.uses
    assert inputs <= set(NEEDS), f"needs and uses may name {sorted(NEEDS)}, got {sorted(inputs - set(NEEDS))}"
    assert strategy.needs, "needs is empty: a strategy must need something"
    assert strategy.paper, "paper is empty: cite authors, year and arXiv id, or say what it follows"
    speeds = ("closed-form", "iterative", "gradient")
    assert strategy.speed in speeds, f"speed must be one of {speeds}, got {strategy.speed!r}"
    assert type(strategy).__doc__, "the class has no docstring"
    for info in option_infos(type(strategy)):
        assert info.help, f"option {info.name} has no help text; declare it with option(default, help)"
    head = fit(strategy, toy_task(strategy.needs))
    assert isinstance(head, strategy.heads), f"fit returned a {type(head).__name__}, which is not in heads"


@check
def shapes(strategy: Strategy) -> None:
    """Logits are [*B, Q, C], for few and many dims, no batch dims and two, and no query at all."""
    for inputs in variants(strategy):
        for batch, dim in (((), 40), ((2, 2), 8)):
            task = toy_task(inputs, batch=batch, dim=dim)
            query, truth = toy_queries(task)
            logits = answer(strategy, task, query)
            wanted = (*batch, len(truth), task.classes)
            assert tuple(logits.shape) == wanted, f"logits are {list(logits.shape)}, wanted {list(wanted)}"
            finite(logits, f"batch dims {list(batch)}, D = {dim}")
    none = answer(strategy, task, query[..., :0, :])
    assert tuple(none.shape) == (*batch, 0, task.classes), f"no query: logits are {list(none.shape)}"


@check
def inputs_survive(strategy: Strategy) -> None:
    """Neither the task, nor the queries, nor the strategy, nor torch's random state is changed."""
    for inputs in variants(strategy):
        task = toy_task(inputs, batch=(2,))
        query, _ = toy_queries(task)
        before = {f.name: getattr(task, f.name).clone() for f in fields(task)} | {"query": query.clone()}
        options, random = to_json(strategy), torch.get_rng_state()
        answer(strategy, task, query)
        for name, old in before.items():
            new = query if name == "query" else getattr(task, name)
            assert torch.equal(new, old), f"fit or logits changed the {name} of its input"
        assert to_json(strategy) == options, "fit changed an option of the strategy"
        left = set(getattr(strategy, "__dict__", {})) - set(options)
        assert not left, f"fit left {sorted(left)} on the strategy; what is learned belongs in the head"
        assert torch.equal(torch.get_rng_state(), random), "torch's global random state was used; make a Generator"


@check
def options_survive_json(strategy: Strategy) -> None:
    """Options survive JSON, as saved models and reports need."""
    restored = build(type(strategy), json.loads(json.dumps(to_json(strategy))))
    assert restored == strategy, f"options {to_json(strategy)} come back as {to_json(restored)}"
    name = next((f.name for f in fields(strategy)), "no_option")  # type: ignore[arg-type]
    try:
        setattr(strategy, name, getattr(strategy, name, None))
    except AttributeError:  # FrozenInstanceError is one
        return
    raise AssertionError("the class is not a frozen dataclass")


@check
def dtype_and_device_kept(strategy: Strategy) -> None:
    """Logits have the dtype and device of the task; a GPU is tried when there is one."""
    places = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for inputs in variants(strategy):
        for dtype in (torch.float32, torch.float64):
            for place in places:
                task = toy_task(inputs, dtype=dtype).to(place)
                query, _ = toy_queries(task)
                logits = answer(strategy, task, query)
                assert logits.dtype == dtype, f"a task of {dtype} gives logits of {logits.dtype}"
                assert logits.device == task.device, f"a task on {task.device} gives logits on {logits.device}"


@check
def heads_save(strategy: Strategy) -> None:
    """A head taken apart into tensors and JSON and put together again gives the same logits."""
    for batch in ((), (2,)):
        task = toy_task(strategy.needs | strategy.uses, batch=batch, dtype=torch.float32)
        query, _ = toy_queries(task)
        head = fit(strategy, task)
        tensors, meta = head_to_tensors(head)
        again = head_from_tensors(type(strategy), tensors, json.loads(json.dumps(meta)))
        assert type(again) is type(head), f"a {type(head).__name__} comes back as a {type(again).__name__}"
        assert isinstance(head, (StackedHead, *strategy.heads)), f"{type(head).__name__} is not in heads"
        same(again.logits(query), head.logits(query), "a saved head against the one that was saved", 1e-5)


@check
def deterministic(strategy: Strategy) -> None:
    """Fitting twice gives the very same head, whatever the state of the global random generator."""
    for inputs in variants(strategy):
        task = toy_task(inputs)
        query, _ = toy_queries(task)
        state = torch.get_rng_state()
        try:
            answers = []
            for seed in (1, 2):
                torch.manual_seed(seed)
                answers.append(answer(strategy, task, query))
        finally:
            torch.set_rng_state(state)
        assert torch.equal(*answers), "fitting the same task twice gives different logits"
