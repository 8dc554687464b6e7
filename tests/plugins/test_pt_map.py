"""`pt_map` against a loop over the paper's algorithm with plain Sinkhorn, and easyfsl where easyfsl follows it."""

import pytest
import torch
from torch import Tensor

from easyfsl_peer import easyfsl_scores
from fewshot import Task, fit, make_task
from fewshot.arrays import unit
from fewshot.testing import toy_task
from fewshot_plugins._sinkhorn import balance
from fewshot_plugins.pt_map import PtMap, power_transform

INPUTS = ("support", "unlabeled")


def sinkhorn(cost: Tensor, regularisation: float) -> Tensor:
    """Scale rows to 1 and columns to U / C in turn, until neither changes."""
    plan = (-regularisation * cost).exp()
    for _ in range(10_000):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan * (len(plan) / plan.shape[1] / plan.sum(0, keepdim=True))
    return plan / plan.sum(1, keepdim=True)


def literal(task: Task, power: float, center: bool, steps: int) -> Tensor:
    """Algorithm 1 in the embedding space.  -> the plan [U, C]"""

    def transform(x: Tensor) -> Tensor:
        return torch.stack([v.sign() * v.abs() ** power / (v.abs() ** power).norm() for v in x])

    keep = task.labels >= 0
    support, labels, items = transform(task.support[keep]), task.labels[keep], transform(task.unlabeled)

    def means() -> Tensor:
        return torch.stack([support[labels == k].mean(0) for k in range(task.classes)])

    if center:
        middle = means().mean(0)
        support, items = unit(support - middle), unit(items - items.mean(0))
    c = means()
    hot = torch.nn.functional.one_hot(labels, task.classes).double()
    for _ in range(steps):
        plan = sinkhorn(torch.cdist(items, c).square(), 10.0)
        total = hot.T @ support + plan.T @ items
        c = c + 0.2 * (total / (hot.sum(0) + plan.sum(0)).unsqueeze(1) - c)
    return sinkhorn(torch.cdist(items, c).square(), 10.0)


@pytest.mark.parametrize(("power", "center"), [(0.5, False), (0.5, True), (1.0, True)])
def test_head_gives_unlabelled_items_their_row_of_the_plan(power: float, center: bool) -> None:
    task = toy_task(INPUTS, shots=3, ragged=True, noise=1.0)
    probability = fit(PtMap(power=power, center=center, steps=4), task).logits(task.unlabeled).softmax(-1)
    torch.testing.assert_close(probability, literal(task, power, center, 4), atol=1e-4, rtol=1e-3)


def test_the_same_where_rows_outnumber_dims() -> None:
    task = toy_task(INPUTS, shots=3, dim=8, noise=1.0)
    probability = fit(PtMap(steps=4), task).logits(task.unlabeled).softmax(-1)
    torch.testing.assert_close(probability, literal(task, 1.0, True, 4), atol=1e-4, rtol=1e-3)


def test_assignments_equal_easyfsl_on_features_it_can_transform() -> None:
    """On the simplex sqrt(p) has length 1, so easyfsl's transform, which does not normalise, is the paper's."""
    rng = torch.Generator().manual_seed(0)
    mixture = 8 * torch.randn(5, 30, generator=rng).softmax(-1)
    draw = torch.randn(5, 20, 30, generator=rng).mul(0.5).exp() * (mixture + 0.05).unsqueeze(1)
    simplex = (draw / draw.sum(-1, keepdim=True)).double()
    support, items, labels = (
        simplex[:, :2].flatten(0, 1),
        simplex[:, 2:].flatten(0, 1),
        torch.arange(5).repeat_interleave(2),
    )
    theirs = easyfsl_scores("PTMAP", make_task(support, labels), items, fine_tuning_steps=20)
    ours = fit(PtMap(power=0.5, center=False), make_task(unit(support), labels, unlabeled=unit(items)))
    torch.testing.assert_close(ours.logits(unit(items)).softmax(-1), theirs, atol=1e-3, rtol=1e-2)


def test_negative_features_keep_their_sign() -> None:
    """easyfsl's transform begins with a relu, which throws the negative half of CLIP's features away."""
    x = torch.tensor([[0.36, -0.64, 0.0]])
    torch.testing.assert_close(power_transform(x, 0.5), torch.tensor([[0.6, -0.8, 0.0]]))


def test_items_that_no_class_divides() -> None:
    """easyfsl gives each class U // C items: 0 when there are less items than classes, a lost remainder otherwise."""
    task = toy_task(INPUTS, noise=1.0)
    for count in (3, 22):
        few = make_task(task.support, task.labels, unlabeled=task.unlabeled[:count])
        probability = fit(PtMap(guard=False), few).logits(few.unlabeled).softmax(-1)
        torch.testing.assert_close(probability.sum(0), torch.full((4,), count / 4).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_newton_finds_what_sinkhorn_finds(scale: float) -> None:
    """Scores as spread as 30 leave plain Sinkhorn far from its fixed point, so there only the sums are compared."""
    rng = torch.Generator().manual_seed(0)
    cost = scale * torch.rand(3, 40, 6, generator=rng, dtype=torch.float64)
    plan, v = balance(-cost.mT, torch.zeros(3, 6, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(-1), torch.full((3, 6), 40 / 6).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(plan, (-cost.mT + v.unsqueeze(-1)).softmax(-2))
    if scale == 1:
        for one, c in zip(plan, cost, strict=True):
            torch.testing.assert_close(one.mT, sinkhorn(c, 1.0), atol=1e-5, rtol=1e-4)
