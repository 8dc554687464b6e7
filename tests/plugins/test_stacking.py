"""Calibrated stacking: gamma against brute force, and what it may not depend on."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from attribute_tasks import attribute_task, stacked
from fewshot import LinearHead
from fewshot.strategy import fit
from fewshot_plugins._stacking import FOLDS, best_offset, choose_gamma, stack
from fewshot_plugins.dap import DAP
from fewshot_plugins.eszsl import ESZSL


def harmonic(gamma, margin, gain, loss):
    won = sum(g for m, g in zip(margin, gain, strict=True) if m < gamma)
    kept = sum(s for m, s in zip(margin, loss, strict=True) if m > gamma)
    return 2 * won * kept / (won + kept) if won + kept else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_best_offset_beats_every_point_of_a_fine_grid(seed):
    rng = torch.Generator().manual_seed(seed)
    margin = torch.randn(40, generator=rng, dtype=torch.float64)
    is_unseen = torch.rand(40, generator=rng) < 0.5
    right = torch.rand(40, generator=rng, dtype=torch.float64).round()
    gain, loss = right * is_unseen / is_unseen.sum(), right * ~is_unseen / (~is_unseen).sum()
    lists = margin.tolist(), gain.tolist(), loss.tolist()
    got = harmonic(best_offset(margin, gain, loss).item(), *lists)
    assert got == pytest.approx(max(harmonic(g / 500, *lists) for g in range(-2000, 2000)))


def test_best_offset_is_zero_when_nothing_can_be_won():
    margin = torch.tensor([0.3, 0.5, 0.7])
    assert best_offset(margin, torch.zeros(3), torch.ones(3) / 3) == 0
    assert best_offset(margin, torch.zeros(3), torch.zeros(3)) == 0


def hidden_sets(task):
    """The split, by loops: for each fold the classes that play unseen, and the examples taken from the others."""
    direction = torch.sin(torch.arange(1, task.dim + 1, dtype=torch.float64)).tolist()
    place = [sum(a * b for a, b in zip(row, direction, strict=True)) for row in task.support.tolist()]
    labels = task.labels.tolist()
    members = {
        k: sorted((i for i, y in enumerate(labels) if y == k), key=place.__getitem__) for k in set(labels) - {-1}
    }
    order = sorted(members, key=lambda k: sum(place[i] for i in members[k]) / len(members[k]))
    for fold in range(FOLDS):
        away = {k for rank, k in enumerate(order) if rank % FOLDS == fold}
        rest = set(order) - away
        lost = {i for k in away for i in members[k]}
        held = {i for k in rest if len(members[k]) > 1 for r, i in enumerate(members[k]) if r % FOLDS == fold}
        yield away, rest, lost, held


def judge(strategy, task):
    """Each hidden example's (class, plays unseen, margin of seen over unseen, right in its own group)."""
    labels, judged = task.labels.tolist(), []
    for away, rest, lost, held in hidden_sets(task):
        kept = torch.tensor([-1 if i in lost | held else y for i, y in enumerate(labels)])
        scores = fit(strategy.replace(gamma=0.0), replace(task, labels=kept)).logits(task.support).tolist()
        for i in lost | held:
            near, far = max(rest, key=scores[i].__getitem__), max(away, key=scores[i].__getitem__)
            right = labels[i] == (far if i in lost else near)
            judged.append((labels[i], i in lost, scores[i][near] - scores[i][far], right))
    return judged


def harmonic_mean(judged, gamma):
    def accuracy(unseen):
        classes = {}
        for label, lost, margin, right in judged:
            if lost == unseen:
                classes.setdefault(label, []).append(right and (margin < gamma if unseen else margin > gamma))
        return sum(sum(c) / len(c) for c in classes.values()) / len(classes)

    u, s = accuracy(True), accuracy(False)
    return 2 * u * s / (u + s) if u + s else 0.0


@pytest.mark.parametrize("strategy", [ESZSL(), DAP(steps=30)])
def test_gamma_is_the_best_on_held_out_seen_classes(strategy):
    task, _, _ = attribute_task(seed=3, noise=0.8)
    labels = task.labels.clone()
    labels[[0, 6, 7, 8, 9]] = -1  # unequal shots, one class with a single example
    task = replace(task, labels=labels)
    judged = judge(strategy, task)
    margins = sorted(margin for _, _, margin, _ in judged)
    best = max(harmonic_mean(judged, (a + b) / 2) for a, b in pairwise(margins))
    assert best > 0
    assert harmonic_mean(judged, choose_gamma(strategy._solve, task).item()) == pytest.approx(best)


def test_gamma_never_looks_at_unseen_classes():
    task, _, _ = attribute_task(seed=3)
    table = task.attributes.clone()
    table[6:] = torch.rand(3, 8, dtype=torch.float64) * 50
    assert choose_gamma(ESZSL()._solve, task) == choose_gamma(ESZSL()._solve, replace(task, attributes=table))


def test_gamma_raises_the_harmonic_mean_on_hard_problems():
    def score(seed, gamma):
        task, query, truth = attribute_task(seen=8, unseen=4, shots=10, dim=24, noise=2.0, seed=seed)
        right = fit(ESZSL(gamma=gamma), task).logits(query).argmax(-1) == truth
        u, s = right[truth >= 8].double().mean().item(), right[truth < 8].double().mean().item()
        return 2 * u * s / (u + s) if u + s else 0.0

    gains = [score(seed, None) - score(seed, 0.0) for seed in range(8)]
    assert sum(gains) / len(gains) > 0.05


def test_stack_subtracts_from_seen_classes_only():
    task, query, _ = attribute_task()
    plain, lowered = (fit(ESZSL(gamma=g), task).logits(query) for g in (0.0, 1.5))
    torch.testing.assert_close(plain - lowered, (1.5 * task.seen().double()).expand_as(plain))


def test_gamma_is_zero_without_unseen_classes_or_too_few_seen():
    for options in ({"unseen": 0}, {"seen": 2, "shots": 1}, {"seen": 1, "shots": 5}):
        task, _, _ = attribute_task(**options)
        assert choose_gamma(ESZSL()._solve, task) == 0


def test_a_batch_equals_a_loop_when_only_some_tasks_have_unseen_classes():
    first, _, _ = attribute_task(seed=5)
    second = replace(first, labels=torch.arange(30) % 9)  # every class seen
    third = replace(first, labels=torch.where(first.labels < 2, first.labels, -1))
    batch = choose_gamma(ESZSL()._solve, stacked([first, second, third]))
    for i, task in enumerate((first, second, third)):
        torch.testing.assert_close(batch[i], choose_gamma(ESZSL()._solve, task))
    assert batch[0] != 0
    assert batch[1] == 0


def test_the_bias_a_head_has_is_kept():
    task, query, _ = attribute_task()
    head = LinearHead(torch.zeros(9, 12, dtype=torch.float64), torch.arange(9.0, dtype=torch.float64))
    got = stack(lambda task: head, task, 2.0).logits(query)[0]
    assert got.tolist() == [-2, -1, 0, 1, 2, 3, 6, 7, 8]
