"""`coral` and `subspace` against skada and their closed forms; `then` composes them with any strategy."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from fewshot import Task, fit, make_task
from fewshot.arrays import unit
from fewshot.errors import FewshotError, InvalidOption, MissingInput
from fewshot.headfile import head_from_tensors, head_to_tensors
from fewshot.registry import registry
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins._alignment import EveryHead
from fewshot_plugins.coral import Coral, recolour, times_power
from fewshot_plugins.label_propagation import LabelPropagation
from fewshot_plugins.pooled import Pooled
from fewshot_plugins.prototypical import Prototypical
from fewshot_plugins.ridge import Ridge
from fewshot_plugins.subspace import Subspace
from fewshot_plugins.tca import Tca, components

INPUTS = ("support", "source", "unlabeled")


def two_domains(n: int, m: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(dim)
    mix = rng.normal(size=(dim, dim))
    return rng.normal(size=(n, dim)) + 1, rng.normal(size=(m, dim)) @ mix * 0.5


@pytest.mark.parametrize(("n", "m", "dim"), [(50, 40, 6), (9, 7, 20)])  # more items than dims, and fewer
def test_recoloured_source_is_skada_s(n: int, m: int, dim: int) -> None:
    """skada mixes C with its sphere, (1 - r) C + r tr(C) / D I, of divisor n: a factor that cancels or scales."""
    from skada import CORALAdapter

    x, z = two_domains(n, m, dim)
    both, domain = np.concatenate([x, z]), np.r_[np.ones(n), -2 * np.ones(m)]
    share = 1 / 3  # shrink = r / (1 - r)
    peer = CORALAdapter(reg=share).fit_transform(both, None, sample_domain=domain)[:n]
    got = recolour(torch.from_numpy(x), torch.from_numpy(z), share / (1 - share)).numpy() - z.mean(0)
    factor = np.sqrt(m / (m - 1) * (n - 1) / n)  # numpy's covariance there has divisor n
    np.testing.assert_allclose(got / factor, peer, atol=1e-8)


def test_recoloured_source_has_the_targets_covariance_and_whitening_makes_a_sphere() -> None:
    x, z = map(torch.from_numpy, two_domains(400, 300, 5))
    np.testing.assert_allclose(np.cov(recolour(x, z, 1e-12).numpy().T), np.cov(z.numpy().T), rtol=1e-6, atol=1e-9)
    centred = x - x.mean(0)
    np.testing.assert_allclose(np.cov(times_power(centred, centred, -0.5, 1e-12).numpy().T), np.eye(5), atol=1e-6)


def test_subspace_is_skada_s() -> None:
    from skada import SubspaceAlignmentAdapter

    x, z = two_domains(30, 40, 8)
    both, domain = np.concatenate([x, z]), np.r_[np.ones(30), -2 * np.ones(40)]
    peer = SubspaceAlignmentAdapter(n_components=3).fit_transform(both, None, sample_domain=domain)
    labels = torch.arange(30) % 3
    task = make_task(torch.from_numpy(z[:3]), torch.arange(3), source=torch.from_numpy(x), source_labels=labels,
                     unlabeled=torch.from_numpy(z[3:]))  # fmt: skip
    from fewshot_plugins._domains import domains

    source, space = Subspace(dims=3).align(domains(task, "subspace"), task)
    target = space.place(torch.from_numpy(z))
    ours = torch.cat([source, target]).numpy()
    theirs = unit(torch.from_numpy(peer)).numpy()
    np.testing.assert_allclose(np.abs(ours @ ours.T), np.abs(theirs @ theirs.T), atol=1e-8)  # up to signs of the axes


def test_a_source_under_another_covariance_is_of_more_use_aligned() -> None:
    rng = torch.Generator().manual_seed(0)
    centres, scale = torch.randn(4, 10, generator=rng), torch.linspace(0.05, 3, 10)

    def items(each: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(4).repeat_interleave(each)
        return unit(centres[labels] + 0.7 * torch.randn(len(labels), 10, generator=rng)), labels

    (x, y), (z, _), (query, truth) = items(100), items(100), items(50)
    source = unit(x * scale + 0.5)
    plain = fit(Ridge(), make_task(source, y)).logits(query)
    aligned = fit(Coral(shrink=0.01), make_task(unlabeled=z, source=source, source_labels=y, classes=4)).logits(query)
    right = [float((logits.argmax(-1) == truth).double().mean()) for logits in (plain, aligned)]
    assert right[1] > right[0] + 0.05


@pytest.mark.parametrize("name", ["coral", "subspace", "tca", "jda"])
@pytest.mark.parametrize("then", ["prototypical", "linear_probe", "gda", "knn", "label_propagation", "simpleshot"])
def test_any_strategy_may_follow_and_be_saved(name: str, then: str) -> None:
    task = toy_task(INPUTS)
    query, truth = toy_queries(task, 10)
    cls = registry().strategy(name)
    head = fit(cls(then=then), task)
    logits = head.logits(query)
    assert float((logits.argmax(-1) == truth).double().mean()) > 0.5
    tensors, meta = head_to_tensors(head)
    again = head_from_tensors(cls, tensors, json.loads(json.dumps(meta)))
    torch.testing.assert_close(again.logits(query), logits)


def test_coral_then_prototypical_is_the_mean_of_the_recoloured_source_and_the_support() -> None:
    task = toy_task(INPUTS)
    query, _ = toy_queries(task)
    own = task.source_labels < task.classes
    target = torch.cat([task.support, task.unlabeled])
    moved = unit(recolour(task.source[own], target, 1.0))
    means = torch.stack([
        torch.cat([moved[task.source_labels[own] == c], task.support[task.labels == c]]).mean(0) for c in range(4)
    ])  # fmt: skip
    wanted = -Prototypical().temperature * torch.cdist(query, means).square()
    got = fit(Coral(then="prototypical"), task).logits(query)
    torch.testing.assert_close(got - got[:, :1], wanted - wanted[:, :1])


@pytest.mark.parametrize("name", ["coral", "subspace", "tca", "jda"])
@pytest.mark.parametrize("then", ["auto", "tip_adapter", "clap", "em_dirichlet", "eszsl"])
def test_phrases_and_attributes_go_along(name: str, then: str) -> None:
    task = toy_task((*INPUTS, "text", "attributes"))
    query, truth = toy_queries(task, 10)
    head = fit(registry().strategy(name)(then=then), task)
    assert float((head.logits(query).argmax(-1) == truth).double().mean()) > 0.5


def test_coral_then_tip_adapter_sees_the_phrases_as_they_are_and_tca_moves_them() -> None:
    task = toy_task((*INPUTS, "text"))
    query, _ = toy_queries(task)
    own, items = task.source_labels < task.classes, torch.cat([task.support, task.unlabeled])
    tip = registry().strategy("tip_adapter")()
    support = torch.cat([unit(recolour(task.source[own], items, 1.0)), task.support])
    joint = make_task(support, torch.cat([task.source_labels[own], task.labels]), text=task.text)
    torch.testing.assert_close(fit(Coral(then="tip_adapter"), task).logits(query), fit(tip, joint).logits(query))
    space = components(task.source[own].double(), items.double(), mu=1.0, dims=50)
    support = torch.cat([space.place(task.source[own]), space.place(task.support)])
    joint = make_task(support, joint.labels, text=space.place(task.text.double()))
    wanted = fit(tip, joint).logits(space.place(query))
    torch.testing.assert_close(fit(Tca(then="tip_adapter"), task).logits(query), wanted)


def test_classes_known_by_attributes_alone_may_follow_an_alignment() -> None:
    task = toy_task((*INPUTS, "attributes"))
    kept, own = task.labels != 3, (task.source_labels < 3)
    fewer = make_task(task.support[kept], task.labels[kept], attributes=task.attributes, unlabeled=task.unlabeled,
                      source=task.source[own], source_labels=task.source_labels[own])  # fmt: skip
    assert fit(Coral(then="eszsl"), fewer).logits(toy_queries(task)[0]).shape[-1] == 4
    with pytest.raises(MissingInput, match="an example of class number 3"):
        fit(Coral(), fewer)


def test_pooled_is_the_strategy_on_source_and_support_as_one() -> None:
    task = toy_task(INPUTS, noise=1.5)
    query, _ = toy_queries(task, noise=1.5)
    own = task.source_labels < task.classes
    x, y = torch.cat([task.source[own], task.support]), torch.cat([task.source_labels[own], task.labels])
    peer = LogisticRegression(C=30, tol=1e-8, max_iter=5000).fit(x.numpy(), y.numpy())
    got = fit(Pooled(then="linear_probe"), task).logits(query).softmax(-1)
    np.testing.assert_allclose(got.numpy(), peer.predict_proba(query.numpy()), atol=5e-3)


def test_head_names_are_distinct_so_that_saved_heads_find_their_type() -> None:
    types = EveryHead().__get__(None, object)
    assert len({cls.__name__ for cls in types}) == len(types)


def test_wrong_inputs_are_said_in_one_line() -> None:
    task = toy_task(INPUTS)
    with pytest.raises(InvalidOption, match="learns from examples, got 'coral'"):
        fit(Coral(then="coral"), task)
    with pytest.raises(InvalidOption, match="learns from examples, got 'zero_shot'"):
        fit(Coral(then="zero_shot"), task)
    with pytest.raises(FewshotError, match="Did you mean 'ridge'"):
        fit(Coral(then="rigde"), task)
    foreign = Task(**{n: getattr(task, n) for n in Task.__slots__} | {"source_labels": task.source_labels + 4})
    with pytest.raises(MissingInput, match="which has 10 classes, 0 of them the task's"):
        fit(Coral(), foreign)
    one = Task(**{n: getattr(task, n) for n in Task.__slots__} | {"source_labels": task.source_labels * 0})
    with pytest.raises(MissingInput, match="which has 1 classes, 1 of them the task's"):
        fit(Coral(), one)
    alone = make_task(task.support[:1], task.labels[:1], source=task.source[:15], source_labels=task.source_labels[:15],
                      classes=4)  # fmt: skip
    with pytest.raises(MissingInput, match="an example of class number 3"):
        fit(Coral(), alone)


def test_label_propagation_joins_the_source_to_the_graph() -> None:
    task = toy_task(INPUTS, shots=1)
    own = task.source_labels < task.classes
    merged = make_task(torch.cat([task.support, task.source[own]]), torch.cat([task.labels, task.source_labels[own]]),
                       unlabeled=task.unlabeled)  # fmt: skip
    query, _ = toy_queries(task)
    torch.testing.assert_close(
        fit(LabelPropagation(), task).logits(query), fit(LabelPropagation(), merged).logits(query)
    )
