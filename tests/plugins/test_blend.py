"""Blend weights against scipy's bounded minimiser on the same objective."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fewshot_plugins._blend import blend_weights


def problem(seed, rows=30, classes=4, members=3, useful=(2.0, 0.0, 1.0)):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (rows,), generator=rng)
    logits = torch.randn(rows, classes, members, generator=rng, dtype=torch.float64)
    logits[torch.arange(rows), labels] += torch.tensor(useful, dtype=torch.float64)
    return logits, labels


def cost(w, logits, labels, prior, pull):
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        scores = [sum(a * b for a, b in zip(w, c, strict=True)) for c in row if c[0] != -np.inf]
        own = sum(a * b for a, b in zip(w, row[label], strict=True))
        total += np.log(sum(np.exp(s - own) for s in scores))
    return total + pull / 2 * sum((a - b) ** 2 for a, b in zip(w, prior, strict=True))


@pytest.mark.parametrize("pull", [0.1, 5.0])
@pytest.mark.parametrize("useful", [(2.0, 0.0, 1.0), (1.0, -1.0, 0.5)])
def test_is_the_bounded_minimum(pull, useful):
    for seed in range(3):
        logits, labels = problem(seed, useful=useful)
        prior = [0.5, 0.7, 0.0]
        got = blend_weights(logits, labels, torch.tensor(prior, dtype=torch.float64), pull)
        best = minimize(cost, prior, (logits, labels, prior, pull), bounds=[(0, None)] * 3, method="L-BFGS-B")
        assert (got >= 0).all()
        assert cost(got.tolist(), logits, labels, prior, pull) <= best.fun + 1e-6


def test_classes_that_take_no_part_and_rows_that_do_not_count():
    logits, labels = problem(0)
    logits[:, 3] = torch.where((labels != 3)[:, None], -torch.inf, logits[:, 3])
    prior = torch.ones(3, dtype=torch.float64)
    padded = torch.cat([logits, torch.full((4, 4, 3), 9.0)]), torch.cat([labels, torch.full((4,), -1)])
    got = blend_weights(*padded, prior, 1.0)
    best = minimize(cost, [1.0] * 3, (logits, labels, [1.0] * 3, 1.0), bounds=[(0, None)] * 3, method="L-BFGS-B")
    assert got.tolist() == pytest.approx(best.x.tolist(), abs=1e-4)


def test_nothing_to_judge_by_gives_the_prior():
    logits, _ = problem(0)
    prior = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64)
    assert blend_weights(logits, torch.full((30,), -1), prior, 3.0).tolist() == prior.tolist()


def test_hugely_wrong_logits_do_not_diverge():
    logits, labels = problem(0)
    got = blend_weights(-1e4 * logits, labels, torch.ones(3, dtype=torch.float64), 1.0)
    assert torch.isfinite(got).all()
    assert cost(got.tolist(), logits * -1e4, labels, [1.0] * 3, 1.0) < 100
