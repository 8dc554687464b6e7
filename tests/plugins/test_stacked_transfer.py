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
from fewshot_plugins.stacking import MEMBERS, MOST, PARTS, PULL, Stacking, enough

PRIOR = np.array([2, 2, 2, 1, 0, 0]) / 7


def bounded(log_p: np.ndarray) -> np.ndarray:
    """Classes last but one; no member is surer against a class than e^3 to 1."""
    return np.maximum(log_p, log_p.max(-2, keepdims=True) - MOST)


def losses(w: np.ndarray, log_p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    scores = log_p @ w  # [n, C]
    return np.log(np.exp(scores).sum(1)) - scores[np.arange(len(labels)), labels]


def least(log_p: np.ndarray, labels: np.ndarray, pull: float) -> np.ndarray:
    def cost(w: np.ndarray) -> float:
        return float(losses(w, log_p, labels).sum()) + pull / 2 * ((w - PRIOR) ** 2).sum()

    return minimize(cost, PRIOR, bounds=[(0, None)] * len(PRIOR), method="L-BFGS-B", options={"ftol": 1e-14}).x


def random_scores(seed: int, worth: float, n: int = 24, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=rng)
    raw = torch.randn(n, classes, len(MEMBERS), generator=rng, dtype=torch.float64)
    raw[torch.arange(n), labels] += torch.tensor([worth, 1.5, 0.7, 0.0, 1.5, 1.0])  # members of unlike worth
    return raw.log_softmax(1), labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("worth", [1.0, -4.0])
def test_weights_are_learned_where_held_out_scores_contradict_the_prior(seed: int, worth: float) -> None:
    log_p, labels = random_scores(seed, worth)
    x, y = bounded(log_p.numpy()), labels.numpy()
    group = x.sum((1, 2)).argsort().argsort() % PARTS
    saved = losses(PRIOR, x, y)
    for g in range(PARTS):
        saved[group == g] -= losses(least(x[group != g], y[group != g], PULL), x[group == g], y[group == g])
    certain = saved.mean() > saved.std(ddof=1) / len(y) ** 0.5
    assert certain if worth < 0 else True  # a member that is sure of the wrong class
    wanted = least(x, y, PULL) if certain else PRIOR
    got = Stacking().weigh(log_p, labels).numpy()
    np.testing.assert_allclose(got, wanted, atol=2e-3)
    np.testing.assert_allclose(Stacking(pull=5.0).weigh(log_p, labels).numpy(), least(x, y, 5.0), atol=2e-3)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    np.testing.assert_allclose(Stacking().weigh(log_p[order], labels[order]).numpy(), got, atol=1e-9)


def test_weights_are_the_priors_where_members_agree_and_are_as_sure_as_they_should_be() -> None:
    kept = 0
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        log_p = torch.randn(20, 3, generator=rng, dtype=torch.float64).log_softmax(1)
        labels = torch.multinomial(log_p.exp(), 1, generator=rng).squeeze(1)  # calibrated
        kept += np.allclose(Stacking().weigh(log_p.unsqueeze(-1).expand(-1, -1, len(MEMBERS)), labels).numpy(), PRIOR)
    assert kept >= 14  # more than one standard error off is expected in one of six


@pytest.mark.parametrize("pull", [None, 2.0])
def test_stacking_holds_examples_out_and_adds_bounded_log_probabilities(pull: float | None) -> None:
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
    stack = Stacking(pull=pull)
    weights = stack.weigh(held, task.labels)
    query, _ = toy_queries(task)
    each = [fit(registry().strategy(n)(), task).logits(query).log_softmax(-1).double() for n in MEMBERS]
    wanted = torch.from_numpy(bounded(torch.stack(each, -1).numpy())) @ weights
    torch.testing.assert_close(fit(stack, task).logits(query).double(), wanted, atol=1e-4, rtol=1e-4)


def test_members_without_weight_are_left_out_unless_all_are() -> None:
    task = toy_task(("support", "source"), shots=1)
    head = fit(Stacking(), task)  # nothing can be held out
    assert len(head.heads) == len(head.weights) == 4
    np.testing.assert_allclose(head.weights.numpy(), PRIOR[PRIOR > 0], atol=1e-6)

    class Nothing(Stacking):
        def weigh(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(MEMBERS), dtype=torch.float64)

    query, _ = toy_queries(task)
    assert not fit(Nothing(), task).logits(query).any()


@pytest.mark.parametrize(("each", "kept"), [(100, 5), (249, 5), (250, 4), (400, 3), (1000, 1), (3000, 1)])
def test_folds_are_held_out_until_a_thousand_examples_are(each: int, kept: int) -> None:
    part = torch.cat([torch.arange(PARTS).repeat(each), torch.full((7,), -1)])[torch.randperm(PARTS * each + 7)]
    found = enough(part)
    assert torch.equal(found[part < kept], part[part < kept])
    assert (found[part >= kept] == -1).all()


def test_a_misleading_source_gets_no_weight() -> None:
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 20, generator=rng, dtype=torch.float64)

    def around(each: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(3).repeat_interleave(each)
        return unit(centres[labels] + 2 * torch.randn(len(labels), 20, generator=rng, dtype=torch.float64)), labels

    x, labels = around(8)
    source, own = around(60)
    for shift, least, most in ((0, 0.5, 9.0), (1, 0.0, 0.1)):  # a source of right labels, and one of wrong ones
        head = fit(Stacking(), make_task(x, labels, source=source, source_labels=(own + shift) % 3))
        fits = [fit(cls(), make_task(x, labels, source=source, source_labels=(own + shift) % 3))
                for cls, _ in MEMBERS.values()]  # fmt: skip
        trusting = fits[:3]  # pooled, tca and jda
        weight = 0.0
        for one, w in zip(head.heads, head.weights.tolist(), strict=True):
            same = [torch.equal(one.logits(x), other.logits(x)) for other in trusting]
            weight += w * any(same)
        assert least <= weight <= most


def test_stacking_wants_the_classes_of_the_task_in_the_source_and_its_members_are_strategies() -> None:
    task = toy_task(("support", "source"), shots=2, classes=3)
    with pytest.raises(MissingInput, match="'stacking' wants at least 2 of the task's classes"):
        fit(Stacking(), make_task(task.support, task.labels, source=task.source, source_labels=task.source_labels + 3))
    assert set(Stacking.members) <= set(SAME) | {ALONE}
    assert Stacking.name == STACK
    assert all(registry().strategy(name) is cls for name, (cls, _) in MEMBERS.items())
