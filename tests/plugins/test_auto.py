"""auto: the blend written out step by step, and what it must make of good and useless phrases."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fewshot import LinearHead, make_task
from fewshot.arrays import unit
from fewshot.errors import MissingInput
from fewshot.strategy import fit
from fewshot.task import without
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins._holdout import hold_out, shot_folds
from fewshot_plugins._phrases import worth
from fewshot_plugins.auto import Auto, balance, members, shots
from fewshot_plugins.zero_shot import ZeroShot

BOTH = ("support", "text")


def accuracy(strategy, task, per_class=20, noise=0.6):
    query, truth = toy_queries(task, per_class, noise=noise)
    return float((fit(strategy, task).logits(query).argmax(-1) == truth).double().mean())


def log_loss(z, w, label):
    scores = z @ w
    return np.log(np.exp(scores - scores[label]).sum())


def least(cost, start):
    return minimize(cost, start, bounds=[(0, None)] * len(start), options={"ftol": 1e-14}).x


def test_is_the_blend_of_its_docstring():
    task = toy_task(BOTH, shots=4, classes=5, dim=12, noise=2.0)
    strategy = Auto(pull=80.0, visual=1.2, overlap=0.25)
    fits = partial(members, even=torch.ones(5).double())
    held = hold_out(fits, task, shot_folds(task, 5))
    scale = held.spread().numpy()
    held_z, held_y = held.logits.numpy() / scale, held.labels.numpy()

    def fold_loss(w):
        return sum(log_loss(z, w, y) for z, y in zip(held_z, held_y, strict=True))

    alone, apart = float(worth(task)), 1.2 * 4**0.25
    ridge = 0.8 / 4 ** (1 - min(max(2 * alone - 1, 0), 1))
    shares = np.array([ridge, 0.0, (1 - ridge) / 2, (1 - ridge) / 2])
    said = 0.3 * max(0.0, alone - 0.25 * apart) / (1 - 0.25**2) / 4
    shown = max(0.1 * apart, apart - 0.25 * alone) / (1 - 0.25**2)
    prior = np.array([said, *(shown * shares)])
    factor = least(lambda c: fold_loss(prior * c[0]) + 0.05 * (c[0] - 1) ** 2, [1.0])[0]
    pull = 80 / 4**2 / factor**2
    weights = least(lambda w: fold_loss(w) + pull / 2 * ((w - factor * prior) ** 2).sum(), factor * prior)
    query, _ = toy_queries(task)
    wanted = sum(w / s * head.logits(query) for w, s, head in zip(weights, scale, fits(task), strict=True))
    centred = [z - z.mean(-1, keepdim=True) for z in (fit(strategy, task).logits(query), wanted)]
    torch.testing.assert_close(*centred, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shots", [1, 2, 4])
def test_good_phrases_help(shots):
    tasks = [toy_task(BOTH, shots=shots, classes=10, dim=16, noise=1.5, seed=s) for s in range(5)]
    tasks = [replace(t, text=toy_task(BOTH, classes=10, dim=16, noise=2.0, seed=s).text) for s, t in enumerate(tasks)]

    def mean(strategy, drop=()):
        return sum(accuracy_of(strategy, without(t, *drop), s) for s, t in enumerate(tasks)) / len(tasks)

    def accuracy_of(strategy, task, seed):
        query, truth = toy_queries(task, 20, noise=1.5, seed=seed)
        return float((fit(strategy, task).logits(query).argmax(-1) == truth).double().mean())

    assert mean(Auto()) > max(mean(ZeroShot()), mean(Auto(), ["text"])) + 0.02


@pytest.mark.parametrize("shots", [1, 4])
def test_useless_phrases_do_not_harm(shots):
    lost = []
    for seed in range(8):
        task = toy_task(BOTH, shots=shots, classes=10, dim=32, noise=1.0, seed=seed)
        noise = torch.randn(task.text.shape, generator=torch.Generator().manual_seed(seed + 50)).double()
        junk, none = replace(task, text=unit(noise)), without(task, "text")
        lost.append(accuracy(Auto(), none, noise=1.0) - accuracy(Auto(), junk, noise=1.0))
    assert sum(lost) / 8 < 0.03


def test_a_class_without_examples_is_known_by_its_phrases():
    task = toy_task(BOTH, classes=6, unseen=2, shots=4, dim=32)
    assert accuracy(Auto(), task) > 0.8


def test_classes_without_examples_are_named_as_often_as_they_should_be():
    shares = {}
    for gamma in (None, 0.0):
        tasks = [toy_task(BOTH, classes=10, unseen=5, shots=6, dim=32, noise=1.0, seed=s) for s in range(5)]
        drawn = [(task, toy_queries(task, 20, noise=1.0, seed=s)[0]) for s, task in enumerate(tasks)]
        named = [fit(Auto(gamma=gamma), task).logits(query).argmax(-1) for task, query in drawn]
        shares[gamma] = float(torch.cat(named).ge(5).double().mean())
    assert shares[0.0] < 0.4 < shares[None] < 0.7


def test_a_class_without_examples_or_phrases_is_refused():
    with pytest.raises(MissingInput, match="class number 3 has neither"):
        fit(Auto(), toy_task(unseen=1))


def test_two_classes_with_one_example_each():
    task = toy_task(BOTH, classes=2, shots=1)
    head = fit(Auto(), task)
    assert isinstance(head, LinearHead)
    assert accuracy(Auto(), task) > 0.9


def test_classes_with_very_different_numbers_of_examples():
    task = toy_task(BOTH, classes=4, shots=9, dim=32)
    kept = torch.tensor([9, 1, 3, 2])[task.labels] > torch.arange(9).repeat(4)
    ragged = make_task(task.support[kept], task.labels[kept], text=task.text)
    assert accuracy(Auto(), ragged) > 0.8


def test_one_large_class_does_not_swallow_the_others():
    """Without weights ridge gives nearly every image to the class with the most examples, and takes auto with it."""
    found = {"auto": 0.0, "zero_shot": 0.0}
    for seed in range(4):
        task = toy_task(BOTH, classes=6, shots=30, dim=64, noise=2.0, seed=seed)
        kept = torch.tensor([30, 1, 1, 1, 1, 1])[task.labels] > torch.arange(30).repeat(6)
        uneven = make_task(task.support[kept], task.labels[kept], text=task.text)
        query, truth = toy_queries(task, 20, noise=2.0, seed=seed)
        for strategy in (Auto(), ZeroShot()):
            right = fit(strategy, uneven).logits(query).argmax(-1) == truth
            found[strategy.name] += float(right.double().mean()) / 4
    assert found["auto"] > found["zero_shot"] - 0.02


def test_weights_make_classes_count_the_same():
    task = toy_task(classes=4, shots=8)
    kept = torch.tensor([8, 1, 3, 0])[task.labels] > torch.arange(8).repeat(4)
    uneven = make_task(task.support[kept], task.labels[kept], classes=4)
    assert balance(uneven).tolist() == [4 / 8, 4, 4 / 3, 1]
    assert float(shots(uneven)) == pytest.approx(3 / (1 / 8 + 1 + 1 / 3))
    assert balance(task).tolist() == [1] * 4  # and so nothing changes where they are equal


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_copies_of_examples_change_nothing(shots):
    """A copy that stays while the other is held out would make its class look better known than it is."""
    task = toy_task(BOTH, classes=6, shots=shots, dim=32, noise=2.0)
    order = torch.randperm(12 * shots, generator=torch.Generator().manual_seed(0))
    twice = make_task(task.support.repeat(2, 1)[order], task.labels.repeat(2)[order], text=task.text)
    query, _ = toy_queries(task, noise=2.0)
    torch.testing.assert_close(fit(Auto(), twice).logits(query), fit(Auto(), task).logits(query))


@pytest.mark.parametrize("shots", [1, 2, 5])
@pytest.mark.parametrize("unseen", [0, 2])
def test_float32_and_batches_give_what_float64_and_single_tasks_give(shots, unseen):
    task = toy_task(BOTH, batch=(6,), classes=7, shots=shots, dim=48, noise=1.5, ragged=True, unseen=unseen)
    query, _ = toy_queries(task, noise=1.5)
    exact = torch.stack([fit(Auto(), task[i]).logits(query[i]) for i in range(6)])
    got = fit(Auto(), task.to(torch.float32)).logits(query.float()).double()
    torch.testing.assert_close(got, exact, rtol=0, atol=1e-3 * float(exact.abs().max()))


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("unseen", [1, 5])
def test_one_or_all_but_one_class_without_examples(shots, unseen):
    task = toy_task(BOTH, classes=6, unseen=unseen, shots=shots, dim=32)
    assert accuracy(Auto(), task) > 0.75


@pytest.mark.parametrize("shots", [1, 4])
def test_two_classes_of_the_same_phrases_are_told_apart_by_their_examples(shots):
    task = toy_task(BOTH, classes=5, shots=shots, dim=32)
    text = task.text.clone()
    text[1] = text[0]
    assert accuracy(Auto(), replace(task, text=text)) > 0.85


def test_probabilities_are_calibrated():
    # mean confidence against accuracy, at a noise where both could be far apart
    gaps = []
    for seed in range(6):
        task = toy_task(BOTH, classes=10, shots=10, dim=32, noise=2.0, seed=seed)
        query, truth = toy_queries(task, 20, noise=2.0, seed=seed)
        probability, label = fit(Auto(), task).logits(query).softmax(-1).max(-1)
        gaps.append(float(probability.mean() - (label == truth).double().mean()))
    assert abs(sum(gaps) / 6) < 0.1


@pytest.mark.parametrize("inputs", [("support",), BOTH])
@pytest.mark.parametrize(("classes", "seen"), [(2, 2), (3, 2), (3, 1)])
def test_two_examples_in_all_leave_doubt(inputs, classes, seen):
    if seen < classes and "text" not in inputs:
        return
    losses = []
    for seed in range(20):
        task = toy_task(inputs, classes=classes, shots=1, unseen=classes - seen, noise=2.0, seed=seed)
        query, truth = toy_queries(task, noise=2.0, seed=seed)
        log_p = fit(Auto(), task).logits(query).log_softmax(-1)
        losses.append(-log_p.gather(-1, truth.unsqueeze(-1)).mean())
    assert float(torch.stack(losses).mean()) < 1.2 * np.log(classes)
