"""task_res, cross_modal, clap, lp_plus_plus and tip_adapter_f against their papers' losses under torch's autograd."""

import pytest
import torch
import torch.nn.functional as F

from fewshot.strategy import fit
from fewshot.testing import toy_queries, toy_task
from fewshot_plugins.clap import Clap
from fewshot_plugins.cross_modal import CrossModal
from fewshot_plugins.lp_plus_plus import LpPlusPlus
from fewshot_plugins.task_res import TaskRes
from fewshot_plugins.tip_adapter import TipAdapter
from fewshot_plugins.tip_adapter_f import TipAdapterF

BOTH = ("support", "text")


@pytest.fixture
def task():
    return toy_task(BOTH, shots=3, classes=4, dim=10, noise=1.2)


def phrases(task):
    return F.normalize(F.normalize(task.text, dim=-1).mean(-2), dim=-1)


def train(parameter, loss, optimizer, steps, schedule=True):
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if schedule else None
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if fall:
            fall.step()
    return parameter.detach()


def test_task_res_is_the_papers_loss_under_adamw(task):
    text, x, y = phrases(task), task.support, task.labels
    r = torch.zeros_like(text, requires_grad=True)

    def loss():
        return F.cross_entropy(20 * x @ F.normalize(text + 0.5 * r, dim=-1).T, y)

    train(r, loss, torch.optim.AdamW([r], lr=0.01, weight_decay=0), 15)
    query, _ = toy_queries(task)
    wanted = 20 * query @ F.normalize(text + 0.5 * r.detach(), dim=-1).T
    torch.testing.assert_close(fit(TaskRes(scale=20.0, rate=0.01, steps=15), task).logits(query), wanted)


def test_cross_modal_trains_on_phrases_and_examples_alike(task):
    text, x, y = phrases(task), task.support, task.labels
    w = text.clone().requires_grad_()

    def loss():
        return 0.3 * F.cross_entropy(20 * text @ w.T, torch.arange(4)) + 0.7 * F.cross_entropy(20 * x @ w.T, y)

    train(w, loss, torch.optim.AdamW([w], lr=0.01, weight_decay=0.02), 15)
    query, _ = toy_queries(task)
    got = fit(CrossModal(share=0.3, scale=20.0, rate=0.01, decay=0.02, steps=15), task).logits(query)
    torch.testing.assert_close(got, 20 * query @ w.detach().T)


@pytest.mark.parametrize("anchor", [0.0, 1.0])
def test_clap_is_anchored_by_the_zero_shot_probability(task, anchor):
    text, x, y = phrases(task), task.support, task.labels
    trust = []
    for k in range(4):
        own = [float(torch.softmax(10 * text @ row, 0)[k]) for row, label in zip(x, y, strict=True) if label == k]
        trust.append(sum(own) / len(own))
    w = text.clone().requires_grad_()

    def loss():
        pull = sum(trust[k] * (w[k] - text[k]).square().sum() for k in range(4)) / 4
        return F.cross_entropy(10 * x @ F.normalize(w, dim=-1).T, y) + anchor * pull

    steps, optimizer = 12, torch.optim.SGD([w], lr=0.05, momentum=0.9)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        if step == 0:
            optimizer.param_groups[0]["lr"] = 1e-5  # warm-up
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if step == 0:
            optimizer.param_groups[0]["lr"] = 0.05
        fall.step()
    query, _ = toy_queries(task)
    got = fit(Clap(anchor=anchor, scale=10.0, rate=0.05, steps=steps), task).logits(query)
    torch.testing.assert_close(got, 10 * query @ F.normalize(w.detach(), dim=-1).T, rtol=1e-6, atol=1e-6)


def test_lp_plus_plus_moves_both_parts_at_the_papers_rates(task):
    text, x, y = phrases(task), task.support, task.labels
    n = len(y)
    w = torch.stack([x[y == k].mean(0) for k in range(4)]).requires_grad_()
    a = torch.stack([(x[y == k] @ text[k]).mean() * 9 / 3 for k in range(4)]).requires_grad_()
    rate_w = 4 * n / torch.linalg.svdvals(x)[0] ** 2
    rate_a = n / (4 * max(float((x @ t).square().sum()) for t in text))
    vw, va = torch.zeros_like(w), torch.zeros_like(a)
    for step in range(25):
        loss = F.cross_entropy(x @ (w + a[:, None] * text).T, y)
        gw, ga = torch.autograd.grad(loss, (w, a))
        vw = 0.9 * vw + gw
        move = rate_w * vw
        if step % 10 == 0:
            va = 0.9 * va + ga
            a = (a - rate_a * va).detach().requires_grad_()
        w = (w - move).detach().requires_grad_()
    query, _ = toy_queries(task)
    got = fit(LpPlusPlus(boost=9.0, steps=25), task).logits(query)
    torch.testing.assert_close(got, query @ (w + a[:, None] * text).detach().T)


def test_tip_adapter_f_trains_the_keys_alone(task):
    text, x, y = phrases(task), task.support, task.labels
    keys = x.clone().requires_grad_()

    def scores(query):
        return 10 * query @ text.T + 2 * torch.exp(-3 * (1 - query @ keys.T)) @ F.one_hot(y, 4).double()

    optimizer = torch.optim.AdamW([keys], lr=0.01, eps=1e-4, weight_decay=0.01)
    train(keys, lambda: F.cross_entropy(scores(x), y), optimizer, 15)
    query, _ = toy_queries(task)
    head = fit(TipAdapterF(alpha=2.0, beta=3.0, scale=10.0, calibrate=False, rate=0.01, steps=15), task)
    torch.testing.assert_close(head.logits(query), scores(query).detach())


def test_tip_adapter_f_takes_the_last_step_whatever_the_queries(task):
    # the authors' code keeps the epoch that scores best on the test set: here no query exists while training
    still = fit(TipAdapterF(steps=0), task)
    start = fit(TipAdapter(), task)
    assert torch.equal(still.keys, start.keys)
    assert not torch.allclose(fit(TipAdapterF(steps=5), task).keys, start.keys)
    assert torch.equal(fit(TipAdapterF(steps=5), task).values, start.values)
