"""`transclip` and `stata` against loops over the papers' equations."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fewshot import Task, fit, make_task
from fewshot.arrays import unit
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins.stata import StatA
from fewshot_plugins.transclip import TransClip

INPUTS = [("text", "unlabeled"), ("support", "text", "unlabeled")]


def text(task: Task) -> Tensor:
    return unit(task.text.mean(1))


def normal(z: Tensor, mean: Tensor, variance: Tensor) -> float:
    """Log density without the constant of pi."""
    return float(-0.5 * sum((a - m) ** 2 / v + v.log() for a, m, v in zip(z, mean, variance, strict=True)))


def neighbours(task: Task) -> list[list[tuple[int, float]]]:
    """The three nearest other items of each, with their affinity."""
    found = []
    for i, z in enumerate(task.unlabeled):
        order = sorted(((float(z @ o), j) for j, o in enumerate(task.unlabeled) if j != i), reverse=True)
        found.append([(j, max(0.0, s)) for s, j in order[:3]])
    return found


def assignments(unary: Tensor, a: Tensor, near: list[list[tuple[int, float]]]) -> Tensor:
    for _ in range(5):
        a = torch.stack([(unary[i] + sum(w * a[j] for j, w in near[i])).softmax(0) for i in range(len(a))])
    return a


def known(task: Task) -> list[tuple[Tensor, int]]:
    return [(x, int(k)) for x, k in zip(task.support, task.labels, strict=True) if k >= 0]


def literal_transclip(task: Task, gamma: float, trust: float, rounds: int) -> tuple[Tensor, Tensor]:
    """Means [C, D] and variances [D]."""
    items, support, classes, near = task.unlabeled, known(task), task.classes, neighbours(task)
    log_y = trust * 100 * items @ text(task).T
    a = log_y.softmax(-1)
    mean = torch.stack([items[a[:, k].topk(8).indices].mean(0) for k in range(classes)])
    if support:
        mean = torch.stack([torch.stack([x for x, label in support if label == k]).mean(0) for k in range(classes)])
    variance = torch.full((task.dim,), 1 / task.dim).double()
    for _ in range(rounds):
        density = torch.tensor([[normal(z, m, variance) for m in mean] for z in items]).double()
        a = assignments(log_y + density, a, near)
        weighted = [(a[i, k] / len(items), items[i], k) for i in range(len(items)) for k in range(classes)]
        weighted += [(torch.tensor(gamma / len(support)), x, k) for x, k in support]
        for k in range(classes):
            own = [(w, z) for w, z, label in weighted if label == k]
            mean[k] = sum(w * z for w, z in own) / sum(w for w, _ in own)
        variance = sum(w * (z - mean[k]) ** 2 for w, z, k in weighted) / (1 + (gamma if support else 0))
    return mean, variance


@pytest.mark.parametrize("inputs", INPUTS)
def test_transclip_follows_the_updates(inputs: tuple[str, ...]) -> None:
    task = toy_task(inputs, shots=2, ragged=True, noise=1.0)
    query, _ = toy_queries(task)
    trust = 0.5 if "support" in inputs else 1.0
    mean, variance = literal_transclip(task, 0.2, trust, 3)
    log_p = torch.tensor([[normal(z, m, variance) for m in mean] for z in query]).double()
    wanted = (trust * 100 * query @ text(task).T + log_p).log_softmax(-1)
    logits = fit(TransClip(steps=3), task).logits(query)
    torch.testing.assert_close(logits.log_softmax(-1), wanted)


@pytest.mark.parametrize("inputs", INPUTS)
def test_the_head_agrees_with_transclips_own_assignments(inputs: tuple[str, ...]) -> None:
    """The head leaves the neighbours out; it still gives nearly every unlabelled item its own assignment."""
    task = toy_task(inputs, noise=1.0, shots=2)
    trust = 0.5 if "support" in inputs else 1.0
    mean, variance = literal_transclip(task, 0.2, trust, 10)
    density = torch.tensor([[normal(z, m, variance) for m in mean] for z in task.unlabeled]).double()
    log_y = trust * 100 * task.unlabeled @ text(task).T
    own = assignments(log_y + density, (log_y + density).softmax(-1), neighbours(task)).argmax(-1)
    assert float((fit(TransClip(), task).logits(task.unlabeled).argmax(-1) == own).double().mean()) >= 0.95


def literal_stata(task: Task, rounds: int) -> tuple[Tensor, Tensor, Tensor]:
    """Means [C, D], variances [D] and log y of the unlabelled items [U, C]."""
    items, support, classes, near = task.unlabeled, known(task), task.classes, neighbours(task)
    anchors = text(task) - text(task).mean(0) + items.mean(0)
    log_y = 100 * items @ text(task).T
    if support:
        anchors = torch.stack([torch.stack([x for x, label in support if label == k]).mean(0) for k in range(classes)])
        log_y = log_y - 100 * torch.cdist(items, anchors).square()
    a, mean, first = log_y.softmax(-1), anchors, None
    for step in range(rounds + 1):
        weighted = [(a[i, k], items[i], k) for i in range(len(items)) for k in range(classes)]
        weighted += [(torch.tensor(1.0), x, k) for x, k in support]
        if first is None:
            spread = sum(w * (z - anchors[k]) ** 2 for w, z, k in weighted)
            first = variance = spread / (len(items) + len(support))
        else:
            for k in range(classes):
                own = [(w, z) for w, z, label in weighted if label == k]
                mean[k] = (sum(w * z for w, z in own) + anchors[k]) / (sum(w for w, _ in own) + 1)
            spread = sum(w * (z - mean[k]) ** 2 for w, z, k in weighted)
            spread = spread + sum(first + (anchors[k] - mean[k]) ** 2 for k in range(classes))
            variance = spread / (len(items) + len(support) + classes)
        if step < rounds:
            mean = mean.clone()
            density = torch.tensor([[normal(z, m, variance) for m in mean] for z in items]).double()
            a = assignments(log_y + density, a, near)
    return mean, variance, log_y


@pytest.mark.parametrize("inputs", INPUTS)
def test_stata_follows_the_anchored_updates(inputs: tuple[str, ...]) -> None:
    task = toy_task(inputs, shots=2, ragged=True, noise=1.0)
    mean, variance, log_y = literal_stata(task, 3)
    log_p = torch.tensor([[normal(z, m, variance) for m in mean] for z in task.unlabeled]).double()
    logits = fit(StatA(steps=3), task).logits(task.unlabeled)
    torch.testing.assert_close(logits.log_softmax(-1), (log_y + log_p).log_softmax(-1))


def test_stata_keeps_to_the_classes_that_are_there() -> None:
    """All items from one class: the anchor keeps the others where the text puts them, and no item is lost to them."""
    task = toy_task(("text", "unlabeled"), noise=0.8, classes=6)
    one = (
        task.unlabeled[:6].repeat(4, 1)
        + 0.05 * torch.randn(24, 24, generator=torch.Generator().manual_seed(0)).double()
    )
    skewed = replace(task, unlabeled=unit(one))
    assert bool((fit(StatA(), skewed).logits(skewed.unlabeled).argmax(-1) == 0).all())


def test_memory_grows_with_items_and_not_with_items_times_classes_times_dims() -> None:
    """The authors' code forms [items, classes, D]; 2,000 x 200 x 256 of those would be 400 MB a round."""
    rng = torch.Generator().manual_seed(0)
    items, phrases = unit(torch.randn(2000, 256, generator=rng)), unit(torch.randn(200, 1, 256, generator=rng))
    task = make_task(text=phrases, unlabeled=items)
    with torch.profiler.profile(profile_memory=True) as watch:
        fit(TransClip(steps=1, guard=False), task)
    largest = max(event.self_cpu_memory_usage for event in watch.events())
    assert largest <= 2000 * 2000 * 4 * 2
