"""Leave-one-out temperature scaling against scipy, by hand, and what it does to probabilities."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from fewshot import make_task
from fewshot.calibrate import ScaledHead, example_folds, fit_calibrated, held_out_factor
from fewshot.drawing import draw
from fewshot.episodes import EpisodeSpec
from fewshot.evaluate import evaluate
from fewshot.features import make_features
from fewshot.headfile import head_from_tensors, head_to_tensors
from fewshot.registry import registry


def blobs(shots, way=4, dim=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(way, dim, generator=generator)
    labels = torch.arange(way).repeat_interleave(shots)
    x = centre[labels] + 1.5 * torch.randn(way * shots, dim, generator=generator)
    return make_task(x / x.norm(dim=-1, keepdim=True), labels)


def test_factor_is_the_minimum_that_scipy_finds():
    rng = np.random.default_rng(0)
    logits, labels = 9 * rng.normal(size=(30, 5)), rng.integers(0, 5, 30)
    logits[np.arange(30), labels] += 8
    target = np.full((30, 5), (1 - 31 / 32) / 4)
    target[np.arange(30), labels] = 31 / 32

    def loss(log_factor):
        z = np.exp(log_factor) * logits
        z = z - z.max(1, keepdims=True)
        return -(target * (z - np.log(np.exp(z).sum(1, keepdims=True)))).sum()

    wanted = np.exp(minimize_scalar(loss, bounds=(-8, 8), method="bounded", options={"xatol": 1e-9}).x)
    found = held_out_factor(torch.tensor(logits), torch.tensor(labels))
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    padded = torch.cat([torch.tensor(logits), 50 * torch.ones(3, 5, dtype=torch.float64).cumsum(1)])
    labels = torch.cat([torch.tensor(labels), torch.tensor([-1, -1, -1])])
    assert float(held_out_factor(padded, labels)) == pytest.approx(wanted, rel=1e-5)


def test_folds_leave_out_each_example_once_and_empty_no_class():
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2, 2, -1, 0])
    fold = example_folds(make_task(torch.eye(11), labels, classes=3), 5).tolist()
    assert fold == [0, 1, 2, 3, 4, 0, -1, 0, 1, -1, 1]


def test_held_out_examples_are_scored_by_a_head_that_never_saw_them():
    task = blobs(3)
    strategy = registry().strategy("prototypical")()
    logits, labels = [], []
    for number in range(3):
        kept = [i for i in range(12) if i % 3 != number]
        head = strategy.fit(make_task(task.support[kept], task.labels[kept]))
        out = [i for i in range(12) if i % 3 == number]
        logits.append(head.logits(task.support[out]))
        labels.append(task.labels[out])
    wanted = held_out_factor(torch.cat(logits), torch.cat(labels))
    found = fit_calibrated(strategy, task)
    torch.testing.assert_close(found.factor, wanted)
    assert float(found.factor) != 1
    query = torch.randn(7, 16)
    torch.testing.assert_close(found.logits(query), wanted * strategy.fit(task).logits(query))


@pytest.mark.parametrize("name", ["prototypical", "linear_probe", "dn4"])
def test_batches_are_calibrated_task_by_task(name):
    tasks = [blobs(4, seed=seed) for seed in range(3)]
    strategy = registry().strategy(name)()
    batch = make_task(torch.stack([t.support for t in tasks]), torch.stack([t.labels for t in tasks]))
    alone = torch.stack([fit_calibrated(strategy, task).factor for task in tasks])
    torch.testing.assert_close(fit_calibrated(strategy, batch).factor, alone, rtol=2e-3, atol=1e-6)


def test_one_shot_leaves_probabilities_as_they_are():
    task = blobs(1)
    strategy = registry().strategy("prototypical")()
    query = torch.randn(5, 16)
    torch.testing.assert_close(fit_calibrated(strategy, task).logits(query), strategy.fit(task).logits(query))


def test_calibration_error_falls_and_accuracy_stays():
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(12, 32, generator=generator)
    x = centre.repeat_interleave(40, 0) + 1.5 * torch.randn(480, 32, generator=generator)
    features = make_features("blobs", x, [f"c{i:02}" for i in range(12) for _ in range(40)])
    episodes = draw(EpisodeSpec(shot=10, query=15, episodes=64), features.labels)
    strategy = registry().strategy("prototypical")(temperature=1.0)
    plain = evaluate(strategy, features, episodes)
    scaled = evaluate(strategy, features, episodes, calibrate=True)
    assert scaled.accuracies == plain.accuracies
    assert scaled.calibrated
    assert not plain.calibrated
    assert plain.metrics["ece"].mean > 0.2
    assert scaled.metrics["ece"].mean < 0.05
    assert scaled.metrics["nll"].mean < plain.metrics["nll"].mean


def test_scaled_heads_can_be_saved_for_every_strategy():
    head = fit_calibrated(registry().strategy("knn")(), blobs(4))
    again = head_from_tensors(registry().strategy("knn"), *head_to_tensors(head))
    assert isinstance(again, ScaledHead)
    query = torch.randn(5, 16)
    torch.testing.assert_close(again.logits(query), head.logits(query))


@pytest.mark.parametrize("name", ["prototypical", "ridge", "simpleshot"])
def test_no_answer_changes_where_there_is_nothing_to_learn(name):
    x = torch.randn(240, 32, generator=torch.Generator().manual_seed(0))  # so the factor is tiny in many episodes
    features = make_features("noise", x, [f"c{i % 6}" for i in range(240)])
    episodes = draw(EpisodeSpec(way=5, shot=2, query=15, episodes=100), features.labels)
    strategy = registry().strategy(name)()
    plain, scaled = (evaluate(strategy, features, episodes, calibrate=c) for c in (False, True))
    assert scaled.accuracies == plain.accuracies
    assert scaled.recall == plain.recall
