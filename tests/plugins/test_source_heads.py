"""`biased_ridge` and `multi_task` against their problems by brute force; `dann` against what its gradients mean."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import Ridge as SklearnRidge

from fewshot import fit, make_task
from fewshot.arrays import unit
from fewshot.errors import MissingInput
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins._domains import domains
from fewshot_plugins._weighted import weighted_ridge
from fewshot_plugins.biased_ridge import TRUSTS, BiasedRidge, source_classifier
from fewshot_plugins.dann import Dann, adapt, discriminator_loss, examples, losses, start
from fewshot_plugins.multi_task import MultiTask, condensed, learn_metric
from fewshot_plugins.ridge import PENALTIES, Ridge


@pytest.mark.parametrize("dim", [6, 40])
def test_biased_ridge_is_least_squares_drawn_to_the_source(dim: int) -> None:
    task = toy_task(("support", "source"), dim=dim, shots=4, classes=3)
    both = domains(task, "biased_ridge")
    weight, bias = source_classifier(make_task(both.support, both.labels, source=both.source,
                                               source_labels=both.source_labels))  # fmt: skip
    trust, lam = 0.6, 0.5
    x, y = task.support.numpy(), np.eye(3)[task.labels.numpy()]
    prior = trust * (x @ weight.numpy().T + bias.numpy())
    rest = SklearnRidge(alpha=lam).fit(x, y - prior)
    query, _ = toy_queries(task)
    wanted = rest.predict(query.numpy()) + trust * (query.numpy() @ weight.numpy().T + bias.numpy())
    got = fit(BiasedRidge(lam=lam, trust=trust, scale=1.0), task).logits(query).numpy()
    np.testing.assert_allclose(got - got.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True), atol=1e-7)


def test_biased_ridge_chooses_by_leaving_examples_out() -> None:
    task = toy_task(("support", "source"), dim=10, shots=3, classes=3, noise=1.2)
    both = domains(task, "biased_ridge")
    weight, bias = source_classifier(make_task(both.support, both.labels, source=both.source,
                                               source_labels=both.source_labels))  # fmt: skip
    x, y = task.support.numpy(), np.eye(3)[task.labels.numpy()]
    prior = x @ weight.numpy().T + bias.numpy()
    errors = {}
    for trust in TRUSTS:
        for lam in PENALTIES:
            wrong = 0.0
            for i in range(len(x)):
                keep = np.arange(len(x)) != i
                rest = SklearnRidge(alpha=lam).fit(x[keep], (y - trust * prior)[keep])
                wrong += ((rest.predict(x[i : i + 1])[0] + trust * prior[i] - y[i]) ** 2).sum()
            errors[trust, lam] = wrong
    trust, lam = min(errors, key=errors.__getitem__)
    query, _ = toy_queries(task)
    chosen, fixed = (fit(s, task).logits(query) for s in (BiasedRidge(scale=1.0), BiasedRidge(lam, trust, 1.0)))
    torch.testing.assert_close(chosen, fixed)


def test_biased_ridge_without_trust_is_ridge() -> None:
    task = toy_task(("support", "source"), shots=4)
    query, _ = toy_queries(task)
    got, wanted = fit(BiasedRidge(trust=0.0), task).logits(query), fit(Ridge(), task).logits(query)
    torch.testing.assert_close(got, wanted)


def structured(seed: int) -> tuple:
    """Two label sets whose classes differ in the first 4 of 30 dims."""
    rng = torch.Generator().manual_seed(seed)

    def items(classes: int, each: int) -> tuple[torch.Tensor, torch.Tensor]:
        centres = torch.cat([torch.randn(classes, 4, generator=rng), torch.zeros(classes, 26)], -1)
        labels = torch.arange(classes).repeat_interleave(each)
        return unit(centres[labels] + 0.6 * torch.randn(len(labels), 30, generator=rng)).double(), labels

    return items(12, 15), items(4, 42)


def test_the_metric_minimises_the_trace_norm_problem() -> None:
    """min sum |Y - X W'|^2 + lam |W|_tr^2 / D: what is left once the best metric of trace D is put in."""
    rng = np.random.default_rng(0)
    problems = [
        (rng.normal(size=(12, 4)), rng.normal(size=(12, 2))),
        (rng.normal(size=(9, 4)), rng.normal(size=(9, 3))),
    ]
    torch_problems = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in problems]
    metric = learn_metric(torch_problems, 2.0, 1e-9, 400)
    root = metric.times(torch.eye(4, dtype=torch.float64)).numpy()
    assert np.trace(root @ root) == pytest.approx(4)
    w = np.concatenate([SklearnRidge(alpha=2.0).fit(x @ root, y).coef_ @ root for x, y in problems])

    def value(flat: np.ndarray) -> float:
        whole, total, row = flat.reshape(5, 4), 0.0, 0
        for x, y in problems:
            left = (y - y.mean(0)) - (x - x.mean(0)) @ whole[row : row + y.shape[1]].T
            total, row = total + (left**2).sum(), row + y.shape[1]
        return total + 2.0 * np.linalg.svd(whole, compute_uv=False).sum() ** 2 / 4

    found = min(minimize(value, w.ravel() + noise, method="BFGS").fun for noise in rng.normal(size=(5, 20)) * 0.1)
    assert value(w.ravel()) == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("rank", [3, 5])
