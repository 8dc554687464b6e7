"""Trials: honest splits, a corrected interval, and the right answer where the truth is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import t

from fewshot import fit, make_task
from fewshot.arrays import unit
from fewshot.errors import DataError
from fewshot.metrics.interval import Estimate
from fewshot.registry import registry
from fewshot.transfer.advice import Advice, advise, choose, likely, surely
from fewshot.transfer.trial import Pair, Trial, candidates, corrected, spanned, splits, thinned, try_out
from fewshot.transfer.what import Suitability, mean_ranks, suitability
from fewshot.transfer.when import Gap, class_gap, quadrant

DIM, CLASSES = 20, 4
NAMES = ("a", "b", "c", "d")


def items(centres: torch.Tensor, each: int, rng: torch.Generator, noise: float = 2.0) -> tuple:
    labels = torch.arange(len(centres)).repeat_interleave(each)
    return unit(centres[labels] + noise * torch.randn(len(labels), DIM, generator=rng)), labels


def pair(kind: str, seed: int = 0, each: int = 8) -> Pair:
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, DIM, generator=rng)
    x, labels = items(centres, each, rng)
    source, own = items(centres, 40, rng)
    if kind == "wrong labels":
        own = (own + 1) % CLASSES
    if kind == "other classes":
        source, own = items(torch.randn(6, DIM, generator=rng), 20, rng)
        own = own + CLASSES
    return Pair(source, own, x, labels, NAMES)


def test_splits_hold_out_a_quarter_of_each_class_and_never_both() -> None:
    labels = np.repeat([0, 1, 2], [8, 2, 5])
    found = splits(labels, 30, 0)
    for learn, test in found:
        assert set(learn) | set(test) == set(range(15))
        assert not set(learn) & set(test)
        assert np.bincount(labels[test]).tolist() == [2, 1, 1]
    assert len({tuple(test) for _, test in found}) > 20


def test_interval_of_nadeau_and_bengio() -> None:
    d = np.array([0.1, 0.3, -0.1, 0.2])
    got = corrected(d, 0.25)
    assert got.mean == pytest.approx(0.125)
    assert got.half_width == pytest.approx(t.ppf(0.975, 3) * np.sqrt(d.var(ddof=1) * (1 / 4 + 0.25)))


@pytest.mark.parametrize(("kind", "verdict"), [("same", "helps"), ("wrong labels", "hurts")])
def test_verdict_where_the_truth_is_known(kind: str, verdict: str) -> None:
    found = answer(pair(kind))
    assert found.verdict == verdict
    assert found.plain == "pooled"
    if verdict == "hurts":
        assert "leave it out" in found.when
        assert "--source" not in found.command
    else:
        assert "--source from --out" in found.command


def answer(case: Pair) -> Advice:
    scored = [suitability("toy", case)]
    return advise(case, scored, encoder="toy", places=("from", "to"), repeats=10,
                  strategies=("pooled", "biased_ridge"))  # fmt: skip


def test_accuracy_is_that_of_the_strategy_on_the_same_rows() -> None:
    case = pair("same")
    found = try_out(case, ["pooled"], repeats=2)
    for place, (learn, test) in enumerate(splits(case.labels.numpy(), 2, 0)):
        x, labels = case.target[torch.from_numpy(learn)], case.labels[torch.from_numpy(learn)]
        task = make_task(torch.cat([case.source, x]), torch.cat([case.source_labels, labels]))
        head = fit(registry().strategy("ridge")(), task)
        right = head.logits(case.target[torch.from_numpy(test)]).argmax(-1) == case.labels[torch.from_numpy(test)]
        assert found.accuracy["pooled"][place] == pytest.approx(float(right.double().mean()))


def test_foreign_classes_are_tried_with_strategies_for_them() -> None:
    assert candidates(pair("other classes")) == ("multi_task", "bayes")
    assert "coral" in candidates(pair("same"))
    found = try_out(pair("other classes"), ["coral", "multi_task"], repeats=2)
    assert set(found.accuracy) == {"ridge", "multi_task"}
    assert "0 of them the task's" in found.left_out["coral"]


def test_choice_wants_certainty_or_safety() -> None:
    rng = np.random.default_rng(0)
    base = 0.6 + 0.02 * rng.normal(size=20)

    def trial(**gains: float) -> Trial:
        noisy = {n: base + g + 0.1 * rng.normal(size=20) * (n != "steady") for n, g in gains.items()}
        return Trial({"ridge": base, **noisy}, 0.3, {})

    assert choose(trial(steady=0.05, pooled=0.0)) == "steady"
    assert choose(trial(pooled=0.01, tca=0.02, biased_ridge=0.0)) == "biased_ridge"
    assert choose(trial(pooled=-0.3, tca=0.02, biased_ridge=-0.3)) == "ridge"
    assert choose(trial(pooled=-0.3, biased_ridge=0.0)) == "biased_ridge"  # pooling hurts, weighing does not
    likely_so = trial(biased_ridge=0.0)
    likely_so.accuracy["pooled"] = base + 0.1 * (1 + (-1.0) ** np.arange(20))  # gains 0.1 with a half width of 0.127
    assert (surely(likely_so.gain("pooled")), likely(likely_so.gain("pooled"))) == (0, 1)
    assert choose(likely_so) == "pooled"
    likely_so.accuracy["biased_ridge"] = likely_so.accuracy["pooled"] + 0.001
    assert choose(likely_so) == "biased_ridge"
    assert choose(trial(multi_task=0.01)) == "ridge"
    unweighted = trial(pooled=-0.3)
    unweighted.accuracy["biased_ridge"] = unweighted.accuracy["ridge"]  # no split gave the source any weight
    assert choose(unweighted) == "ridge"


@pytest.mark.parametrize(("mean", "found"), [(0.05, 1), (0.03, 0), (0.0, 0), (-0.03, 0), (-0.05, -1)])
def test_a_leaning_is_more_than_one_standard_error(mean: float, found: int) -> None:
    gain = Estimate(mean, 0.04 * float(t.ppf(0.975, 19)), 20)  # a standard error of 0.04
    assert likely(gain) == found
    assert surely(gain) == 0
    told = replace(answer(pair("same")), gain=gain).when
    assert told.startswith(f"no difference for certain: with the source {100 * mean:+.1f} +- 8.4 points")
    assert told.partition("points")[2] == {1: "; it may help", 0: "", -1: "; it may hurt"}[found]


def test_thinning_is_even_and_spanning_keeps_inner_products() -> None:
    case = pair("same")
    many = Pair(case.source.repeat(6, 1), case.source_labels.repeat(6), case.target, case.labels, NAMES)
    small = thinned(many, 0)
    assert torch.bincount(small.source_labels).tolist() == [150] * 4
    few = Pair(case.source[::20], case.source_labels[::20], case.target[::4], case.labels[::4], NAMES)
    flat = spanned(few)
    assert flat.source.shape[1] < DIM
    torch.testing.assert_close(flat.source @ flat.target.mT, few.source @ few.target.mT, atol=1e-5, rtol=0)


def test_too_small_a_target_and_a_source_of_one_class_are_refused() -> None:
    case = pair("same")
    lone = Pair(case.source, case.source_labels, case.target[:25], case.labels[:25], NAMES)
    with pytest.raises(DataError, match="class 'd' of the target has 1 labelled items; advice needs at least 2"):
        try_out(lone, [], repeats=2)
    with pytest.raises(DataError, match="source has one class only"):
        try_out(Pair(case.source, case.source_labels * 0, case.target, case.labels, NAMES), [], repeats=2)


def test_ranks_are_means_over_three_scores() -> None:
    rows = [Suitability("x", 2, 1.0, 3.0, 0.5, None, None), Suitability("y", 2, 2.0, 1.0, 0.5, None, None)]
    assert mean_ranks(rows) == pytest.approx([(2 + 1 + 1) / 3, (1 + 2 + 1) / 3])


def test_class_gap_is_the_unbiased_mmd_between_classes() -> None:
    x, labels = items(torch.randn(3, DIM, generator=torch.Generator().manual_seed(1)), 5, torch.Generator())
    x = x.double()

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.exp(-(a - b).square().sum() / 2))

    gaps = []
    for first in range(3):
        for second in range(first):
            a, b = x[labels == first], x[labels == second]
            own = [np.mean([k(g[i], g[j]) for i in range(5) for j in range(5) if i != j]) for g in (a, b)]
            gaps.append(sum(own) - 2 * np.mean([k(p, q) for p in a for q in b]))
    assert class_gap(x, labels, 1.0) == pytest.approx(np.mean(gaps))
    assert class_gap(x[:5], labels[:5], 1.0) is None


@pytest.mark.parametrize(
    ("mmd2", "each", "advice"),
    [
        (0.01, 10, "frozen features with a linear head"),
        (0.5, 10, "features of earlier layers"),
        (0.01, 200, "fine-tune the last layers"),
        (0.5, 200, "fine-tune all layers"),
    ],
)
def test_quadrants(mmd2: float, each: int, advice: str) -> None:
    found = quadrant(Gap(mmd2, 0.5, 0.0, 1.0, 0.1), 4 * each, 4)
    assert found.advice.startswith(advice)
    assert f"{mmd2:.3f}" in found.reason
    assert f"{each} labelled items a class" in found.reason
    assert "lite" not in quadrant(Gap(mmd2, 0.5, 0.0, 1.0, 0.1), 4 * each, 4, texts=True).advice
