"""Checks of what may not change an answer: batching, other queries, order, padding; and of the hard cases."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fewshot.arrays import unit
from fewshot.errors import MissingInput
from fewshot.strategy import Strategy, fit
from fewshot.testing.checking import answer, check, finite, same, variants
from fewshot.testing.toy import toy_queries, toy_task


@check
def batch_equals_loop(strategy: Strategy) -> None:
    """A batch of tasks of unequal shots gives what each task gives on its own."""
    for inputs in variants(strategy):
        for dim in (8, 40):
            task = toy_task(inputs, batch=(3,), dim=dim, shots=4, ragged=True)
            query, _ = toy_queries(task)
            together = answer(strategy, task, query)
            alone = torch.stack([answer(strategy, task[i], query[i]) for i in range(3)])
            same(together, alone, f"a batch against one task at a time, D = {dim}")


@check
def pointwise_queries(strategy: Strategy) -> None:
    """The logits of a query do not depend on the other queries."""
    task = toy_task(strategy.needs)
    query, _ = toy_queries(task)
    head = fit(strategy, task)
    alone = torch.cat([head.logits(query[i : i + 1]) for i in range(len(query))])
    same(head.logits(query), alone, "queries together against each alone", 1e-6)
    same(head.logits(query), alone, "queries asked a second time", 1e-6)


@check
def class_order(strategy: Strategy) -> None:
    """Renumbering the classes renumbers the logits and changes nothing else."""
    for inputs in variants(strategy):
        task = toy_task(inputs, shots=4, ragged=True)
        query, _ = toy_queries(task)
        order = torch.tensor([2, 0, 3, 1])  # new class i is old class order[i]
        labels = torch.where(task.labels >= 0, order.argsort()[task.labels], -1)
        text, weight, signs = task.text[order], task.text_weight[order], task.attributes[order]
        shared = (task.source_labels >= 0) & (task.source_labels < task.classes)
        numbers = torch.where(shared, order.argsort()[task.source_labels.clamp(0, 3)], task.source_labels)
        other = replace(task, labels=labels, text=text, text_weight=weight, attributes=signs, source_labels=numbers)
        same(answer(strategy, other, query), answer(strategy, task, query)[:, order], "classes in another order")


@check
def item_order(strategy: Strategy) -> None:
    """The order of the support, the unlabelled and the source items does not matter."""
    for inputs in variants(strategy):
        task = toy_task(inputs)
        query, _ = toy_queries(task)
        wanted = answer(strategy, task, query)
        for name, tags in (("support", "labels"), ("unlabeled", None), ("source", "source_labels")):
            items: Tensor = getattr(task, name)
            order = torch.randperm(len(items), generator=torch.Generator().manual_seed(0))
            moved = {name: items[order]} | ({tags: getattr(task, tags)[order]} if tags else {})
            same(answer(strategy, replace(task, **moved), query), wanted, f"{name} items in another order")


@check
def padding_ignored(strategy: Strategy) -> None:
    """Rows labelled -1 and phrases of weight 0 change nothing, whatever they hold."""
    for inputs in variants(strategy):
        task = toy_task(inputs)
        query, _ = toy_queries(task)
        wanted = answer(strategy, task, query)
        rng = torch.Generator().manual_seed(1)
        for name, tags in (("support", "labels"), ("source", "source_labels")):
            items, labels = getattr(task, name), getattr(task, tags)
            if len(items):
                junk = unit(torch.randn(5, task.dim, generator=rng, dtype=task.dtype))
                order = torch.randperm(len(items) + 5, generator=rng)
                padded = torch.cat([items, junk])[order], torch.cat([labels, labels.new_full((5,), -1)])[order]
                other = replace(task, **{name: padded[0], tags: padded[1]})
                same(answer(strategy, other, query), wanted, f"{name} padded with rows labelled -1")
        if task.text.shape[-2]:
            junk = unit(torch.randn(task.classes, 2, task.dim, generator=rng, dtype=task.dtype))
            text = torch.cat([junk, task.text], -2)  # [C, 2 + P, D]
            weight = torch.cat([task.text_weight.new_zeros(task.classes, 2), task.text_weight], -1)
            other = replace(task, text=text, text_weight=weight)
            same(answer(strategy, other, query), wanted, "text padded with phrases of weight 0")


@check
def degenerate_support_finite(strategy: Strategy) -> None:
    """One shot, copies of one example, and classes that are all alike give finite logits."""
    for inputs in variants(strategy):
        task = toy_task(inputs, shots=1)
        query, _ = toy_queries(task)
        finite(answer(strategy, task, query), "one shot a class")
        if "support" in inputs:
            task = toy_task(inputs, shots=3)
            copies = task.support[::3].repeat_interleave(3, 0)
            finite(answer(strategy, replace(task, support=copies), query), "three copies of one example a class")
            alike = task.support[:1].expand_as(task.support).clone()
            finite(answer(strategy, replace(task, support=alike), query), "the same example in every class")


@check
def unseen_classes(strategy: Strategy) -> None:
    """A class without examples is answered for when `unseen` says so, and refused otherwise, or where nothing tells."""
    if "support" not in strategy.needs:
        return
    for inputs in variants(strategy):
        task = toy_task(inputs, unseen=1)
        query, _ = toy_queries(task)
        if strategy.unseen and inputs > {"support"}:
            logits = answer(strategy, task, query)
            finite(logits, "a class without examples")
            assert logits.shape[-1] == task.classes, f"{logits.shape[-1]} columns of logits for {task.classes} classes"
            continue
        try:
            fit(strategy, task)
        except MissingInput:
            continue
        raise AssertionError(
            "a class that nothing is known of was accepted"
            if strategy.unseen
            else "a class without examples was accepted, though unseen is False"
        )


@check
def larger_is_better(strategy: Strategy) -> None:
    """On an easy problem the largest logit is mostly that of the right class."""
    for inputs in variants(strategy):
        task = toy_task(inputs, shots=5, dim=32, noise=0.4)
        query, truth = toy_queries(task, per_class=10, noise=0.4)
        accuracy = float((answer(strategy, task, query).argmax(-1) == truth).double().mean())
        assert accuracy >= 0.6, f"accuracy {accuracy:.2f} on an easy problem of {task.classes} classes; wanted 0.6"