def test_few_rows_stand_for_many_in_a_regression_under_any_metric(rank: int) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(40, rank, generator=rng, dtype=torch.float64) @ torch.randn(rank, 5, generator=rng).double() + 2
    y, metric = torch.rand(40, 3, generator=rng, dtype=torch.float64), torch.rand(5, 5, generator=rng).double()
    fewer = condensed(x, y)
    assert fewer[0].shape == (2 * rank, 5)
    found, wanted = (weighted_ridge(a @ metric, b, torch.ones(len(a)).double(), 0.3)[0] for a, b in (fewer, (x, y)))
    torch.testing.assert_close(found, wanted)
    assert len(condensed(x[:9], y[:9])[0]) == 9


def test_a_shared_structure_helps_and_classes_need_not_be_shared() -> None:
    gains = []
    for seed in range(5):
        (source, own), (x, labels) = structured(seed)
        few = (torch.arange(len(x)) % 42) < 2
        task = make_task(x[few], labels[few], source=source, source_labels=own + 4)
        alone, together = (
            float((fit(s, task).logits(x[~few]).argmax(-1) == labels[~few]).double().mean())
            for s in (Ridge(), MultiTask())
        )
        gains.append(together - alone)
    assert np.mean(gains) > 0.08


def test_dann_reverses_the_gradient_of_the_discriminator_for_the_adapter_only() -> None:
    task = toy_task(("support", "source", "unlabeled"), dim=8)
    data = examples(task)
    weights = start(8, 10, 3, data.x)
    with torch.no_grad():
        for w in weights:
            w += 0.1 * torch.randn(w.shape, generator=torch.Generator().manual_seed(1), dtype=w.dtype)

    def slopes(strength: float) -> list[torch.Tensor]:
        return list(torch.autograd.grad(losses(weights, data, strength), weights))

    none, plain, double = slopes(0.0), slopes(1.0), slopes(2.0)
    for place in (0, 1):  # the adapter: linear in the strength, and against the discriminator's own descent
        torch.testing.assert_close(double[place] - none[place], 2 * (plain[place] - none[place]))
        along = [w.detach().clone().requires_grad_() for w in weights]
        told = losses(along, data, -1.0)  # strength -1: the usual gradient of both losses
        usual = torch.autograd.grad(told, along[place])[0]
        torch.testing.assert_close(plain[place] - none[place], -(usual - none[place]))
    for place in range(2, 8):
        torch.testing.assert_close(plain[place], none[place])


def test_dann_fools_its_discriminator_and_takes_foreign_classes() -> None:
    task = toy_task(("support", "source", "unlabeled"), dim=24)
    told = []
    for strength in (0.0, 1.0):
        data = examples(task)
        weights = start(24, 10, 32, data.x)
        Dann(strength=strength).train(weights, data)
        told.append(float(discriminator_loss(adapt(data.x, *weights[:2]), data, weights).detach()))
    assert told[1] > told[0] + 0.2
    foreign = make_task(task.support, task.labels, source=task.source, source_labels=task.source_labels + 4)
    query, truth = toy_queries(task, 10)
    assert float((fit(Dann(), foreign).logits(query).argmax(-1) == truth).double().mean()) > 0.7


@pytest.mark.parametrize("strategy", [Dann(), MultiTask()])
def test_a_source_of_one_class_is_refused(strategy) -> None:
    task = toy_task(("support", "source"))
    one = make_task(task.support, task.labels, source=task.source, source_labels=task.source_labels * 0 + 4)
    with pytest.raises(MissingInput, match="at least 2 classes in the source, got 1"):
        fit(strategy, one)
