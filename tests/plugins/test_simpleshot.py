"""`simpleshot` against the formula item by item, and easyfsl."""

import pytest
import torch

from easyfsl_peer import easyfsl_scores
from fewshot import Task, fit
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins.simpleshot import SimpleShot


def literal(task: Task, query: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """-|u(z) - c_k|^2 with c_k the mean of u over the examples of class k."""
    rows = torch.empty(len(query), task.classes, dtype=query.dtype)
    for k in range(task.classes):
        own = [
            (x - centre) / (x - centre).norm() for x, label in zip(task.support, task.labels, strict=True) if label == k
        ]
        mean = sum(own) / len(own)
        for i, z in enumerate(query):
            rows[i, k] = -((z - centre) / (z - centre).norm() - mean).square().sum()
    return rows


@pytest.mark.parametrize("inputs", [("support",), ("support", "source")])
def test_logits_are_distances_after_centring_and_normalising(inputs: tuple[str, ...]) -> None:
    task = toy_task(inputs, shots=4, ragged=True)
    query, _ = toy_queries(task)
    if "source" in inputs:
        centre = task.source.mean(0)
    else:
        centre = torch.stack([task.support[task.labels == k].mean(0) for k in range(task.classes)]).mean(0)
    wanted = 2.0 * literal(task, query, centre)
    logits = fit(SimpleShot(temperature=2.0), task).logits(query)
    torch.testing.assert_close(logits.log_softmax(-1), wanted.log_softmax(-1))


def test_predictions_equal_easyfsl_at_one_shot() -> None:
    """With one example a class the mean of u has length 1, so easyfsl's cosine and the paper's distance agree."""
    task = toy_task(("support", "source"), classes=6, shots=1, noise=1.2)
    query, truth = toy_queries(task, per_class=20, noise=1.2)
    ours = fit(SimpleShot(), task).logits(query).argmax(-1)
    centred = {"feature_centering": task.source.mean(0), "feature_normalization": 2.0}
    assert torch.equal(ours, easyfsl_scores("SimpleShot", task, query, **centred).argmax(-1))
    assert (ours != truth).any()


def test_a_query_at_the_centre_is_finite() -> None:
    head = fit(SimpleShot(), toy_task())
    assert torch.isfinite(head.logits(head.centre.unsqueeze(0))).all()
