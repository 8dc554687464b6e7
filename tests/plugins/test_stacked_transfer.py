"""`stacking` against its docstring in loops, with scipy's minimiser for the weights."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fewshot import fit, make_task
from fewshot.arrays import unit
from fewshot.errors import MissingInput
from fewshot.registry import registry
from fewshot.testing import toy_queries, toy_task
from fewshot.transfer.trial import ALONE, SAME, STACK
from fewshot_plugins.stacking import LEAST, MEMBERS, PARTS, PULLS, Stacking, enough

PRIOR = np.array([1, 2, 1, 1, 2]) / 7


def loss(w: np.ndarray, log_p: np.ndarray, labels: np.ndarray) -> float:
    scores = log_p @ w  # [n, C]
    return float((np.log(np.exp(scores).sum(1)) - scores[np.arange(len(labels)), labels]).sum())


def least(log_p: np.ndarray, labels: np.ndarray, pull: float) -> np.ndarray:
    def cost(w: np.ndarray) -> float:
        return loss(w, log_p, labels) + pull / 2 * ((w - PRIOR) ** 2).sum()

    return minimize(cost, PRIOR, bounds=[(0, None)] * len(PRIOR), method="L-BFGS-B", options={"ftol": 1e-14}).x


def random_scores(seed: int, n: int = 24, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=rng)
    raw = torch.randn(n, classes, len(MEMBERS), generator=rng, dtype=torch.float64)
    raw[torch.arange(n), labels] += torch.tensor([0.2, 1.5, 0.7, 0.0, -1.0])  # members of unlike worth
    return raw.log_softmax(1), labels


@pytest.mark.parametrize("seed", range(3))
def test_weights_of_stacking_minimise_its_loss_with_the_pull_that_held_out_scores_choose(seed: int) -> None:
    log_p, labels = random_scores(seed)
    x, y = log_p.numpy(), labels.numpy()
    group = x.sum((1, 2)).argsort().argsort() % PARTS
    losses = {}
    for pull in PULLS:
        fitted = [least(x[group != g], y[group != g], pull) for g in range(PARTS)]
        losses[pull] = sum(loss(w, x[group == g], y[group == g]) for g, w in enumerate(fitted))
    chosen = min(losses, key=losses.__getitem__)
    got = Stacking().weigh(log_p, labels).numpy()
    np.testing.assert_allclose(got, least(x, y, chosen), atol=2e-3)
    np.testing.assert_allclose(Stacking(pull=5.0).weigh(log_p, labels).numpy(), least(x, y, 5.0), atol=2e-3)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    np.testing.assert_allclose(Stacking().weigh(log_p[order], labels[order]).numpy(), got, atol=1e-9)


def test_stacking_holds_examples_out_and_adds_log_probabilities() -> None:
    task = toy_task(("support", "source"), dim=8, shots=4, classes=3, noise=1.0)
    held = torch.zeros(len(task.labels), 3, len(MEMBERS), dtype=torch.float64)
    rank = {}
    for c in range(3):
        mine = [i for i in range(len(task.labels)) if int(task.labels[i]) == c]
        rank |= {i: place for place, i in enumerate(sorted(mine, key=lambda i: float(task.support[i].sum())))}
    for k in range(4):
        out = [i for i in rank if rank[i] == k]
        keep = [i for i in rank if rank[i] != k]
        rest = make_task(task.support[keep], task.labels[keep], source=task.source, source_labels=task.source_labels)
        for m, name in enumerate(MEMBERS):
            held[out, :, m] = fit(registry().strategy(name)(), rest).logits(task.support[out]).double().log_softmax(-1)
    weights = Stacking().weigh(held, task.labels)
    query, _ = toy_queries(task)
    each = [fit(registry().strategy(n)(), task).logits(query).log_softmax(-1).clamp_min(LEAST) for n in MEMBERS]
    wanted = sum(float(w) * log_p for w, log_p in zip(weights, each, strict=True))
    torch.testing.assert_close(fit(Stacking(), task).logits(query), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("each", "kept"), [(100, 5), (249, 5), (250, 4), (400, 3), (1000, 1), (3000, 1)])
def test_folds_are_held_out_until_a_thousand_examples_are(each: int, kept: int) -> None:
    part = torch.cat([torch.arange(PARTS).repeat(each), torch.full((7,), -1)])[torch.randperm(PARTS * each + 7)]
    found = enough(part)
    assert torch.equal(found[part < kept], part[part < kept])
    assert (found[part >= kept] == -1).all()


def test_one_shot_leaves_the_prior_and_a_misleading_source_no_weight() -> None:
    one = toy_task(("support", "source"), shots=1)
    np.testing.assert_allclose(fit(Stacking(), one).weights.numpy(), PRIOR, atol=1e-6)
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 20, generator=rng, dtype=torch.float64)

    def around(each: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(3).repeat_interleave(each)
        return unit(centres[labels] + 2 * torch.randn(len(labels), 20, generator=rng, dtype=torch.float64)), labels

    x, labels = around(8)
    source, own = around(60)
    for shift, least, most in ((0, 0.3, 9.0), (1, 0.0, 0.1)):  # a source of right labels, and one of wrong ones
        head = fit(Stacking(), make_task(x, labels, source=source, source_labels=(own + shift) % 3))
        weight = dict(zip(MEMBERS, head.weights.tolist(), strict=True))
        assert least <= weight["pooled"] + weight["tca"] <= most


def test_stacking_wants_the_classes_of_the_task_in_the_source_and_its_members_are_strategies() -> None:
    task = toy_task(("support", "source"), shots=2, classes=3)
    with pytest.raises(MissingInput, match="'stacking' wants at least 2 of the task's classes"):
        fit(Stacking(), make_task(task.support, task.labels, source=task.source, source_labels=task.source_labels + 3))
    assert set(Stacking.members) <= set(SAME) | {ALONE}
    assert Stacking.name == STACK
    assert all(registry().strategy(name) is cls for name, (cls, _) in MEMBERS.items())
