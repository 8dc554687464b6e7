"""Trials: every item held out honestly, and the right answer where the truth is known."""

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
from fewshot.transfer.advice import Advice, advise, choose
from fewshot.transfer.chance import chance_of_harm
from fewshot.transfer.trial import LEAST, Pair, Trial, candidates, deal, spanned, thinned, try_out
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


def test_every_item_is_held_out_once_a_round_and_classes_are_dealt_evenly() -> None:
    labels = torch.tensor([0, 1, 2]).repeat_interleave(torch.tensor([8, 3, 5]))
    folds = deal(labels, 20, 0)
    assert folds.shape == (20, 16)
    for fold in folds:
        counts = torch.stack([torch.bincount(fold[labels == c], minlength=3) for c in range(3)])
        assert sorted(fold.unique().tolist()) == [0, 1, 2]  # as many as the smallest class has items
        assert (counts.amax(1) - counts.amin(1)).max() <= 1
    assert len({tuple(fold.tolist()) for fold in folds}) == 20
    assert deal(torch.arange(2).repeat_interleave(9), 1, 0).max() == 4


@pytest.mark.parametrize(("kind", "verdict"), [("same", "helps"), ("wrong labels", "hurts")])
def test_verdict_where_the_truth_is_known(kind: str, verdict: str) -> None:
    found = answer(pair(kind))
    assert found.verdict == verdict
    assert found.plain == "pooled"
    if verdict == "hurts":
        assert "leave it out" in found.when
        assert found.strategy in ("ridge", "biased_ridge")
    else:
        assert "--source from --out" in found.command


def answer(case: Pair) -> Advice:
    scored = [suitability("toy", case)]
    return advise(case, scored, encoder="toy", places=("from", "to"), rounds=2,
                  strategies=("pooled", "biased_ridge"))  # fmt: skip


def test_held_out_scores_are_those_of_the_strategy_fitted_to_the_other_items() -> None:
    case = pair("same")
    found = try_out(case, ["pooled"], rounds=2, seed=3)
    for r, fold in enumerate(deal(case.labels, 2, 3)):
        for i in (0, 5, 31):
            rest = fold != fold[i]
            task = make_task(torch.cat([case.source, case.target[rest]]),
                             torch.cat([case.source_labels, case.labels[rest]]))  # fmt: skip
            wanted = fit(registry().strategy("ridge")(), task).logits(case.target[i : i + 1]).log_softmax(-1)[0]
            torch.testing.assert_close(found.log_p["pooled"][r, i].float(), wanted, atol=1e-3, rtol=1e-3)


def test_stacking_is_scored_by_weights_that_other_folds_chose() -> None:
    case = pair("same")
    found = try_out(case, ["stacking"], rounds=1, seed=3)
    stack = registry().strategy("stacking")()
    assert set(found.log_p) == {"ridge", "stacking", *stack.members}
    fold = deal(case.labels, 1, 3)[0]
    each = torch.stack([found.log_p[name][0] for name in stack.members], -1)  # [n, C, M]
    for k in fold.unique():
        weights = stack.weigh(each[fold != k], case.labels[fold != k])
        wanted = stack.blend(each[fold == k], weights).log_softmax(-1)
        torch.testing.assert_close(found.log_p["stacking"][0, fold == k], wanted)
    foreign = try_out(pair("other classes"), ["stacking"], rounds=1)
    assert set(foreign.log_p) == {"ridge", "multi_task", "bayes"}
    assert "0 of them the task's" in foreign.left_out["stacking"]


def test_accuracy_and_brier_score_count_items() -> None:
    p = torch.tensor([[[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]], [[0.8, 0.2], [0.6, 0.4], [0.2, 0.8]]], dtype=torch.float64)
    even = torch.full_like(p, 0.5)
    even[..., 0] += 1e-9
    found = Trial({"ridge": even.log(), "x": p.log()}, torch.tensor([0, 1, 1]), {})
    assert found.right("x").tolist() == [1.0, 0.5, 0.5]
    wanted = [(0.02 + 0.08) / 2, (0.18 + 0.72) / 2, (0.72 + 0.08) / 2]
    torch.testing.assert_close(found.brier("x"), torch.tensor(wanted, dtype=torch.float64))
    gain, skill = found.gain("x"), found.skill("x")
    differences = np.array([0.0, 0.5, 0.5])
    assert (gain.mean, gain.n) == (pytest.approx(differences.mean()), 3)
    assert gain.half_width == pytest.approx(t.ppf(0.975, 2) * differences.std(ddof=1) / np.sqrt(3))
    assert skill.mean == pytest.approx(0.5 - np.mean(wanted))
    assert found.chance("x") == chance_of_harm(gain, skill, found.accuracy("ridge"))
    assert found.best() == "x"
    assert found.best(["ridge"]) == "ridge"
    assert LEAST < -20


def test_foreign_classes_are_tried_with_strategies_for_them() -> None:
    assert candidates(pair("other classes")) == ("multi_task", "bayes")
    assert "coral" in candidates(pair("same"))
    found = try_out(pair("other classes"), ["coral", "multi_task"], rounds=1)
    assert set(found.log_p) == {"ridge", "multi_task"}
    assert "0 of them the task's" in found.left_out["coral"]


