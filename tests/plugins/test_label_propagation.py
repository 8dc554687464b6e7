"""`label_propagation` against scikit-learn's LabelSpreading."""

import pytest
import torch
from sklearn.semi_supervised import LabelSpreading
from torch import Tensor

from fewshot import Task, fit, make_task
from fewshot.testing import toy_task
from fewshot_plugins.label_propagation import LabelPropagation

INPUTS = ("support", "unlabeled")


def spread(task: Task, alpha: float, gamma: float) -> Tensor:
    """Label distributions of the unlabelled items.  -> [U, C]"""
    keep = task.labels >= 0
    rows = torch.cat([task.support[keep], task.unlabeled]).numpy()
    labels = torch.cat([task.labels[keep], torch.full((len(task.unlabeled),), -1)]).numpy()
    peer = LabelSpreading(kernel="rbf", gamma=gamma, alpha=alpha, max_iter=10_000, tol=1e-14).fit(rows, labels)
    return torch.from_numpy(peer.label_distributions_[int(keep.sum()) :])


@pytest.mark.parametrize(("alpha", "gamma"), [(0.5, 10.0), (0.2, 2.0), (0.95, 5.0)])
def test_unlabelled_items_get_their_distribution_in_scikit_learn(alpha: float, gamma: float) -> None:
    task = toy_task(INPUTS, shots=3, ragged=True, noise=1.0)
    logits = fit(LabelPropagation(alpha=alpha, gamma=gamma), task).logits(task.unlabeled)
    torch.testing.assert_close(logits.softmax(-1), spread(task, alpha, gamma))


def test_a_query_outside_the_graph_is_tied_to_all_of_it() -> None:
    """In the limit of many neighbours a query gets what it would get as one more item; here 24 of them, nearly."""
    task = toy_task(INPUTS, noise=0.6)
    query = task.unlabeled[::6]
    rest = make_task(task.support, task.labels, unlabeled=task.unlabeled[torch.arange(24) % 6 != 0])
    out = fit(LabelPropagation(alpha=0.2), rest).logits(query).softmax(-1)
    torch.testing.assert_close(out, spread(task, 0.2, 10.0)[::6], atol=0.01, rtol=0)


def test_distant_queries_have_finite_logits() -> None:
    task = toy_task(INPUTS).to(torch.float32)
    logits = fit(LabelPropagation(gamma=500.0), task).logits(-task.unlabeled)
    assert bool(torch.isfinite(logits).all())
