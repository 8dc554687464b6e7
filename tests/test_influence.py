"""leave_one_out() against refits by hand."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from fewshot.influence import leave_one_out
from fewshot.registry import registry
from fewshot.strategy import LinearHead, Strategy
from fewshot.task import Task, make_task

CLASSES, DIM = 4, 8


@pytest.fixture(scope="module")
def problem() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(CLASSES, DIM, generator=generator)
    labels = torch.arange(CLASSES).repeat_interleave(torch.tensor([6, 5, 7, 3]))
    truth = torch.arange(CLASSES).repeat(9)
    rows = [c[t] + torch.randn(len(t), DIM, generator=generator) for c, t in ((centre, labels), (centre, truth))]
    return *(torch.nn.functional.normalize(r, dim=-1) for r in rows), labels, truth


def test_prototypes_match_numpy(problem):
    support, query, labels, truth = problem
    x, q, y, t = (p.double().numpy() for p in problem)

    def score(keep: np.ndarray) -> tuple[float, int]:
        means = np.stack([x[keep & (y == c)].mean(0) for c in range(CLASSES)])
        logits = -10 * ((q[:, None] - means) ** 2).sum(-1)
        picked = log_softmax(logits, axis=-1)[np.arange(len(q)), t.astype(int)]
        return -picked.mean(), int((logits.argmax(-1) == t).sum())

    harm, gain = leave_one_out(registry().strategy("prototypical")(), make_task(support, labels), query, truth)
    everyone = np.ones(len(x), bool)
    loss, right = score(everyone)
    for i in range(len(x)):
        keep = everyone.copy()
        keep[i] = False
        without, more = score(keep)
        assert harm[i].item() == pytest.approx(loss - without, abs=1e-5)
        assert gain[i].item() == more - right


class Unbatched(Strategy):
    """Nearest neighbour, one task at a time."""

    name = "unbatched"
    batched = False

    def fit(self, task: Task) -> LinearHead:
        assert task.support.ndim == 2
        weight = torch.stack([task.support[task.labels == c][0] for c in range(task.classes)])
        return LinearHead(weight * 5)


@pytest.mark.parametrize("name", ["simpleshot", "knn", "unbatched"])
def test_other_strategies_match_refits(problem, name):
    support, query, labels, truth = problem
    strategy = Unbatched() if name == "unbatched" else registry().strategy(name)()

    def loss(keep: list[int]) -> float:
        logits = strategy.fit(make_task(support[keep], labels[keep], classes=CLASSES)).logits(query)
        return log_loss(truth, logits.double().softmax(-1), labels=range(CLASSES))

    harm, _ = leave_one_out(strategy, make_task(support, labels), query, truth)
    everyone = list(range(len(support)))
    for i in everyone[::3]:
        assert harm[i].item() == pytest.approx(loss(everyone) - loss([j for j in everyone if j != i]), abs=1e-5)


def test_a_classs_last_example_is_left_in(problem):
    support, query, labels, truth = problem
    keep = [0, 1, 6, 11, 18]  # two of the first class, one of each other
    harm, gain = leave_one_out(
        registry().strategy("prototypical")(), make_task(support[keep], labels[keep]), query, truth
    )
    assert harm.isnan().tolist() == gain.isnan().tolist() == [False, False, True, True, True]


def test_examples_that_a_strategy_does_not_use_do_no_harm(problem):
    support, query, labels, truth = problem
    task = make_task(support, labels, text=support[[0, 6, 11, 18]])
    harm, gain = leave_one_out(registry().strategy("zero_shot")(), task, query, truth)
    assert harm.abs().max() < 1e-7
    assert not gain.any()
