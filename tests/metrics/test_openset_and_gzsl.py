"""Oracles: scikit-learn's ROC curve, and brute force over thresholds."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fewshot.metrics import classification, gzsl, openset, retrieval


@pytest.fixture(scope="module", params=["smooth", "ties"])
def scores(request) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    known = torch.randn(3, 40, generator=generator) + 1
    unknown = torch.randn(3, 30, generator=generator)
    if request.param == "ties":
        known, unknown = known.round(), unknown.round()
    return known, unknown, torch.rand(3, 40, generator=generator) < 0.8


def test_auroc_and_fpr95_match_scikit_learn(scores):
    known, unknown, _ = scores
    for e in range(3):
        truth = np.r_[np.ones(40), np.zeros(30)]
        both = torch.cat([known[e], unknown[e]]).numpy()
        assert openset.auroc(known, unknown)[e].item() == pytest.approx(roc_auc_score(truth, both))
        fpr, tpr, _ = roc_curve(truth, both, drop_intermediate=False)
        assert openset.fpr95(known, unknown)[e].item() == pytest.approx(fpr[np.argmax(tpr >= 0.95 - 1e-9)])


def test_oscr_is_the_area_under_its_curve(scores):
    known, unknown, correct = scores
    for e in range(3):
        thresholds = np.r_[np.inf, np.unique(torch.cat([known[e], unknown[e]]).numpy())[::-1]]
        ccr = [((known[e].numpy() >= t) & correct[e].numpy()).mean() for t in thresholds]
        fpr = [(unknown[e].numpy() >= t).mean() for t in thresholds]
        area = np.trapezoid(ccr, fpr) if hasattr(np, "trapezoid") else np.trapz(ccr, fpr)
        assert openset.oscr(known, correct, unknown)[e].item() == pytest.approx(area)


@pytest.fixture(scope="module", params=["smooth", "ties"])
def mixed(request) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 5, (80,), generator=generator)
    seen = torch.tensor([True, False, True, True, False])
    logits = torch.randn(80, 5, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 5) + 1.0 * seen
    return (logits.round() if request.param == "ties" else logits), labels, seen


def test_u_s_h_by_hand(mixed):
    logits, labels, seen = mixed
    predicted = logits.argmax(-1)
    recalls = np.array([(predicted[labels == c] == c).float().mean().item() for c in range(5)])
    u, s = recalls[[1, 4]].mean(), recalls[[0, 2, 3]].mean()
    counts = classification.confusion(predicted, labels, 5)
    assert [x.item() for x in gzsl.seen_unseen(counts, seen)] == pytest.approx([u, s, 2 * u * s / (u + s)])


def test_ausuc_matches_a_sweep_over_gamma(mixed):
    logits, labels, seen = mixed
    gaps = logits[:, seen].max(-1).values - logits[:, ~seen].max(-1).values
    steps = gaps.unique().double()
    gammas = [steps[0] - 1, *((steps[1:] + steps[:-1]) / 2), steps[-1] + 1]  # between any two gaps
    points = []
    for gamma in gammas:
        counts = classification.confusion((logits.double() - gamma * seen).argmax(-1), labels, 5)
        u, s, _ = gzsl.seen_unseen(counts, seen)
        points.append((u.item(), s.item()))
    area = sum((a[0] - b[0]) * (a[1] + b[1]) / 2 for b, a in pairwise(points))
    assert gzsl.ausuc(logits, labels, seen).item() == pytest.approx(area, rel=1e-5)


def test_h_is_zero_when_both_are():
    counts = torch.tensor([[0, 3], [3, 0]])
    assert gzsl.seen_unseen(counts, torch.tensor([True, False]))[2].item() == 0.0


def test_average_precision_matches_scikit_learn():
    generator = torch.Generator().manual_seed(11)
    scores = torch.randn(6, 30, generator=generator)
    relevant = torch.rand(6, 30, generator=generator) < 0.2
    relevant[:, 0] = True
    theirs = [average_precision_score(r, s) for r, s in zip(relevant, scores, strict=True)]
    assert retrieval.average_precision(scores, relevant).tolist() == pytest.approx(theirs)


def test_recall_at_k_by_hand():
    scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    relevant = torch.tensor([[False, True, False], [True, False, False]])
    assert retrieval.recall_at(scores, relevant, 1).tolist() == [0, 0]
    assert retrieval.recall_at(scores, relevant, 2).tolist() == [1, 0]
    assert retrieval.recall_at(scores, relevant, 9).tolist() == [1, 1]
