"""`bd_cspn` against the paper's formula item by item, and easyfsl where easyfsl follows it."""

import pytest
import torch

from easyfsl_peer import easyfsl_scores
from fewshot import fit
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins.bd_cspn import SHARPNESS, BdCspn
from rectified import cosine, rectified

INPUTS = ("support", "unlabeled")


@pytest.mark.parametrize("shifted", [True, False])
def test_logits_are_cosines_to_the_rectified_prototypes(shifted: bool) -> None:
    task = toy_task(INPUTS, shots=3, ragged=True, noise=1.0)
    query, _ = toy_queries(task)
    prototypes, xi = rectified(task, SHARPNESS, shifted)
    wanted = torch.tensor([[20 * cosine(z + xi, p) * float((z + xi).norm()) for p in prototypes] for z in query])
    logits = fit(BdCspn(shifted=shifted), task).logits(query)
    torch.testing.assert_close(logits, wanted.double())


def test_predictions_equal_easyfsl_without_the_factor_it_lacks() -> None:
    """easyfsl weighs by exp(cos), without the paper's factor of 10, and leaves the queries themselves unshifted."""
    task = toy_task(INPUTS, shots=3, noise=1.0)
    theirs = easyfsl_scores("BDCSPN", task, task.unlabeled)
    prototypes, _ = rectified(task, 1.0)
    wanted = torch.tensor([[cosine(z, p) for p in prototypes] for z in task.unlabeled]).double()
    torch.testing.assert_close(theirs, wanted)
    head = fit(BdCspn(sharpness=1.0, scale=1.0), task)
    torch.testing.assert_close(task.unlabeled @ head.weight.mT, theirs)
    assert not torch.allclose(task.unlabeled @ fit(BdCspn(scale=1.0), task).weight.mT, theirs, atol=1e-3)


def test_a_second_fit_starts_from_the_support_again() -> None:
    """easyfsl keeps its moved prototypes, so that a second batch of queries starts from the first one's."""
    task, other = toy_task(INPUTS, noise=1.0), toy_task(INPUTS, noise=1.0, seed=1)
    strategy = BdCspn()
    before = fit(strategy, task).weight
    fit(strategy, other)
    assert torch.equal(fit(strategy, task).weight, before)
