"""`laplacian_shot` against the paper's bound updates item by item, and easyfsl where easyfsl follows them."""

import pytest
import torch
from torch import Tensor

from easyfsl_peer import easyfsl_scores
from fewshot import Task, fit
from fewshot.testing import toy_task
from fewshot_plugins.bd_cspn import SHARPNESS
from fewshot_plugins.laplacian_shot import LaplacianShot
from rectified import rectified

INPUTS = ("support", "unlabeled")


def literal(task: Task, prototypes: Tensor, count: int, pairwise: float, steps: int) -> Tensor:
    """Equation 12 one item after the other, with a = squared distance.  -> assignments [U, C]"""
    items = task.unlabeled
    unary = torch.tensor([[float((z - p).square().sum()) for p in prototypes] for z in items]).double()
    neighbours = []
    for i, z in enumerate(items):
        order = sorted((float((z - other).norm()), j) for j, other in enumerate(items) if j != i)
        neighbours.append([j for _, j in order[:count]])
    y = (-unary).softmax(-1)
    for _ in range(steps):
        y = torch.stack([(-unary[i] + pairwise * sum(y[j] for j in neighbours[i])).softmax(-1) for i in range(len(y))])
    return y


@pytest.mark.parametrize("count", [1, 3])
def test_assignments_follow_the_bound_updates(count: int) -> None:
    task = toy_task(INPUTS, noise=1.2, shots=2)
    head = fit(LaplacianShot(neighbours=count, steps=20), task)
    wanted = literal(task, rectified(task, SHARPNESS)[0], count, 0.7, 20)
    torch.testing.assert_close(head.assigned.mT / 0.7, wanted)


def test_unlabelled_items_get_their_own_assignment_from_the_head() -> None:
    """An item that is asked about again is no neighbour of its own, so the head repeats its last bound update."""
    task = toy_task(INPUTS, noise=1.2, shots=2)
    strategy = LaplacianShot(steps=300)
    wanted = literal(task, rectified(task, SHARPNESS)[0], 3, 0.7, 300)
    torch.testing.assert_close(fit(strategy, task).logits(task.unlabeled).softmax(-1), wanted, atol=1e-6, rtol=1e-5)


def test_the_same_when_asked_one_by_one() -> None:
    """Asked about all items at once the head reuses their neighbours; asked about one it searches for them."""
    task = toy_task(INPUTS, noise=1.2, shots=2)
    head = fit(LaplacianShot(steps=300), task)
    alone = torch.cat([head.logits(z.unsqueeze(0)) for z in task.unlabeled]).softmax(-1)
    wanted = literal(task, rectified(task, SHARPNESS)[0], 3, 0.7, 300)
    torch.testing.assert_close(alone, wanted, atol=1e-6, rtol=1e-5)


def test_k_neighbours_are_k() -> None:
    """easyfsl takes the k nearest and drops the first, the item itself: its k = 4 is the paper's k = 3."""
    task = toy_task(INPUTS, noise=1.2, shots=2)
    prototypes = rectified(task, 1.0)[0]  # easyfsl's lack the factor of 10
    theirs = easyfsl_scores("LaplacianShot", task.to(torch.float32), task.unlabeled.float(), knn=4, inference_steps=50)
    ours = literal(task, prototypes, 3, 0.7, 50)
    torch.testing.assert_close(theirs.double(), ours, atol=2e-5, rtol=1e-4)
    other = easyfsl_scores("LaplacianShot", task.to(torch.float32), task.unlabeled.float(), knn=3, inference_steps=50)
    assert not torch.allclose(other.double(), ours, atol=1e-3)


def test_head_gives_logits_not_probabilities() -> None:
    """easyfsl returns probabilities here and logits elsewhere."""
    task = toy_task(INPUTS)
    sums = fit(LaplacianShot(), task).logits(task.unlabeled).sum(-1)
    assert not torch.allclose(sums, torch.ones_like(sums))


def test_without_neighbours_it_is_the_distance_to_rectified_prototypes() -> None:
    task = toy_task(INPUTS, noise=1.2)
    plain = fit(LaplacianShot(pairwise=0.0), task).logits(task.unlabeled).softmax(-1)
    distances = torch.cdist(task.unlabeled, rectified(task, SHARPNESS)[0]).square()
    torch.testing.assert_close(plain, (-distances).softmax(-1))
