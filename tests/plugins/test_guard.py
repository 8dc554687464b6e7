"""The guard of the transductive strategies: when it falls back, that it says so, and what it falls back to."""

import math
import warnings
from dataclasses import replace

import pytest
import torch

from fewshot import Strategy, Task, fit, make_task
from fewshot.errors import MissingInput
from fewshot.registry import registry
from fewshot.task import without
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins._guard import GuardWarning, effective_classes

GUARDED = sorted(name for name, cls in registry().strategies.items() if "unlabeled" in cls.needs)
SKEW = ("bd_cspn", "em_dirichlet", "label_propagation", "laplacian_shot", "pt_map", "tim", "transclip")


def problem(strategy: Strategy, kind: str) -> Task:
    """A task whose unlabelled items are even over its classes, all of one class, or just one."""
    task = toy_task(strategy.needs, noise=0.3, batch=(2,))
    chosen = {"even": range(24), "skewed": [0, 1, 2, 3, 4, 5] * 4, "few": [0]}[kind]
    return replace(task, unlabeled=task.unlabeled[:, list(chosen)])


@pytest.mark.parametrize("name", GUARDED)
def test_even_items_are_used_without_a_word(name: str) -> None:
    strategy = registry().strategy(name)()
    assert bool(fit(strategy, problem(strategy, "even")).used.all())


@pytest.mark.parametrize("name", GUARDED)
def test_one_item_is_too_few(name: str) -> None:
    """The answer is then the same whatever the item is."""
    strategy = registry().strategy(name)()
    task = problem(strategy, "few")
    query, _ = toy_queries(task)
    with pytest.warns(GuardWarning, match=f"^{name}: 1 unlabelled items for 4 classes are too few"):
        head = fit(strategy, task)
    assert not bool(head.used.any())
    with pytest.warns(GuardWarning):
        other = fit(strategy, replace(task, unlabeled=-task.unlabeled))
    torch.testing.assert_close(head.logits(query), other.logits(query))


@pytest.mark.parametrize("name", SKEW)
def test_items_of_one_class_are_left_alone(name: str) -> None:
    strategy = registry().strategy(name)()
    task = problem(strategy, "skewed")
    query, truth = toy_queries(task, noise=0.3)
    with pytest.warns(GuardWarning, match=f"^{name}: the unlabelled items seem to lie in few of the 4 classes"):
        head = fit(strategy, task)
    assert not bool(head.used.any())
    assert bool((head.logits(query).argmax(-1) == truth).all())


@pytest.mark.parametrize("name", SKEW)
def test_each_task_of_a_batch_is_judged_on_its_own(name: str) -> None:
    strategy = registry().strategy(name)()
    even, skewed = problem(strategy, "even"), problem(strategy, "skewed")
    mixed = replace(even, unlabeled=torch.stack([even.unlabeled[0], skewed.unlabeled[1]]))
    query, _ = toy_queries(mixed)
    with pytest.warns(GuardWarning):
        head = fit(strategy, mixed)
    with pytest.warns(GuardWarning):
        second = fit(strategy, mixed[1])
    alone = torch.stack([fit(strategy, mixed[0]).logits(query[0]), second.logits(query[1])])
    assert head.used.tolist() == [True, False]
    torch.testing.assert_close(head.logits(query), alone, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", GUARDED)
def test_guard_off_adapts_to_anything(name: str) -> None:
    strategy = registry().strategy(name)(guard=False)
    for kind in ("few", "skewed"):
        task = problem(strategy, kind)
        head = fit(strategy, task)
        assert bool(head.used.all())
        assert bool(torch.isfinite(head.logits(task.unlabeled)).all())


def test_the_fallback_of_prototype_methods_predicts_like_the_class_means() -> None:
    for name in ("bd_cspn", "tim", "alpha_tim", "pt_map", "laplacian_shot"):
        strategy = registry().strategy(name)()
        task = problem(strategy, "few")
        query, _ = toy_queries(task)
        means = torch.stack(
            [torch.stack([t.support[t.labels == k].mean(0) for k in range(4)]) for t in (task[0], task[1])]
        )
        with pytest.warns(GuardWarning):
            logits = fit(strategy, task).logits(query)
        distance = torch.cdist(query, means)
        if name == "bd_cspn":
            distance = -query @ torch.nn.functional.normalize(means, dim=-1).mT
        assert torch.equal(logits.argmax(-1), distance.argmin(-1)), name


def test_effective_number_of_classes() -> None:
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 0, 1, 2], [0, 0, 0, 0]]), 4).double()
    wanted = math.exp(0.5 * math.log(2) + 2 * 0.25 * math.log(4))
    torch.testing.assert_close(effective_classes(logits), torch.tensor([wanted, 1.0]).double())


def test_alpha_tim_bears_few_classes_but_not_a_pull_towards_equal_shares() -> None:
    """Items of two classes of eight may be adapted to; those of one class would be spread over the others."""
    gain = {}
    for many in (1, 2):
        changes = []
        for seed in range(6):
            task = toy_task(("support", "unlabeled"), classes=8, shots=2, noise=1.5, seed=seed)
            items, truth = task.unlabeled[: 6 * many], torch.arange(many).repeat_interleave(6)
            task = replace(task, unlabeled=items.repeat(4 // many, 1))
            right = []
            for name, options in (("alpha_tim", {}), ("alpha_tim", {"guard": False}), ("prototypical", {})):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", GuardWarning)
                    head = fit(registry().strategy(name)(**options), task)
                right.append(float((head.logits(items).argmax(-1) == truth).double().mean()))
            changes.append([right[0] - right[2], right[1] - right[2]])
        gain[many] = torch.tensor(changes).mean(0).tolist()
    assert gain[1][0] > -0.05 > gain[1][1] + 0.05, gain
    assert gain[2][0] > -0.01, gain


def test_unlabelled_items_must_be_there() -> None:
    task = toy_task(("support", "unlabeled"))
    with pytest.raises(MissingInput, match="--unlabeled"):
        fit(registry().strategy("tim")(), without(task, "unlabeled"))
    assert make_task(task.support, task.labels).unlabeled.shape[0] == 0
