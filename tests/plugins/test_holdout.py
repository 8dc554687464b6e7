"""Folds and held-out scores against loops."""

import pytest
import torch

from fewshot import make_task
from fewshot.testing import toy_task
from fewshot_plugins._holdout import class_folds, hold_out, ranks, shot_folds, without_copies
from fewshot_plugins.prototypical import Prototypical


def fits(task):
    return [Prototypical(temperature=t).fit(task) for t in (1.0, 3.0)]


def test_each_fold_takes_one_example_of_each_class():
    task = toy_task(shots=4, classes=5)
    fold = shot_folds(task, 5)
    for number in range(4):
        assert task.labels[fold == number].sort().values.tolist() == [0, 1, 2, 3, 4]


def test_more_shots_than_folds_are_shared_out_evenly():
    task = toy_task(shots=8, classes=3)
    fold = shot_folds(task, 5)
    counts = [[int(((fold == f) & (task.labels == c)).sum()) for c in range(3)] for f in range(5)]
    assert all(n in (1, 2) for row in counts for n in row)
    assert sum(map(sum, counts)) == 24


def test_one_shot_holds_out_half_of_the_classes():
    task = toy_task(shots=1, classes=6)
    fold = shot_folds(task, 5)
    assert sorted(fold.tolist()) == [0, 0, 0, 1, 1, 1]


def test_padding_is_never_held_out():
    task = toy_task(batch=(3,), shots=4, ragged=True)
    for fold in (shot_folds(task, 5), class_folds(task)):
        assert torch.equal(fold < 0, task.labels < 0)


@pytest.mark.parametrize(("classes", "shots"), [(500, 5), (100, 16), (500, 16)])
def test_large_tasks_hold_out_about_a_thousand(classes, shots):
    labels = torch.arange(classes).repeat_interleave(shots)
    fold = shot_folds(make_task(torch.randn(len(labels), 4), labels), 5)
    assert 1000 <= int((fold >= 0).sum()) < 1500


def test_ranks_number_the_examples_of_each_class():
    task = toy_task(shots=4, ragged=True)
    within, of_class = ranks(task)
    for c in range(4):
        assert within[task.labels == c].sort().values.tolist() == list(range(int((task.labels == c).sum())))
    assert of_class.sort().values.tolist() == [0, 1, 2, 3]


def test_copies_count_once_within_a_class():
    task = toy_task(shots=3, classes=3)
    x, y = task.support, task.labels
    noise = 1e-6 * torch.randn(9, task.dim, generator=torch.Generator().manual_seed(0)).double()
    order = torch.randperm(28, generator=torch.Generator().manual_seed(1))
    many, labels = torch.cat([x, x + noise, x, x[:1]])[order], torch.cat([y, y, y, torch.tensor([2])])[order]
    kept = without_copies(make_task(many, labels))
    assert kept.counts().tolist() == [3, 3, 4]  # the first example of class 0 stands in class 2 as well: a class apart
    for k in range(3):
        found = kept.support[kept.labels == k]
        assert float(torch.cdist(x[y == k], found).amin(-1).max()) < 1e-5
    assert torch.equal(without_copies(task).labels, y)


def test_copies_in_a_batch_are_found_in_each_task():
    task = toy_task(batch=(2,), shots=2, classes=3)
    one = torch.stack([task.support[0], task.support[1, [0, 0, 2, 3, 4, 5]]])
    kept = without_copies(make_task(one, task.labels))
    assert kept.counts().tolist() == [[2, 2, 2], [1, 2, 2]]


def test_held_out_scores_are_those_of_a_fit_without_the_fold():
    task = toy_task(batch=(2,), shots=3, classes=4, ragged=True)
    fold = shot_folds(task, 5)
    held = hold_out(fits, task, fold)
    for b in range(2):
        wanted = {}
        for number in range(int(fold[b].max()) + 1):
            keep = (fold[b] != number) & (task.labels[b] >= 0)
            rest = make_task(task.support[b][keep], task.labels[b][keep], classes=4)
            for i in (fold[b] == number).nonzero()[:, 0].tolist():
                scores = torch.stack([head.logits(task.support[b][i : i + 1])[0] for head in fits(rest)], -1)  # [C, M]
                wanted[round(float(task.support[b, i, 0]), 9)] = (int(task.labels[b, i]), rest.seen(), scores)
        rows = (held.labels[b] >= 0).nonzero()[:, 0].tolist()
        assert len(rows) == len(wanted) == int((task.labels[b] >= 0).sum())
        for row in rows:
            scores = held.logits[b, row]
            match = [v for v in wanted.values() if torch.allclose(v[2], scores)]
            assert [(m[0], m[1].tolist()) for m in match] == [(int(held.labels[b, row]), held.columns[b, row].tolist())]


def test_only_examples_whose_class_kept_another_are_judged():
    support, labels = torch.randn(5, 3), torch.tensor([0, 0, 1, 1, 2])
    task = make_task(support, labels)
    held = hold_out(fits, task, shot_folds(task, 5))
    assert held.labels[held.judged()].sort().values.tolist() == [0, 0, 1, 1]


def test_spread_is_the_unbiased_deviation_around_each_examples_mean():
    task = toy_task(shots=3, classes=4)
    held = hold_out(fits, task, shot_folds(task, 5))
    for m in range(2):
        squares = [
            (held.logits[i, c, m] - held.logits[i, :, m].mean()).item() ** 2 for i in range(12) for c in range(4)
        ]
        assert abs(held.spread()[m].item() - (sum(squares) / 36) ** 0.5) < 1e-9


def test_class_folds_leave_the_other_classes_all_their_shots():
    task = toy_task(shots=3, classes=6)
    fold = class_folds(task)
    for c in range(6):
        assert len(set(fold[task.labels == c].tolist())) == 1
    assert int((fold == 0).sum()) == int((fold == 1).sum()) == 9