def trial(**sure: float) -> Trial:
    """Everything is right with the probability given; `ridge` with one half, unless given."""
    labels = torch.arange(2).repeat(20)
    log_p = {}
    for name, p in {"ridge": 0.55, **sure}.items():
        # a few items differ, so that differences have a spread
        each = p + 0.02 * torch.sin(torch.arange(40.0, dtype=torch.float64) + len(name))
        right = torch.stack([each, 1 - each], -1)  # [n, 2]
        log_p[name] = torch.where(labels[:, None] == 1, right.flip(-1), right).log()[None]
    return Trial(log_p, labels, {})


def test_choice_is_between_stacking_and_pooled_where_these_were_tried() -> None:
    assert choose(trial(ridge=0.4, pooled=0.7, stacking=0.6, tca=0.9)) == "pooled"
    assert choose(trial(pooled=0.5, stacking=0.6, tca=0.9)) == "stacking"
    # surely better probabilities than those of stacking, yet no more right answers than without the source
    assert choose(trial(ridge=0.6, pooled=0.7, stacking=0.6)) == "stacking"
    assert choose(trial(pooled=0.3, stacking=0.3, tca=0.9)) == "ridge"  # both hurt for certain
    assert choose(trial(pooled=0.7, tca=0.9)) == "tca"  # stacking was not asked for
    assert choose(trial(pooled=0.5, tca=0.4)) == "ridge"
    assert choose(trial(multi_task=0.6, bayes=0.5)) == "multi_task"
    assert choose(trial(multi_task=0.553)) == "ridge"  # by a standard error


@pytest.mark.parametrize(
    ("points", "half_width", "chance", "said"),
    [
        (6, 5, 0.1, "the source helps by 6.0 +- 5.0 points"),
        (-6, 5, 0.8, "the source hurts by 6.0 +- 5.0 points: leave it out, or let a strategy weigh it"),
        (0.5, 1.4, 0.3, "no difference: with the source +0.5 +- 1.4 points"),
        (3, 9, 0.1, "cannot tell: with the source +3.0 +- 9.0 points; it may help (chance of harm 10 %); "
                    "about 90 labelled items a class would tell"),  # 40 items, 3^2 as many, 4 classes
        (-3, 9, 0.6, "cannot tell: with the source -3.0 +- 9.0 points; it may hurt (chance of harm 60 %); "
                     "about 90 labelled items a class would tell"),
        (3, 9, 0.2, "cannot tell: with the source +3.0 +- 9.0 points (chance of harm 20 %); "
                    "about 90 labelled items a class would tell"),
        (0, 90, 0.2, "cannot tell: with the source +0.0 +- 90.0 points (chance of harm 20 %); "
                     "more than 1000 labelled items a class would tell"),
        (0, 0, 0.99, "cannot tell: with the source +0.0 +- 0.0 points; it may hurt (chance of harm 99 %); "
                     "about 38 labelled items a class would tell"),
        (0.5, 1.4, 0.4, "no difference: with the source +0.5 +- 1.4 points; it may hurt (chance of harm 40 %)"),
        (-6, 5, 0.4, "cannot tell: with the source -6.0 +- 5.0 points; it may hurt (chance of harm 40 %)"),
    ],
)  # fmt: skip
def test_the_verdict_in_words(points: float, half_width: float, chance: float, said: str) -> None:
    gain, skill = Estimate(points / 100, half_width / 100, 40), Estimate(0.0, 0.02, 40)
    told = replace(answer(pair("same")), gain=gain, skill=skill, chance=chance)
    assert told.when == said
    assert said.startswith(("the source " + told.verdict, told.verdict))


def test_a_verdict_by_probabilities_says_so() -> None:
    gain, skill = Estimate(-0.03, 0.09, 40), Estimate(-0.1, 0.02, 40)
    told = replace(answer(pair("same")), gain=gain, skill=skill, chance=0.7)
    assert told.when.startswith("the source hurts (-3.0 +- 9.0 points; probabilities worse for certain): leave it out")


def test_thinning_is_even_and_spanning_keeps_inner_products() -> None:
    case = pair("same")
    many = Pair(case.source.repeat(6, 1), case.source_labels.repeat(6), case.target, case.labels, NAMES)
    small = thinned(many, 0)
    assert torch.bincount(small.source_labels).tolist() == [150] * 4
    assert torch.bincount(thinned(many, 0, 42).source_labels).tolist() in ([11, 11, 10, 10], [10, 10, 11, 11])
    few = Pair(case.source[::20], case.source_labels[::20], case.target[::4], case.labels[::4], NAMES)
    flat = spanned(few)
    assert flat.source.shape[1] < DIM
    torch.testing.assert_close(flat.source @ flat.target.mT, few.source @ few.target.mT, atol=1e-5, rtol=0)


def test_too_small_a_target_and_a_source_of_one_class_are_refused() -> None:
    case = pair("same")
    lone = Pair(case.source, case.source_labels, case.target[:25], case.labels[:25], NAMES)
    with pytest.raises(DataError, match="class 'd' of the target has 1 labelled item; advice needs at least 2"):
        try_out(lone, [], rounds=1)
    with pytest.raises(DataError, match="source has one class only"):
        try_out(Pair(case.source, case.source_labels * 0, case.target, case.labels, NAMES), [], rounds=1)


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
