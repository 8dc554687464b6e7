"""tip_adapter and ape against their formulas written as loops, and their constants against an exhaustive search."""

import math

import pytest
import torch

from fewshot.arrays import unit
from fewshot.strategy import fit
from fewshot.testing import STRATEGY_CHECKS, toy_queries, toy_task
from fewshot_plugins._cache import ALPHAS, BETAS, FACTORS
from fewshot_plugins.ape import Ape, channel_cost, keep_lowest
from fewshot_plugins.tip_adapter import TipAdapter

BOTH = ("support", "text")


def dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


def length_one(v):
    norm = math.sqrt(dot(v, v))
    return [p / norm for p in v]


def plain(task):
    text = unit(unit(task.text).mean(-2)).tolist()
    return text, task.support.tolist(), task.labels.tolist()


@pytest.mark.parametrize("check", STRATEGY_CHECKS.values(), ids=STRATEGY_CHECKS.keys())
def test_the_kit_with_the_papers_options(check):
    check(Ape(gamma=0.1, keep=0.5, similarity=0.7))


def test_tip_adapter_is_equation_6():
    task = toy_task(BOTH, shots=3, classes=4, dim=6)
    query, _ = toy_queries(task)
    text, keys, labels = plain(task)
    got = fit(TipAdapter(alpha=1.17, beta=5.5, scale=100.0, calibrate=False), task).logits(query)
    for q, z in enumerate(query.tolist()):
        for k in range(4):
            cache = sum(math.exp(-5.5 * (1 - dot(z, key))) for key, y in zip(keys, labels, strict=True) if y == k)
            assert got[q, k].item() == pytest.approx(100 * dot(z, text[k]) + 1.17 * cache)


def left_out_logits(task, alpha, beta, scale):
    """Each example looked up among the others, its class scaled up for the one that it lacks."""
    text, keys, labels = plain(task)
    rows = []
    for i, (z, label) in enumerate(zip(keys, labels, strict=True)):
        if labels.count(label) < 2 or label < 0:
            continue
        row = []
        for k in range(len(text)):
            others = [j for j, y in enumerate(labels) if y == k and j != i]
            cache = sum(math.exp(-beta * (1 - dot(z, keys[j]))) for j in others)
            boost = labels.count(k) / len(others) if others else 0.0
            row.append(scale * dot(z, text[k]) + alpha * cache * boost)
        rows.append((row, label))
    return rows


def surprise(rows, factor=1.0):
    total = 0.0
    for row, y in rows:
        top = max(row)
        total += math.log(sum(math.exp(factor * (s - top)) for s in row)) + factor * (top - row[y])
    return total


def test_constants_have_the_fewest_leave_one_out_errors():
    for seed in range(3):
        task = toy_task(BOTH, shots=3, classes=4, dim=6, noise=2.5, seed=seed, ragged=True)
        head = fit(TipAdapter(scale=20.0, calibrate=False), task)
        alpha, beta = head.alpha.item(), head.beta.item()
        tried = {}
        for a in ALPHAS:
            for b in BETAS:
                rows = left_out_logits(task, a, b, 20.0)
                wrong = sum(max(range(4), key=row.__getitem__) != y for row, y in rows)
                loss = surprise(rows) / len(rows)
                tried[a, b] = wrong + loss / (1 + loss)
        assert tried[alpha, beta] == pytest.approx(min(tried.values()))
        calibrated = fit(TipAdapter(scale=20.0), task)
        factor = (calibrated.weight.norm() / head.weight.norm()).item()
        costs = {f: surprise(left_out_logits(task, alpha, beta, 20.0), f) for f in FACTORS}
        assert costs[min(FACTORS, key=lambda f: abs(f - factor))] == pytest.approx(min(costs.values()))


def test_one_shot_uses_the_papers_constants():
    head = fit(TipAdapter(), toy_task(BOTH, shots=1))
    assert (head.alpha.item(), head.beta.item()) == (1.0, 5.5)
    assert head.weight[0].norm().item() == pytest.approx(100.0)


def test_choosing_masks_the_self_match():
    # far apart examples: each finds only itself when it is not masked, and the cache would look perfect at any beta
    task = toy_task(BOTH, shots=2, classes=4, dim=64, noise=30.0)
    rows = left_out_logits(task, 1.0, 50.0, 0.0)
    assert sum(max(range(4), key=row.__getitem__) == y for row, y in rows) < len(rows)


def test_channel_cost_is_similarity_less_variance():
    vectors = unit(torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    got, v = channel_cost(vectors, 0.7), vectors.tolist()
    variances = [sum((row[d] - sum(r[d] for r in v) / 5) ** 2 for row in v) / 5 for d in range(7)]
    for d in range(7):
        pairs = [v[k][d] * v[j][d] for k in range(5) for j in range(5) if j != k]
        wanted = 0.7 * sum(pairs) / len(pairs) - 0.3 * variances[d]
        assert got[d].item() == pytest.approx(wanted / sum(variances))


def test_equal_channels_are_kept_together():
    assert keep_lowest(torch.tensor([3.0, 0.0, 0.0, -1.0]), 0.5).tolist() == [0, 1, 1, 1]


def test_ape_is_equation_13():
    task = toy_task(BOTH, shots=2, classes=3, dim=8)
    query, _ = toy_queries(task)
    text, examples, labels = plain(task)
    strategy = Ape(keep=0.5, similarity=0.7, gamma=0.2, alpha=2.0, beta=3.0, scale=10.0)
    head = fit(strategy, task)
    own = [[x for x, y in zip(examples, labels, strict=True) if y == k] for k in range(3)]
    means = [[(a + b) / 2 for a, b in zip(*pair, strict=True)] for pair in own]
    cost = [
        sum(float(channel_cost(unit(torch.tensor(v, dtype=torch.float64)), 0.7)[d]) for v in (text, means))
        for d in range(8)
    ]
    kept = sorted(range(8), key=cost.__getitem__)[:4]

    def cut(v):
        return length_one([v[d] for d in kept])

    def score(z, k):
        total = 0.0
        for x, y in zip(examples, labels, strict=True):
            says = [math.exp(10 * dot(cut(x), cut(t))) for t in text]
            bits = math.log2((1 + 1e-6) / (says[y] / sum(says) + 1e-6))
            total += (y == k) * math.exp(0.2 * bits) * math.exp(-3 * (1 - dot(cut(z), cut(x))))
        return 10 * dot(z, text[k]) + 2 * total

    got = head.logits(query)
    factor = head.alpha.item() / 2
    for q, z in enumerate(query.tolist()):
        for k in range(3):
            assert got[q, k].item() == pytest.approx(factor * score(z, k))
