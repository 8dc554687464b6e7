"""Mini-batches by rank: every example takes its turn, no order matters."""

from dataclasses import replace

import torch

from fewshot.testing import toy_task
from fewshot_plugins._descent import batches, cosine_slope, cross_entropy_slope


def test_small_tasks_use_all_examples_in_each_step():
    task = toy_task(shots=3)
    for step in range(3):
        assert batches(task)(step)[0] is task.support


def test_large_tasks_take_turns_and_every_class_is_in_each():
    task = toy_task(shots=9, classes=4)
    take, seen = batches(task, rows=12), []
    for step in range(3):
        support, labels = take(step)
        assert sorted(labels[labels >= 0].tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        seen += [tuple(row) for row in support[labels >= 0].tolist()]
    assert sorted(seen) == sorted(map(tuple, task.support.tolist()))
    assert torch.equal(take(3)[0], take(0)[0])


def test_turns_do_not_depend_on_order_or_company():
    task = toy_task(batch=(3,), shots=9, classes=4, ragged=True)
    order = torch.randperm(36, generator=torch.Generator().manual_seed(1))
    moved = replace(task, support=task.support[:, order], labels=task.labels[:, order])
    for step in range(4):
        support, labels = batches(task, rows=10)(step)
        other, other_labels = batches(moved, rows=10)(step)
        for b in range(3):
            alone, alone_labels = batches(task[b], rows=10)(step)
            rows = [
                sorted(map(tuple, s[y >= 0].tolist()))
                for s, y in ((support[b], labels[b]), (other[b], other_labels[b]), (alone, alone_labels))
            ]
            assert rows[0] == rows[1] == rows[2]


def test_slopes_are_those_of_autograd():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 3, -1, 2, 1, -1])
    loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1)
    torch.testing.assert_close(cross_entropy_slope(logits, labels), *torch.autograd.grad(loss, logits))
    weight = torch.randn(4, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(4, 5, generator=rng, dtype=torch.float64)
    value = (torch.nn.functional.normalize(weight, dim=-1) * slope).sum()
    torch.testing.assert_close(cosine_slope(weight, slope), *torch.autograd.grad(value, weight))
